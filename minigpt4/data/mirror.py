"""A sample seen in a mirror: the picture's left is right, and so it is in the text."""

import dataclasses

from ..prompt.boxes import Box
from ..prompt.mirror import mirror_text
from .records import Sample, Turn


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
