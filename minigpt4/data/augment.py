"""A sample seen otherwise: in a mirror, where left is right in the text as well, a part of its pictures, or more coarsely."""

import dataclasses
import math
import random
import re

from ..errors import UserError
from ..media.images import Part
from ..prompt.boxes import Box, parse_boxes, render_boxes
from ..prompt.mirror import mirror_text
from .sample import Sample, Turn

_STRETCH = 4 / 3
"""How many times as wide for its height as another part's a part may be at most. The papers' first stages take parts of a fixed
range of shapes, 3:4 to 4:3; here it is the picture's own shape that is changed a little."""

_TRIES = 8
"""Parts of a picture that are tried until enough of what is asked about is seen."""
_MOST, _HARDLY = 0.5, 0.1
"""A box is asked about if at least so much of it is seen, and counts as gone if no more than that is."""
_TIMES, _LEAST_SIDE = 4.0, 0.2
"""Of parts around a box: how many times its sides at most, and how much of the picture's at least."""
_ONE = r"\{(?:<\d+>){4}\}"
_BOXES = re.compile(rf"{_ONE}(?:<delim>{_ONE})*")
"""The boxes of one thing or kind, as samples write them."""
_ONE_PHRASE = re.compile(rf"<p>[^<]*</p> {_BOXES.pattern}")


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


def crop(sample: Sample, least: float, rng: random.Random) -> Sample:
    """The sample with a part of its pictures, anywhere in them, that has from `least` to all of their area.

    Boxes in the text move with the part. Of questions side by side, those go whose boxes lie outside or are mostly cut off;
    where half of them would go, or the sample is a conversation, another part is tried, and at last the whole picture.

    Raises:
        UserError: a text that ties phrases to places, of which it would speak whether they are seen or not.
    """
    _check_parts(sample)
    for _ in range(_TRIES):
        if (seen := _shown(sample, some_part(least, rng), len(sample.turns) / 2)) is not None:
            return seen
    return sample


def zoomed(sample: Sample, rng: random.Random) -> Sample:
    """The sample with what surrounds one of its boxes, enlarged, as a zoom-in refinement at a thing shows it.

    The part is one to four times as wide and high as the box, and has it anywhere. Boxes in the text move with the part; of
    questions side by side, those go whose boxes lie outside or are mostly cut off. Where none is left, or a conversation would
    lose a turn, another part is tried, and at last the whole picture.

    Raises:
        UserError: a text without a box, or one that ties several phrases to places.
    """
    _check_parts(sample)
    boxes = [box for text in _texts(sample) for match in _BOXES.finditer(text) for box in parse_boxes(match[0])]
    if not boxes:
        raise UserError(f"{sample.id}: there is no box in its text to look at more closely; leave zoomed out")
    for _ in range(_TRIES):
        box = min(rng.choices(boxes, k=2), key=lambda box: box.area)  # a small one more often: large ones fill the picture
        if (seen := _shown(sample, part_around(box, rng), 1)) is not None:
            return seen
    return sample


def on_lines(sample: Sample, lines: int) -> Sample:
    """The sample with the edges of boxes in its text on the nearest of so many lines a side, at least one apart.

    What is finer than a vision encoder can tell is noise, and noise is most of what the digits of such a box would teach.
    """

    def nearest(low: float, high: float) -> tuple[float, float]:
        first, last = round(lines * low), round(lines * high)
        if first >= last:
            first = min(int(lines * (low + high) / 2), lines - 1)
            last = first + 1
        return first / lines, last / lines

    def moved(match: re.Match[str]) -> str:
        boxes = [box.clipped() for box in parse_boxes(match[0])]
        if not boxes:  # only looked like some
            return match[0]
        spans = [(*nearest(box.x1, box.x2), *nearest(box.y1, box.y2)) for box in boxes]
        return render_boxes((Box(x1, y1, x2, y2) for x1, x2, y1, y2 in dict.fromkeys(spans)), "nearest")

    turns = (
        Turn(question=_BOXES.sub(moved, turn.question), answers=tuple(_BOXES.sub(moved, text) for text in turn.answers))
        for turn in sample.turns
    )
    return dataclasses.replace(sample, turns=tuple(turns))


def _texts(sample: Sample) -> list[str]:
    return [text for turn in sample.turns for text in (turn.question, *turn.answers)]


def _check_parts(sample: Sample) -> None:
    if any("<p>" in text and not _ONE_PHRASE.fullmatch(text) for text in _texts(sample)):
        message = "its text tells of things in their places, so no part can be shown; leave crop and zoomed out"
        raise UserError(f"{sample.id}: {message}")


def _shown(sample: Sample, part: Part, enough: float) -> Sample | None:
    """The sample with a part of its pictures, and those of its questions side by side whose boxes are seen there. None if they
    are fewer than `enough`, or if a conversation would lose a turn."""
    turns = tuple(seen for turn in sample.turns if (seen := _seen_in(part, turn)) is not None)
    if len(turns) < (enough if sample.apart else len(sample.turns)):
        return None
    extra = {key: value for key, value in sample.extra.items() if key != "boxes"}  # they stood for the whole picture
    return dataclasses.replace(sample, turns=turns, crop=part, extra=extra)


def _seen_in(part: Part, turn: Turn) -> Turn | None:
    """A turn about the whole picture as one about a part of it; None if its boxes are not to be seen there."""
    unseen = False

    def moved(match: re.Match[str]) -> str:
        nonlocal unseen
        found = [box_in(part, box) for box in parse_boxes(match[0])]
        kept = [box for share, box in found if share >= _MOST]
        unseen |= not kept or any(_HARDLY < share < _MOST for share, _ in found)
        return render_boxes(kept, "nearest")

    question, *answers = (_BOXES.sub(moved, text) for text in (turn.question, *turn.answers))
    return None if unseen else Turn(question=question, answers=tuple(answers))


def box_in(part: Part, box: Box) -> tuple[float, Box]:
    """The share of a box that a part of the picture shows, and where it shows that."""
    share, edges = 1.0, []
    for low, high, begin, end in ((box.x1, box.x2, part[0], part[2]), (box.y1, box.y2, part[1], part[3])):
        inside = [min(max(v, begin), end) for v in (low, high)]
        share *= (inside[1] - inside[0]) / (high - low) if high > low else float(begin <= low <= end)
        edges.append([(v - begin) / (end - begin) for v in inside])
    (x1, x2), (y1, y2) = edges
    return share, Box(x1, y1, x2, y2)


def some_part(least: float, rng: random.Random) -> Part:
    """A part of a picture, anywhere in it, that has from `least` to all of its area."""
    root = math.sqrt(rng.uniform(least, 1))
    stretch = math.exp(rng.uniform(-1, 1) * math.log(_STRETCH) / 2)
    stretch = min(max(stretch, root), 1 / root)  # no wider or higher than the picture
    width, height = root * stretch, root / stretch
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return left, top, left + width, top + height


def part_around(box: Box, rng: random.Random) -> Part:
    """A part of a picture that has a box anywhere in it: one to four times as wide and high, and a fifth of the picture's sides
    at least."""
    box, times = box.clipped(), math.exp(rng.uniform(0, math.log(_TIMES)))
    spans = []
    for low, high in ((box.x1, box.x2), (box.y1, box.y2)):
        side = min(max(times * (high - low), _LEAST_SIDE), 1.0)
        begin = rng.uniform(max(high - side, 0.0), min(low, 1.0 - side))
        spans.append((begin, begin + side))
    (left, right), (top, bottom) = spans
    return left, top, right, bottom
