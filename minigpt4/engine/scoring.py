"""How likely given answers are: the prompt is read once, and the candidates beside each other behind it.

Shapes: Q positions of candidates, S of the prompt, V the vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from .backend import Backend
from .prefix import Prefix
from .rows import block_of


def candidate_logprobs(
    backend: Backend, prefix: Prefix, logits: torch.Tensor, candidates: Sequence[Sequence[int]], room: int
) -> list[list[float]]:
    """Log-probabilities of each candidate's tokens behind a prompt.

    Args:
        prefix: the prompt's keys and values.
        logits: (V), at the prompt's end.
        candidates: their ids, the end included.
        room: positions that are read at a time.
    """
    known = prefix[0][0].shape[1]
    block = block_of(backend, prefix, known + max(map(len, candidates)))
    scores: list[list[float]] = []
    for some in _portions(candidates, room):
        read = [ids[:-1] for ids in some]  # nothing follows the last token
        rest = iter(backend.read_each(block, known, [ids for ids in read if ids]) if any(read) else ())
        for ids, before in zip(some, read, strict=True):
            seen = torch.cat([logits[None], next(rest)]) if before else logits[None]
            scores.append(_logp(seen)[torch.arange(len(ids)), torch.tensor(ids)].tolist())
    return scores


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
