"""Zoom-in refinement: asking again about what surrounds a box that was found, and about each thing that a description names."""

from collections.abc import Callable, Sequence
from functools import partial

from ..media.images import ImageInput, Part, part_of_image
from ..prompt.boxes import Box, parse_boxes, parse_phrases, with_boxes_moved, with_other_boxes
from ..prompt.tasks import TASKS
from .looks import Look
from .self_consistency import agreed

_AROUND = 1.5
"""How large the part is in which a box is looked for again, as a multiple of its sides."""
_LEAST_SIDE = 0.3


def at_what_was_found(
    looks: Sequence[Look], answers: Sequence[list[str]], ask: Callable[[Sequence[Look]], list[list[str]]]
) -> list[list[str]]:
    """Other answers to questions for one box: as many, of the part of the image that surrounds the box on which the first
    ones agree. The first ones stay where the question is not about one image, or has not one box, where nothing is found in
    the part, or where the part is the whole.

    Args:
        ask: questions -> answers to each.
    """
    views: list[tuple[int, Part]] = []
    for number, (look, first) in enumerate(zip(looks, answers, strict=True)):
        found = parse_boxes(agreed(first))
        if len(look.images) == len(found) == 1 and (part := around(found[0], _AROUND)) != (0.0, 0.0, 1.0, 1.0):
            views.append((number, part))
    zoomed = [
        Look.at([part_of_image(looks[number].images[0], part)], looks[number].question, looks[number].plain)
        for number, part in views
    ]
    now = list(answers)
    for (number, part), texts in zip(views, ask(zoomed) if zoomed else [], strict=True):
        now[number] = [with_boxes_moved(text, partial(_out_of, part)) for text in texts if parse_boxes(text)] or now[number]
    return now


def _out_of(part: Part, box: Box) -> Box:
    """Where a box of a part of the image is in the whole."""
    left, top, right, bottom = part
    width, height = right - left, bottom - top
    return Box(left + width * box.x1, top + height * box.y1, left + width * box.x2, top + height * box.y2)


def around(box: Box, times: float) -> Part:
    """The part of the image, so many times as wide and high as a box and never small, that has the box in its middle, or as
    near to it as the image's edges allow."""
    spans = []
    for low, high in ((box.x1, box.x2), (box.y1, box.y2)):
        side = min(max(times * (high - low), _LEAST_SIDE), 1.0)
        begin = min(max((low + high - side) / 2, 0.0), 1.0 - side)
        spans.append((begin, begin + side))
    (left, right), (top, bottom) = spans
    return left, top, right, bottom


def at_each_thing(
    looks: Sequence[Look],
    answers: Sequence[str],
    ask_many: Callable[[list[tuple[Sequence[ImageInput], str]]], Sequence[str]],
) -> list[str]:
    """The answers with the boxes that are found when each of their phrases is asked about by itself: ``[refer]`` for one box,
    ``[detection]`` for several. A phrase for which none is found then keeps what it had, as does one without a word.

    Args:
        ask_many: (images, question) pairs -> an answer to each.
    """
    phrases = [[(phrase, boxes) for phrase, boxes in parse_phrases(answer) if phrase.strip()] for answer in answers]
    items = [
        (look.images, TASKS["refer" if len(boxes) == 1 else "detection"].instruction(phrase))
        for look, named in zip(looks, phrases, strict=True)
        for phrase, boxes in named
    ]
    found = iter(ask_many(items))
    return [
        with_other_boxes(
            answer, {phrase: boxes for phrase, boxes in [(p, parse_boxes(next(found))) for p, _ in named] if boxes}
        )
        for answer, named in zip(answers, phrases, strict=True)
    ]
