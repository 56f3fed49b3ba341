"""A sample seen in a mirror: the picture's left is right, and so it is in the text."""

import dataclasses
import re

from ..prompt.boxes import GRID, Box
from .records import Sample, Turn

_SIDES = {"left": "right", "right": "left", "leftmost": "rightmost", "rightmost": "leftmost"}
_SIDE = re.compile(
    r"(?<!\ball )\b(?:left|right)(?:most)?\b(?! now\b| away\b)",  # "all right", "right now": no sides; their twins neither
    re.IGNORECASE,
)
_NUMBER = r"<(0|[1-9]\d?|100)>"
_BOX = re.compile(r"\{" + _NUMBER * 4 + r"\}")


def mirror(sample: Sample) -> Sample:
    """The sample with its pictures mirrored left to right: the words left and right change places, boxes move to the other
    side, and `Sample.mirrored` is turned over. Mirrored twice, a sample is what it was.

    Pictures with writing in them should not be mirrored; whether a dataset has such is for the recipe to know.
    """
    turns = tuple(Turn(question=mirror_text(t.question), answers=tuple(map(mirror_text, t.answers))) for t in sample.turns)
    extra = dict(sample.extra)
    if "boxes" in extra:
        extra["boxes"] = tuple(Box(1 - box.x2, box.y1, 1 - box.x1, box.y2) for box in extra["boxes"])
    return dataclasses.replace(sample, turns=turns, extra=extra, mirrored=not sample.mirrored)


def mirror_text(text: str) -> str:
    """A text about the mirrored picture. Only words that are written small, large, or with one large letter are exchanged,
    and only boxes on the grid of 0 to 100, so that doing it twice gives the text back."""
    return _SIDE.sub(_other_side, _BOX.sub(_other_box, text))


def _other_side(match: re.Match[str]) -> str:
    word = match[0]
    for style in (str.lower, str.upper, str.capitalize):
        for side, other in _SIDES.items():
            if word == style(side):
                return style(other)
    return word


def _other_box(match: re.Match[str]) -> str:
    x1, y1, x2, y2 = map(int, match.groups())
    return f"{{<{GRID - x2}><{y1}><{GRID - x1}><{y2}>}}"
