"""A text about a picture seen in a mirror: left is right in it, and boxes are on the other side."""

import re

from .boxes import GRID

_SIDES = {"left": "right", "right": "left", "leftmost": "rightmost", "rightmost": "leftmost"}
_SIDE = re.compile(
    r"(?<!\ball )\b(?:left|right)(?:most)?\b(?! now\b| away\b)",  # "all right", "right now": no sides; their twins neither
    re.IGNORECASE,
)
_NUMBER = r"<(0|[1-9]\d?|100)>"
_BOX = re.compile(r"\{" + _NUMBER * 4 + r"\}")


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
