"""Boxes in pictures, and how they are written as text.

MiniGPT-v2 (paper, section 2.2) writes a box as ``{<x1><y1><x2><y2>}``: whole numbers from 0 to 100, relative to the picture's
width and height. Several boxes of one phrase are joined by ``<delim>``, and a phrase that is tied to places is written
``<p>phrase</p> {<x1><y1><x2><y2>}<delim>{...}``.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from PIL import Image

from ..errors import UserError

GRID = 100
DELIMITER = "<delim>"
Rounding = Literal["truncate", "nearest"]
Phrase = tuple[str, list["Box"]]
"""A phrase and the places it is tied to."""


@dataclass(frozen=True, slots=True)
class Box:
    """A box in relative coordinates: 0 is the picture's left or top edge, 1 its right or bottom edge.

    A box may have no width or height (on the grid, thin things do) and may reach over the picture's edge (annotations do);
    `inside` and `clipped` are for those to whom that matters.

    Raises:
        UserError: a coordinate that is no finite number, or edges in the wrong order.
    """

    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self)):
            raise UserError(f"a box needs four finite numbers, not {', '.join(map(str, self))}")
        if self.x2 < self.x1 or self.y2 < self.y1:
            names = "right edge lies left of its left edge" if self.x2 < self.x1 else "bottom edge lies above its top edge"
            raise UserError(f"box {', '.join(f'{v:g}' for v in self)}: its {names}")

    def __iter__(self) -> Iterator[float]:
        return iter((self.x1, self.y1, self.x2, self.y2))

    # from other forms ------------------------------------------------------------------------------------------------

    @classmethod
    def from_pixels(cls, x1: float, y1: float, x2: float, y2: float, width: float, height: float) -> "Box":
        """From left, top, right and bottom in pixels of a picture of `width` x `height`.

        Raises:
            UserError: a picture without width or height.
        """
        if not (width > 0 and height > 0):
            raise UserError(f"a picture of {width:g} x {height:g} pixels has no place for a box")
        return cls(x1 / width, y1 / height, x2 / width, y2 / height)

    @classmethod
    def from_xywh(cls, x: float, y: float, w: float, h: float, width: float, height: float) -> "Box":
        """From COCO's form: left, top, width and height in pixels of a picture of `width` x `height`."""
        return cls.from_pixels(x, y, x + w, y + h, width, height)

    @classmethod
    def from_grid(cls, x1: int, y1: int, x2: int, y2: int) -> "Box":
        """From whole numbers 0..100, so that either rounding gives the same numbers again.

        Raises:
            UserError: a number beyond 100, or edges in the wrong order.
        """
        if not all(0 <= v <= GRID for v in (x1, y1, x2, y2)):
            raise UserError(f"box <{x1}><{y1}><{x2}><{y2}>: the numbers go from 0 to {GRID}")
        return cls(*(_ON_GRID[v] for v in (x1, y1, x2, y2)))

    @classmethod
    def from_mask(cls, mask: Image.Image) -> "Box | None":
        """The box around what is drawn (is not zero) in a mask of the picture's shape; None for an empty mask.

        As the published demo does it: the mask is first sampled down to the grid, and the box ends at the last cell that is
        drawn in, so it is up to 1 % small on the right and at the bottom.
        """
        if mask.has_transparency_data and (sheet := mask.convert("RGBA").getchannel("A")).getextrema() != (255, 255):
            mask = sheet  # drawn on a transparent sheet, in any colour
        drawn = mask.convert("L").point(lambda v: 255 if v else 0).resize((GRID, GRID), Image.Resampling.NEAREST).getbbox()
        return None if drawn is None else cls.from_grid(drawn[0], drawn[1], drawn[2] - 1, drawn[3] - 1)

    @classmethod
    def from_user(cls, given: "Box | str | Sequence[float]", width: int, height: int) -> "Box":
        """A box as a person gives it for a picture of `width` x `height`.

        Args:
            given: a `Box`; ``{<x1><y1><x2><y2>}``; or left, top, right and bottom, as a text with commas or as numbers.
                Numbers that all lie between 0 and 1 are relative, others are pixels.

        Raises:
            UserError: not a box, one without area, or one that is not inside the picture.
        """
        if isinstance(given, Box):
            box = given
        elif isinstance(given, str) and "<" in given:
            found = parse_boxes(given)
            if len(found) != 1:
                raise UserError(f"{given!r} is not one box: {_HOW_TO_GIVE}")
            box = found[0]
        else:
            try:
                numbers = [float(v) for v in (re.split(r"[\s,]+", given.strip()) if isinstance(given, str) else given)]
            except (TypeError, ValueError):
                numbers = []
            if len(numbers) != 4:
                raise UserError(f"{given!r} is not a box: {_HOW_TO_GIVE}")
            relative = all(0 <= v <= 1 for v in numbers)
            x1, y1, x2, y2 = numbers
            box = cls(x1, y1, x2, y2) if relative else cls.from_pixels(x1, y1, x2, y2, width, height)
        # Rounding, here or in whatever found the box, may carry an edge over the picture's by less than a pixel.
        slack_x, slack_y = 1 / width, 1 / height
        if box.x1 < -slack_x or box.y1 < -slack_y or box.x2 > 1 + slack_x or box.y2 > 1 + slack_y:
            shown = given if isinstance(given, str) else ", ".join(f"{v:g}" for v in given)
            raise UserError(f"box {shown} is not inside the picture, which is {width} x {height} pixels")
        box = box.clipped()
        if not box.area:
            raise UserError(f"box {given if isinstance(given, str) else tuple(given)} is empty: {_HOW_TO_GIVE}")
        return box

    # to other forms --------------------------------------------------------------------------------------------------

    def pixels(self, width: float, height: float) -> tuple[float, float, float, float]:
        """Left, top, right and bottom in pixels of a picture of `width` x `height`."""
        return self.x1 * width, self.y1 * height, self.x2 * width, self.y2 * height

    def xywh(self, width: float, height: float) -> tuple[float, float, float, float]:
        """COCO's form: left, top, width and height in pixels of a picture of `width` x `height`."""
        x1, y1, x2, y2 = self.pixels(width, height)
        return x1, y1, x2 - x1, y2 - y1

    def grid(self, rounding: Rounding = "truncate") -> tuple[int, int, int, int]:
        """Whole numbers 0..100; outside them where the box reaches over the picture's edge.

        Published training data truncates, which draws the right and bottom edges in by up to 1 %.
        """
        snap = math.trunc if rounding == "truncate" else round
        return snap(self.x1 * GRID), snap(self.y1 * GRID), snap(self.x2 * GRID), snap(self.y2 * GRID)

    def render(self, rounding: Rounding = "truncate") -> str:
        """``{<x1><y1><x2><y2>}``, rounded as `grid` does."""
        return "{" + "".join(f"<{v}>" for v in self.grid(rounding)) + "}"

    # geometry --------------------------------------------------------------------------------------------------------

    @property
    def area(self) -> float:
        """As a share of the picture's."""
        return (self.x2 - self.x1) * (self.y2 - self.y1)

    @property
    def inside(self) -> bool:
        """Whether the box keeps to the picture."""
        return min(self) >= 0 and max(self) <= 1

    def clipped(self) -> "Box":
        """The part inside the picture; without area if there is none."""
        return Box(*(min(max(v, 0.0), 1.0) for v in self))


