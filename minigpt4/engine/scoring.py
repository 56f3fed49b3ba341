"""How likely given answers are: the prompt is read once, and the candidates beside each other behind it.

Shapes: Q positions of candidates, S of the prompt, V the vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from .prefix import Prefix
from .rows import cache_of


def candidate_logprobs(
    model: Any, prefix: Prefix, logits: torch.Tensor, candidates: Sequence[Sequence[int]], room: int
) -> list[list[float]]:
    """Log-probabilities of each candidate's tokens behind a prompt.

    Args:
        prefix: the prompt's keys and values.
        logits: (V), at the prompt's end.
        candidates: their ids, the end included.
        room: positions that are read at a time.
    """
    scores: list[list[float]] = []
    for some in _portions(candidates, room):
        scores += _behind(model, prefix, logits, some)
    return scores


def _behind(model: Any, prefix: Prefix, logits: torch.Tensor, candidates: Sequence[Sequence[int]]) -> list[list[float]]:
    """The candidates in one row; each sees the prompt and itself."""
    read = [ids[:-1] for ids in candidates]  # nothing follows the last token
    lengths, known, device = [len(ids) for ids in read], prefix[0][0].shape[1], logits.device
    seen = logits.new_empty(0, len(logits))
    if sum(lengths):
        feed = model.get_input_embeddings()(torch.tensor([[i for ids in read for i in ids]], device=device))
        owner = torch.repeat_interleave(torch.arange(len(read)), torch.tensor(lengths))
        own = (owner[:, None] == owner).tril()
        hidden = torch.cat([own.new_zeros(len(owner), known), ~own], 1).to(device)
        mask = feed.new_zeros(hidden.shape).masked_fill_(hidden, torch.finfo(feed.dtype).min)
        places = known + torch.cat([torch.arange(length) for length in lengths])
        seen = model.language_model(
            inputs_embeds=feed,
            attention_mask=mask[None, None],
            position_ids=places[None].to(device),
            past_key_values=cache_of(prefix),
            use_cache=True,
        ).logits[0]
    first, rest = _logp(logits[None]), _logp(seen).split(lengths)
    return [
        torch.cat([first, later])[torch.arange(len(ids)), torch.tensor(ids)].tolist()
        for ids, later in zip(candidates, rest, strict=True)
    ]


def whole_logprobs(model: Any, prompt: torch.Tensor, candidates: Sequence[Sequence[int]], room: int) -> list[list[float]]:
    """The same for language models whose state cannot be gone on from: the prompt's embeddings (S, H) before each candidate."""
    scores: list[list[float]] = []
    table, first = model.get_input_embeddings(), len(prompt) - 1
    for some in _portions(candidates, room, len(prompt)):
        rows = [torch.cat([prompt, table(torch.tensor(ids, device=prompt.device))]) for ids in some]
        out = model.language_model(inputs_embeds=pad_sequence(rows, batch_first=True), use_cache=False)
        logp = _logp(out.logits[:, first:])
        scores += [logp[row, torch.arange(len(ids)), torch.tensor(ids)].tolist() for row, ids in enumerate(some)]
    return scores


def _portions(candidates: Sequence[Sequence[int]], room: int, prompt: int = 0) -> Iterator[Sequence[Sequence[int]]]:
    """Candidates in portions of at most `room` positions, but one at the least."""
    portion: list[Sequence[int]] = []
    for ids in candidates:
        if portion and sum(prompt + len(one) for one in (*portion, ids)) > room:
            yield portion
            portion = []
        portion.append(ids)
    if portion:
        yield portion


def _logp(logits: torch.Tensor) -> torch.Tensor:
    return logits.float().log_softmax(-1).cpu()
