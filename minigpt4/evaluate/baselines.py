"""What a system must beat to have seen anything: boxes that nobody looked for, and the best that a coarse vision encoder could
do."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..metrics.boxes import iou
from ..metrics.vqa import normalise
from ..prompt.boxes import Box
from .annotations import Place

Row = dict[str, Any]
WHOLE = Box(0.0, 0.0, 1.0, 1.0)


def mean_box(boxes: Sequence[Box]) -> Box:
    """The mean of each edge."""
    return Box(*(float(v) for v in np.mean([tuple(box) for box in boxes], axis=0)))


def centre_box(boxes: Sequence[Box]) -> Box:
    """A box in the middle of the picture, as wide and as high as the boxes are on average."""
    width = float(np.mean([box.x2 - box.x1 for box in boxes]))
    height = float(np.mean([box.y2 - box.y1 for box in boxes]))
    return Box(0.5 - width / 2, 0.5 - height / 2, 0.5 + width / 2, 0.5 + height / 2)


def best_box(boxes: Sequence[Box], threshold: float = 0.5, candidates: int = 1000) -> Box:
    """The one box that would be right most often if it were always the answer, among the boxes themselves.

    Args:
        candidates: at most so many are tried, evenly taken from the list.
    """
    truth = np.array([tuple(box) for box in boxes])
    areas = (truth[:, 2] - truth[:, 0]) * (truth[:, 3] - truth[:, 1])
    best, most = boxes[0], -1
    for i in np.linspace(0, len(boxes) - 1, min(len(boxes), candidates)).astype(int):
        tried = truth[i]
        width = (np.minimum(truth[:, 2], tried[2]) - np.maximum(truth[:, 0], tried[0])).clip(0)
        height = (np.minimum(truth[:, 3], tried[3]) - np.maximum(truth[:, 1], tried[1])).clip(0)
        right = int((width * height > threshold * (areas + areas[i] - width * height)).sum())
        if right > most:
            best, most = boxes[i], right
    return best


def largest_boxes(places: Iterable[Place]) -> dict[str, Box]:
    """The largest annotated box of each picture: what a good detector without language would say.

    It looks at the truth, which a system cannot.
    """
    largest: dict[str, Box] = {}
    for place in places:
        known = [largest[place.image]] if place.image in largest else []
        largest[place.image] = max([*known, *place.boxes], key=lambda box: box.area)
    return largest


def on_grid(box: Box, columns: int, rows: int) -> Box:
    """The best box whose edges lie on the borders of a grid's cells: what a vision encoder of so many cells could at most say
    if it knew no more of a thing than which cells it is in.

    Beyond the borders next to an edge of `box`, agreement only falls, so those are all that need be tried.
    """
    ways_x = _spans(box.x1, box.x2, columns)
    ways_y = _spans(box.y1, box.y2, rows)
    tried = (Box(x1, y1, x2, y2) for (x1, x2), (y1, y2) in itertools.product(ways_x, ways_y))
    return max(tried, key=lambda other: iou(box, other))


def _spans(low: float, high: float, cells: int) -> list[tuple[float, float]]:
    """The pairs of cell borders around the two ends of an interval, with at least a cell between them."""
    starts = {math.floor(low * cells), math.ceil(low * cells)}
    ends = {math.floor(high * cells), math.ceil(high * cells)}
    spans = [(a, b) for a in starts for b in ends if 0 <= a < b <= cells]
    if not spans:  # thinner than any cell, and on a border
        a = min(math.floor(low * cells), cells - 1)
        spans = [(a, a + 1)]
    return [(a / cells, b / cells) for a, b in spans]


def most_common(answers: Sequence[str]) -> str:
    """What is said most often."""
    return Counter(answers).most_common(1)[0][0]


def best_answer(
    rows: Sequence[Row],
    truth: Callable[[Row], Sequence[str]],
    score: Callable[[str, Row], float],
    candidates: int = 50,
) -> str:
    """The one answer that would score most if it were always given. It need not be the commonest: where several people answer
    each question, one of which all are sure counts no more than one that three in ten give.

    Args:
        rows: one at least.
        truth: what people answered to a row.
        score: of an answer to a row; above 0 only for what is among them, capitals, articles and punctuation aside.
        candidates: so many of the commonest answers are tried.
    """
    spelt: dict[str, Counter[str]] = defaultdict(Counter)
    given: list[set[str]] = []
    for row in rows:
        for text in truth(row):
            spelt[normalise(text)][text] += 1
        given.append({normalise(text) for text in truth(row)})
    common = sorted(spelt, key=lambda name: -spelt[name].total())[:candidates]
    tried = {name: spelt[name].most_common(1)[0][0] for name in common}
    totals = dict.fromkeys(tried, 0.0)
    for row, names in zip(rows, given, strict=True):
        for name in names & totals.keys():
            totals[name] += score(tried[name], row)
    return tried[max(totals, key=totals.__getitem__)]  # of equals, the commonest
