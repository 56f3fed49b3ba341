"""LLaVA's instruction data, and MiniGPT-v2's multi-task conversations, which are written the same way."""

import os
import re
from collections.abc import Iterator
from functools import partial

from ...errors import UserError
from ...prompt.templates import IMAGE, PLACEHOLDER
from ..schema import Conversation, Row
from ..source import Problem
from .fields import Fields, coco_names, each, listed
from .files import Paths, files, load_json

MARKER = "<image>"
_BREAK = re.compile(r"\s*\n\s*")


def llava_single(annotations: Paths) -> Iterator[Row | Problem]:
    """``detail_23k.json`` and ``complex_reasoning_77k.json``: the first question, cleaned, and its answer as it stands."""
    return _rows(annotations, single=True)


def llava_conversation(annotations: Paths) -> Iterator[Row | Problem]:
    """``conversation_58k.json`` and ``multi_task_conversation.json``: all turns as they stand."""
    return _rows(annotations, single=False)


def _rows(annotations: Paths, single: bool) -> Iterator[Row | Problem]:
    expected = "a list of {id, conversations: [{from, value}]}"
    for path in files(annotations, "annotations", expected):
        yield from each(listed(load_json(path), path, expected), partial(_read, single=single))


def _read(row: Fields, single: bool) -> Iterator[Row]:
    """{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}]}.

    The picture is ``image`` if that is given, under no other name than its own (if that is COCO's for the id, then under
    either of COCO's). A row that names none, but has the marker ``<image>`` in a question, means COCO's of that number; one
    without either is text alone.
    """
    number = row.code("id")
    said = _said(row)
    counts = [question.count(MARKER) for question in said[::2]]
    if sum(counts) > 1:
        raise UserError(f"{row.where}: {sum(counts)} {MARKER}, but 1 picture at most; leave the row out or split it")
    names = _image_names(row, number, marked=sum(counts) > 0)
    turn = counts.index(1) if sum(counts) else 0
    for i in {0, turn}:
        said[2 * i] = _BREAK.sub(" ", said[2 * i].replace(MARKER, "")).strip()
    if single:
        said = [row.cleaned("conversations", said[0]), said[1]]
    questions = said[::2]
    placed = 0 < turn < len(questions)
    if placed:
        questions = [question.replace(PLACEHOLDER, PLACEHOLDER.replace("<", "< ")) for question in questions]
        questions[turn] = f"{IMAGE} {questions[turn]}".rstrip()
    pairs = tuple(zip(questions, said[1::2], strict=True))
    yield Conversation(**row.place, images=names[:1], aliases=names[1:], pairs=pairs, placed=placed)


def _said(row: Fields) -> list[str]:
    """Questions and answers in turn."""
    said = []
    for i, message in enumerate(row.rows("conversations")):
        role = ("human", "gpt")[i % 2]
        if message.row.get("from") != role:
            raise UserError(f'{message.where}: "from" must be "{role}" here, found {message.row.get("from")!r}')
        said.append(message.text("value"))
    if not said or len(said) % 2:
        raise UserError(f"{row.where}: {len(said)} messages; expected questions and answers in turn")
    if any(MARKER in answer for answer in said[1::2]):
        raise UserError(f"{row.where}: an answer has {MARKER} in it, which is for questions")
    return said


def _image_names(row: Fields, number: str, marked: bool) -> tuple[str, ...]:
    coco = coco_names(number) if number.isdecimal() else ()
    if "image" in row:
        image = row.text("image")
        return (image, *(coco if os.path.basename(image) in coco else ()))
    if marked and not coco:
        raise UserError(f'{row.where}: has {MARKER}, but no "image" to say which')
    return coco if marked else ()
