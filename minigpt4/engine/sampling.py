"""Several answers to each prompt, drawn side by side: what they have in common is read once, not once an answer."""

from collections.abc import Callable, Sequence

import torch
from transformers import DynamicCache

from ..model.modeling import MiniGPT4ForConditionalGeneration

Choose = Callable[[torch.Tensor, Sequence[int], Sequence[int], int], torch.Tensor]
"""(logits, (R, vocabulary); of N answers, which row of these each goes by and which answer it is; how many tokens they have)
-> the next token of each, (N,)."""


def at_random(logits: torch.Tensor, rows: Sequence[int], answers: Sequence[int], step: int) -> torch.Tensor:
    """The next tokens, drawn as likely as the model has them."""
    upto = logits.float().softmax(-1).cumsum(-1)[list(rows)]
    whole = upto[:, -1:].contiguous()
    chances = torch.rand_like(whole) * whole  # one an answer, where `multinomial` draws one a word
    last = torch.searchsorted(upto, whole)  # that can be said at all, should a chance have been rounded up to the whole
    return torch.minimum(torch.searchsorted(upto, chances, right=True), last)[:, 0]


@torch.no_grad()
def draw(
    model: MiniGPT4ForConditionalGeneration,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    image_embeds: torch.Tensor | None,
    *,
    samples: int,
    longest: int,
    ends: set[int],
    choose: Choose = at_random,
) -> list[list[int]]:
    """`samples` answers to each of B prompts as ids, the end included where one was reached.

    Args:
        input_ids, attention_mask: (B, S), padded on the left.
        image_embeds: (P, K, H), in order of the placeholders.
        longest: most tokens of an answer.
        ends: tokens that end an answer.

    Returns:
        B * samples answers, those of a prompt next to each other.
    """
    cache, llm, mask = DynamicCache(), model.language_model, attention_mask
    out = llm(
        inputs_embeds=model.embed(input_ids, image_embeds),
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        logits_to_keep=1,
    )
    logits = out.logits[:, -1]
    said: list[list[int]] = [[] for _ in range(len(logits) * samples)]
    going = list(range(len(said)))
    row_of = {answer: answer // samples for answer in going}  # answers that are the same so far share a row of the cache
    for step in range(longest):
        tokens = choose(logits, [row_of[answer] for answer in going], going, step).tolist()
        for answer, token in zip(going, tokens, strict=True):
            said[answer].append(token)
        left = [(answer, token) for answer, token in zip(going, tokens, strict=True) if token not in ends]
        going = [answer for answer, _ in left]
        if not left or step + 1 == longest:
            break
        branches = dict.fromkeys((row_of[answer], token) for answer, token in left)
        rows = [row for row, _ in branches]
        parted, few = len(set(rows)) < len(rows), len(rows) < 0.7 * len(logits)
        if parted or few:  # rows whose answers have ended cost as much as others
            chosen = torch.tensor(rows, device=mask.device)
            cache.batch_select_indices(chosen)
            mask, place = mask[chosen], {branch: i for i, branch in enumerate(branches)}
        else:
            place = {branch: branch[0] for branch in branches}
        row_of = {answer: place[row_of[answer], token] for answer, token in left}
        feed = torch.zeros(len(mask), 1, dtype=torch.long, device=mask.device)
        for (_, token), row in place.items():
            feed[row] = token
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        out = llm(
            input_ids=feed,
            attention_mask=mask,
            position_ids=mask.sum(-1, keepdim=True) - 1,
            past_key_values=cache,
        )
        logits = out.logits[:, -1]
    return said
