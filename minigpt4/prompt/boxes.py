"""Boxes in pictures, and how they are written as text.

MiniGPT-v2 (paper, section 2.2) writes a box as ``{<x1><y1><x2><y2>}``: whole numbers from 0 to 100, relative to the picture's
width and height; several boxes of one phrase are joined by ``<delim>``.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

GRID = 100
DELIMITER = "<delim>"
Rounding = Literal["truncate", "nearest"]

_BOX = re.compile(r"\{\s*<(\d{1,3})>\s*<(\d{1,3})>\s*<(\d{1,3})>\s*<(\d{1,3})>\s*\}")


@dataclass(frozen=True)
class Box:
    """A box in relative coordinates: 0 is the picture's left or top edge, 1 its right or bottom edge."""

    x1: float
    y1: float
    x2: float
    y2: float

    @classmethod
    def from_xywh(cls, x: float, y: float, w: float, h: float, width: float, height: float) -> "Box":
        """From COCO's form: left, top, width and height in pixels of a picture of `width` x `height`."""
        return cls(x / width, y / height, (x + w) / width, (y + h) / height)

    def render(self, rounding: Rounding = "truncate") -> str:
        """``{<x1><y1><x2><y2>}``; published data truncates, which draws the right and bottom edges in by up to 1 %."""
        snap = math.trunc if rounding == "truncate" else round
        return "{" + "".join(f"<{snap(v * GRID)}>" for v in (self.x1, self.y1, self.x2, self.y2)) + "}"


def render_boxes(boxes: Iterable[Box], rounding: Rounding = "truncate") -> str:
    """Several boxes of one phrase, joined by `DELIMITER`."""
    return DELIMITER.join(box.render(rounding) for box in boxes)


def parse_boxes(text: str) -> list[Box]:
    """Every meaningful box written in a text, in order; inverted, empty or out-of-range ones are left out."""
    found = []
    for match in _BOX.finditer(text):
        x1, y1, x2, y2 = (int(v) / GRID for v in match.groups())
        if x1 < x2 <= 1 and y1 < y2 <= 1:
            found.append(Box(x1, y1, x2, y2))
    return found
