"""Looking more than once before answering: at the picture in a mirror, at what surrounds a box that was found, and at each
thing that a description names."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..media.images import ImageInput, Part, part_of_image
from ..prompt.boxes import Box, parse_boxes, parse_phrases, with_boxes_moved, with_other_boxes
from ..prompt.mirror import mirror_text
from ..prompt.tasks import TASKS
from ..prompt.templates import Message, with_images
from .self_consistency import agreed

if TYPE_CHECKING:
    from .assistant import Assistant

Asked = Sequence[tuple[list[ImageInput], str]]
"""Questions, each about its pictures."""

_AROUND = 1.5
"""How large the part is in which a box is looked for again, as a multiple of its sides."""
_LEAST_SIDE = 0.3


def conversations(asked: Asked) -> list[list[Message]]:
    """Each question, behind the places of its pictures, as the beginning of a conversation."""
    return [[{"role": "user", "content": with_images(question, len(images))}] for images, question in asked]


def several(assistant: "Assistant", asked: Asked, generation: dict[str, Any]) -> list[list[str]]:
    """As many answers to each question as `generation` says (``self_consistency``, ``mirrored``)."""
    generation = dict(generation)
    mirrored = generation.pop("mirrored", False)
    everything = [image for images, _ in asked for image in images]
    if not generation.get("self_consistency"):
        return [[text] for text in assistant.complete(conversations(asked), assistant.encode(everything), **generation)]
    if not mirrored:
        return assistant.drawn(conversations(asked), assistant.encode(everything), generation)
    texts: list[list[str]] = [[] for _ in asked]
    for mirrored, turn in ((False, str), (True, mirror_text)):
        prompts = conversations([(images, turn(question)) for images, question in asked])
        half = generation | {"self_consistency": (generation["self_consistency"] + (not mirrored)) // 2}
        for own, more in zip(texts, assistant.drawn(prompts, assistant.encode(everything, mirrored), half), strict=True):
            own += map(turn, more)
    return texts


def at_what_was_found(
    assistant: "Assistant", asked: Asked, answers: Sequence[list[str]], generation: dict[str, Any]
) -> list[list[str]]:
    """Other answers to questions for one box: as many, of the part of the picture that surrounds the box on which the first
    ones agree. The first ones stay where there is not one picture, or not one box, where nothing is found in the part, or
    where the part is the whole."""
    views: list[tuple[int, Part]] = []
    for number, ((images, _), first) in enumerate(zip(asked, answers, strict=True)):
        found = parse_boxes(agreed(first))
        if len(images) == len(found) == 1 and (part := around(found[0], _AROUND)) != (0.0, 0.0, 1.0, 1.0):
            views.append((number, part))
    zoomed: Asked = [([part_of_image(asked[number][0][0], part)], asked[number][1]) for number, part in views]
    now = list(answers)
    for (number, part), texts in zip(views, several(assistant, zoomed, generation) if zoomed else [], strict=True):
        now[number] = [with_boxes_moved(text, partial(_out_of, part)) for text in texts if parse_boxes(text)] or now[number]
    return now


def _out_of(part: Part, box: Box) -> Box:
    """Where a box of a part of the picture is in the whole."""
    left, top, right, bottom = part
    width, height = right - left, bottom - top
    return Box(left + width * box.x1, top + height * box.y1, left + width * box.x2, top + height * box.y2)


def around(box: Box, times: float) -> Part:
    """The part of the picture, so many times as wide and high as a box and never small, that has the box in its middle, or as
    near to it as the picture's edges allow."""
    spans = []
    for low, high in ((box.x1, box.x2), (box.y1, box.y2)):
        side = min(max(times * (high - low), _LEAST_SIDE), 1.0)
        begin = min(max((low + high - side) / 2, 0.0), 1.0 - side)
        spans.append((begin, begin + side))
    (left, right), (top, bottom) = spans
    return left, top, right, bottom


def at_each_thing(assistant: "Assistant", asked: Asked, answers: Sequence[str]) -> list[str]:
    """The answers with the boxes that are found when each of their phrases is asked about by itself: ``[refer]`` for one box,
    ``[detection]`` for several. A phrase for which none is found then keeps what it had, as does one without a word."""
    phrases = [[(phrase, boxes) for phrase, boxes in parse_phrases(answer) if phrase.strip()] for answer in answers]
    items = [
        (images, TASKS["refer" if len(boxes) == 1 else "detection"].instruction(phrase))
        for (images, _), named in zip(asked, phrases, strict=True)
        for phrase, boxes in named
    ]
    found = iter(assistant.ask_many(items))
    return [
        with_other_boxes(answer, {phrase: boxes for phrase, boxes in [(p, next(found).boxes) for p, _ in named] if boxes})
        for answer, named in zip(answers, phrases, strict=True)
    ]
