"""LLaVA's instruction data, and MiniGPT-v2's multi-task conversations, which are written the same way."""

import os
import re
from collections.abc import Iterable

from ...errors import UserError
from ...prompt.templates import IMAGE, PLACEHOLDER
from ..sample import Turn
from .base import Annotated, Fields, coco_names
from .captions import cleaned

MARKER = "<image>"
_BREAK = re.compile(r"\s*\n\s*")


class Llava(Annotated):
    """A list of {"id", "image", "conversations": [{"from": "human" | "gpt", "value"}]}.

    The picture is ``image`` if that is given, under no other name than its own (if that is COCO's for the id, then under
    either of COCO's). A row that names none, but has the marker ``<image>`` in a question, means COCO's of that number; one
    without either is text alone. Items are (names of the picture, texts said in turn, number of the turn it belongs to).
    """

    expected = "a list of {id, conversations: [{from, value}]}"

    def _read(self, row: Fields) -> Iterable[tuple]:
        number = row.code("id")
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
        counts = [question.count(MARKER) for question in said[::2]]
        if sum(counts) > 1:
            raise UserError(f"{row.where}: {sum(counts)} {MARKER}, but 1 picture at most; leave the row out or split it")
        names: tuple[str, ...] = ()
        coco = coco_names(number) if number.isdecimal() else ()
        if "image" in row:
            names = (row.text("image"),)
            names += coco if os.path.basename(names[0]) in coco else ()
        elif sum(counts):
            if not coco:
                raise UserError(f'{row.where}: has {MARKER}, but no "image" to say which')
            names = coco
        turn = counts.index(1) if sum(counts) else 0
        for i in {0, turn}:
            said[2 * i] = _BREAK.sub(" ", said[2 * i].replace(MARKER, "")).strip()
        yield names, tuple(self._said(said, row)), turn

    def _said(self, said: list[str], row: Fields) -> Iterable[str]:
        return said

    def _names(self, item):
        return item[0]

    def _turns(self, item, image, rng):
        _, said, _ = item
        questions = list(said[::2])
        if self._placed(item):
            questions = [question.replace(PLACEHOLDER, PLACEHOLDER.replace("<", "< ")) for question in questions]
            questions[item[2]] = f"{IMAGE} {questions[item[2]]}".rstrip()
        return tuple(Turn(question=q, answers=(a,)) for q, a in zip(questions, said[1::2], strict=True))

    def _placed(self, item):
        return 0 < item[2] < len(item[1]) // 2


class LlavaSingle(Llava):
    """``detail_23k.json`` and ``complex_reasoning_77k.json``: the first question, cleaned, and its answer as it stands."""

    def _said(self, said: list[str], row: Fields) -> Iterable[str]:
        return cleaned(said[0], "conversations", row), said[1]


class LlavaConversation(Llava):
    """``conversation_58k.json`` and ``multi_task_conversation.json``: all turns as they stand."""
