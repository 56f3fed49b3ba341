"""Several answers to each prompt, drawn side by side: the prompt is read once, not once an answer."""

from collections.abc import Callable, Sequence

import torch
from transformers import DynamicCache

from .minigpt4 import MiniGPT4ForConditionalGeneration

Choose = Callable[[torch.Tensor, Sequence[int], int], torch.Tensor]
"""(logits of (N, vocabulary), which answer each row belongs to, how many tokens it has) -> the next token of each, (N,)."""


def at_random(logits: torch.Tensor, answers: Sequence[int], step: int) -> torch.Tensor:
    """The next tokens, drawn as likely as the model has them."""
    return torch.multinomial(logits.float().softmax(-1), 1)[:, 0]


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
    cache, mind, mask = DynamicCache(), model.language_model, attention_mask
    out = mind(
        inputs_embeds=model.embed(input_ids, image_embeds),
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        logits_to_keep=1,
    )
    cache.batch_repeat_interleave(samples)
    mask = mask.repeat_interleave(samples, 0)
    logits = out.logits[:, -1].repeat_interleave(samples, 0)
    said: list[list[int]] = [[] for _ in range(len(logits))]
    going = list(range(len(said)))  # the answers that the rows of the cache belong to
    for step in range(longest):
        token = choose(logits, going, step)
        for answer, value in zip(going, token.tolist(), strict=True):
            if not ends & set(said[answer][-1:]):
                said[answer].append(value)
        left = [row for row, answer in enumerate(going) if said[answer][-1] not in ends]
        if not left or step + 1 == longest:
            break
        if len(left) < 0.7 * len(going):  # rows that are done cost as much as others
            chosen = torch.tensor(left, device=mask.device)
            cache.batch_select_indices(chosen)
            mask, token, going = mask[chosen], token[chosen], [going[row] for row in left]
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        out = mind(
            input_ids=token[:, None],
            attention_mask=mask,
            position_ids=mask.sum(-1, keepdim=True) - 1,
            past_key_values=cache,
        )
        logits = out.logits[:, -1]
    return said
