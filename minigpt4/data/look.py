"""A sample seen otherwise: in a mirror, where left is right in the text as well, or a part of its pictures."""

import dataclasses
import math
import random

from ..errors import UserError
from ..prompt.boxes import Box
from ..prompt.mirror import mirror_text
from .records import Sample, Turn

_STRETCH = 4 / 3
"""How many times as wide for its height as another part's a part may be at most. The papers' first stages take parts of a fixed
range of shapes, 3:4 to 4:3; here it is the picture's own shape that is changed a little."""

Part = tuple[float, float, float, float]
"""A part of a picture: left, top, right and bottom as shares of its sides."""


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

    Raises:
        UserError: the sample's text has boxes, which would no longer be where it says.
    """
    texts = [text for turn in sample.turns for text in (turn.question, *turn.answers)]
    if any("{<" in text for text in texts):
        raise UserError(f"{sample.id}: has boxes, and its picture cannot be cropped; leave crop out for this dataset")
    return dataclasses.replace(sample, crop=some_part(least, rng))


def some_part(least: float, rng: random.Random) -> Part:
    """A part of a picture, anywhere in it, that has from `least` to all of its area."""
    root = math.sqrt(rng.uniform(least, 1))
    stretch = math.exp(rng.uniform(-1, 1) * math.log(_STRETCH) / 2)
    stretch = min(max(stretch, root), 1 / root)  # no wider or higher than the picture
    width, height = root * stretch, root / stretch
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return left, top, left + width, top + height