_HOW_TO_GIVE = (
    "give left,top,right,bottom in pixels or as shares of the picture between 0 and 1, or {<x1><y1><x2><y2>} from 0 to 100"
)


def _on_grid(number: int) -> float:
    """The relative coordinate of a grid line. 29 / 100 * 100 is just below 29 and would be truncated to 28: the next
    float is not."""
    value = number / GRID
    return value if math.trunc(value * GRID) == number else math.nextafter(value, 2)


_ON_GRID = tuple(map(_on_grid, range(GRID + 1)))


# writing -------------------------------------------------------------------------------------------------------------


def render_boxes(boxes: Iterable[Box], rounding: Rounding = "truncate") -> str:
    """Several boxes of one phrase, joined by `DELIMITER`."""
    return DELIMITER.join(box.render(rounding) for box in boxes)


def render_phrases(pieces: Iterable[str | Phrase], rounding: Rounding = "truncate") -> str:
    """Text in pieces, plain or tied to places -> ``<p>a dog</p> {...}<delim>{...} near <p>a car</p> {...}``.

    Blanks between pieces are the caller's: a plain piece stands as it is.
    """
    return "".join(p if isinstance(p, str) else f"<p>{p[0]}</p> {render_boxes(p[1], rounding)}" for p in pieces)


# reading -------------------------------------------------------------------------------------------------------------

