"""The answer that a model's other answers agree with most.

A model that is unsure where a thing ends spreads its probability over many boxes; the likeliest digits, one after the other,
then make a box that is often far from most of them. Drawing several answers and taking the one with the greatest mean likeness
to the others (minimum Bayes risk decoding, Kumar & Byrne 2004) is right more often, for the price of a few short answers drawn
side by side. Where its boxes lie, those of the others that are of the same thing have a say (as boxes of several detectors are
fused: Solovyev et al. 2021).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from ..engine.sampling import Choose, draw
from ..errors import UserError
from ..metrics.boxes import iou
from ..model.modeling import MiniGPT4ForConditionalGeneration
from ..prompt.boxes import Box, parse_boxes, with_boxes_moved

_WARPERS: dict[str, Callable[[Any], Any]] = {
    "temperature": TemperatureLogitsWarper,
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
}
BESIDE_SELF_CONSISTENCY = frozenset(("max_new_tokens", "mirrored", "zoom_in", "seed", *_WARPERS))
"""Settings that go with self-consistency."""


def drawn(
    model: MiniGPT4ForConditionalGeneration, inputs: dict[str, torch.Tensor], image_embeds: torch.Tensor | None, **settings: Any
) -> list[list[list[int]]]:
    """Several answers to each prompt, as ids.

    The same chances are used for every prompt, so that an answer does not depend on what is asked beside it.

    Args:
        inputs: input_ids and attention_mask, (B, S).
        settings: ``self_consistency`` (how many), ``max_new_tokens``, and those of temperature, top_k, top_p and seed that are
            wished.

    Raises:
        UserError: decoding settings that do not go with this one.
    """
    samples, longest, seed = settings.pop("self_consistency"), settings.pop("max_new_tokens"), settings.pop("seed", 0)
    settings.pop("stopping_criteria", None)  # texts at which a chat stops are cut off afterwards
    if settings.pop("do_sample", True) is False or settings.pop("num_beams", 1) != 1:
        raise UserError("self-consistency draws its answers: leave out num_beams and do_sample")
    if others := set(settings) - set(_WARPERS):
        raise UserError(f"self-consistency does not go with {min(others)}")
    if not isinstance(samples, int) or samples < 2:
        raise UserError(f"self-consistency is among two answers or more, not {samples}")
    ends = model.generation_config.eos_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    warp = LogitsProcessorList([_WARPERS[name](value) for name, value in settings.items()])
    choose = _evenly(samples, seed, warp)
    said = draw(model, **inputs, image_embeds=image_embeds, samples=samples, longest=longest, ends=ends, choose=choose)
    return [said[i : i + samples] for i in range(0, len(said), samples)]


def _evenly(samples: int, seed: int, warp: LogitsProcessorList) -> Choose:
    """Draws by fixed chances, spread evenly over the answers to a prompt: few of them then stand for the whole distribution."""
    generator = torch.Generator().manual_seed(seed)
    tables: list[torch.Tensor] = []

    def choose(logits: torch.Tensor, rows: Sequence[int], answers: Sequence[int], step: int) -> torch.Tensor:
        while len(tables) <= step:
            order = torch.randperm(samples, generator=generator)
            tables.append((order + torch.rand(samples, generator=generator)) / samples)
        chances = tables[step][[answer % samples for answer in answers]].to(logits.device, torch.float64)
        upto = warp(torch.empty(0), logits.float()).softmax(-1).double().cumsum(-1)
        by_row = torch.tensor(rows, device=logits.device)
        tokens = torch.empty_like(by_row)
        for row in set(rows):
            own = by_row == row
            tokens[own] = torch.searchsorted(upto[row], chances[own] * upto[row, -1], right=True)
        return tokens.clamp(max=logits.shape[-1] - 1)

    return choose


def agreed(texts: Sequence[str]) -> str:
    """Of several answers the one that is most like all of them (of equals the first), with each of its boxes moved to the
    mean of the boxes, one from an answer at most, that overlap it by half or more."""
    boxes, words = [parse_boxes(text) for text in texts], [text.lower().split() for text in texts]
    places = any(boxes)

    def likeness(i: int, j: int) -> float:
        return boxes_alike(boxes[i], boxes[j]) if places else words_alike(words[i], words[j])

    best = texts[max(range(len(texts)), key=lambda i: sum(likeness(i, j) for j in range(len(texts))))]
    return with_boxes_moved(best, lambda box: _fused(box, boxes)) if len(texts) > 1 else best


def _fused(box: Box, answers: Sequence[Sequence[Box]]) -> Box:
    """The mean of a box and of what each answer has that is most like it, as far as the IoU is at least 0.5."""
    nearest = [max(boxes, key=lambda other: iou(box, other)) for boxes in answers if boxes]
    same = [other for other in nearest if iou(box, other) >= 0.5] or [box]
    return Box(*(sum(edges) / len(same) for edges in zip(*same, strict=True)))


def boxes_alike(first: Sequence[Box], second: Sequence[Box]) -> float:
    """Between 0 and 1: the IoU of boxes that are paired, best pairs first, over the mean number of boxes."""
    pairs = sorted(((iou(a, b), i, j) for i, a in enumerate(first) for j, b in enumerate(second)), reverse=True)
    total, left, right = 0.0, set(range(len(first))), set(range(len(second)))
    for share, i, j in pairs:
        if i in left and j in right:
            left.remove(i)
            right.remove(j)
            total += share
    return 2 * total / (len(first) + len(second)) if first or second else 1.0


def words_alike(first: Sequence[str], second: Sequence[str]) -> float:
    """Between 0 and 1: the share of words that both have (F1)."""
    both = sum((Counter(first) & Counter(second)).values())
    return 2 * both / (len(first) + len(second)) if first or second else 1.0
