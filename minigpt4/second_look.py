"""Looking more than once before answering: at the picture in a mirror, and at each thing that a description names."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .pictures import PictureLike
from .prompt.boxes import parse_phrases, with_other_boxes
from .prompt.mirror import mirror_text
from .prompt.tasks import TASKS
from .prompt.templates import Message, with_pictures

if TYPE_CHECKING:
    from .assistant import Assistant

Asked = Sequence[tuple[list[PictureLike], str]]
"""Questions, each about its pictures."""


def conversations(asked: Asked) -> list[list[Message]]:
    """Each question, behind the places of its pictures, as the beginning of a conversation."""
    return [[{"role": "user", "content": with_pictures(question, len(pictures))}] for pictures, question in asked]


def in_a_mirror(assistant: "Assistant", asked: Asked, generation: dict[str, Any]) -> list[list[str]]:
    """Several answers to each question, half of them drawn before its pictures in a mirror and turned back."""
    texts: list[list[str]] = [[] for _ in asked]
    everything = [picture for pictures, _ in asked for picture in pictures]
    for mirrored, turn in ((False, str), (True, mirror_text)):
        prompts = conversations([(pictures, turn(question)) for pictures, question in asked])
        half = generation | {"consensus": (generation["consensus"] + (not mirrored)) // 2}
        for own, more in zip(texts, assistant.drawn(prompts, assistant.encode(everything, mirrored), half), strict=True):
            own += map(turn, more)
    return texts


def at_each_thing(assistant: "Assistant", asked: Asked, answers: Sequence[str]) -> list[str]:
    """The answers with the boxes that are found when each of their phrases is asked about by itself: ``[refer]`` for one box,
    ``[detection]`` for several. A phrase for which none is found then keeps what it had, as does one without a word."""
    phrases = [[(phrase, boxes) for phrase, boxes in parse_phrases(answer) if phrase.strip()] for answer in answers]
    items = [
        (pictures, TASKS["refer" if len(boxes) == 1 else "detection"].instruction(phrase))
        for (pictures, _), named in zip(asked, phrases, strict=True)
        for phrase, boxes in named
    ]
    found = iter(assistant.ask_many(items))
    return [
        with_other_boxes(answer, {phrase: boxes for phrase, boxes in [(p, next(found).boxes) for p, _ in named] if boxes})
        for answer, named in zip(answers, phrases, strict=True)
    ]