_TAG = re.compile(r"<\s*(?:delim|/?\s*p|unk|/?s)\s*>", re.IGNORECASE)
_NUMBERS = re.compile(r"(?P<open>\{\s*)?(?P<numbers><\s*\d+\s*>(?:[\s,]*<\s*\d+\s*>)*)(?P<close>\s*\})?")
_BOX_LIKE = re.compile(
    r"\{(?:[\s,]*<\s*[-+.\d]*\s*>)+[\s,]*(?:\}|<\s*[-+.\d]*\s*$)?"  # in braces, whole or broken off, meaningful or not
    r"|(?:<\s*\d+\s*>[\s,]*){2,}(?:\}|<\s*\d*\s*$)?"  # without the opening brace
    r"|\{\s*<\s*\d*\s*$"  # broken off in the first number
)
_JOINS = re.compile(r"(?:[\s,]|<\s*delim\s*>)*", re.IGNORECASE)
_BEGUN = re.compile(r"(?:<(?:/p?|p|d|de|del|deli|delim)?|\{)$")  # broken off before that


def parse_boxes(text: str) -> list[Box]:
    """Every meaningful box in what a model wrote, in order.

    Blanks and commas between the numbers, and missing braces, are forgiven. What is no box: three or five numbers, a number
    beyond 100, edges in the wrong order, and a box that breaks off at the end of the text before its closing brace.
    """
    return [box for _, _, box in _find_boxes(text)]


def parse_phrases(text: str) -> list[Phrase]:
    """Every phrase that is tied to boxes, in order; a phrase that comes again adds to its boxes."""
    found: dict[str, list[Box]] = {}
    for words, spans in _tied(text):
        found.setdefault(words, []).extend(box for _, _, box in spans)
    return list(found.items())


def with_other_boxes(text: str, others: Mapping[str, Sequence[Box]]) -> str:
    """The text with the boxes of `others` in place of their own for those of its phrases (as `parse_phrases` reads them)."""
    for words, spans in reversed(list(_tied(text))):
        if words in others:
            rest = text[spans[-1][1] :]
            for (_, end, _), (start, _, _) in reversed(list(pairwise(spans))):
                between = text[end:start]  # words stay, what joins boxes goes with them
                rest = rest if _JOINS.fullmatch(between) else between.rstrip() + rest
            text = text[: spans[0][0]] + render_boxes(others[words]) + rest
    return text


def with_boxes_moved(text: str, move: Callable[[Box], Box]) -> str:
    """The text with each meaningful box moved, everything else as it stands."""
    for start, end, box in reversed(list(_find_boxes(text))):
        text = text[:start] + move(box).render("nearest") + text[end:]
    return text


def without_boxes(text: str) -> str:
    """The text as a person reads it: without boxes (meaningful or not, whole or broken off) and markup.

    Text that has none is returned as it is.
    """
    stripped, boxes = _BOX_LIKE.subn(" ", text)
    stripped, tags = _TAG.subn(lambda m: " " if "d" in m[0].lower() else "", stripped)
    if not boxes + tags:
        return text
    stripped = re.sub(r"[^\S\n]+", " ", _BEGUN.sub("", stripped))
    return re.sub(r" +(?=[.,;:!?)\n]|$)", "", stripped).strip()


def _tied(text: str) -> Iterator[tuple[str, list[tuple[int, int, Box]]]]:
    """Every place where a phrase is tied to boxes: its words, and start, end and value of each box."""
    boxes = list(_find_boxes(text))
    opened = list(re.finditer(r"<\s*p\s*>", text, re.IGNORECASE))
    for i, tag in enumerate(opened):
        end = opened[i + 1].start() if i + 1 < len(opened) else len(text)
        mine = [span for span in boxes if tag.end() <= span[0] < end]
        if mine:
            # A phrase that is never closed ends where its first box begins.
            words = re.split(r"<\s*/\s*p\s*>", text[tag.end() : mine[0][0]], maxsplit=1, flags=re.IGNORECASE)[0]
            yield " ".join(words.split()), mine


def _find_boxes(text: str) -> Iterator[tuple[int, int, Box]]:
    """Start, end and value of every meaningful box."""
    text = _TAG.sub(lambda m: "\0" * len(m[0]), text)  # tags separate boxes; what is left in angle brackets is numbers
    last = len(text.rstrip())
    for match in _NUMBERS.finditer(text):
        start, end = match.span()
        if not match["open"] and text[start - 1 : start] in (">", "{") and start:
            continue  # the end of something longer
        if not match["close"] and (text[end : end + 1] == "<" or (match["open"] and end >= last)):
            continue  # the beginning of something longer, or of something that breaks off
        numbers = [int(v) if len(v) < 10 else GRID + 1 for v in re.findall(r"\d+", match["numbers"])]
        if len(numbers) == 4 and max(numbers) <= GRID and numbers[0] <= numbers[2] and numbers[1] <= numbers[3]:
            yield start, end, Box.from_grid(*numbers)
