"""Self-consistency: of several sampled answers the one that the others agree with most.

A model that is unsure where a thing ends spreads its probability over many boxes; the likeliest digits, one after the other,
then make a box that is often far from most of them. Sampling several answers and taking the one with the greatest mean
likeness to the others (minimum Bayes risk decoding, Kumar & Byrne 2004) is right more often, for the price of a few short
answers sampled side by side. Where its boxes lie, those of the others that are of the same thing have a say (as boxes of
several detectors are fused: Solovyev et al. 2021).
"""

from collections import Counter
from collections.abc import Sequence

from ..metrics.boxes import iou
from ..prompt.boxes import Box, parse_boxes, with_boxes_moved


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
