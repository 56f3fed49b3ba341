"""LLaVA's instruction data, and MiniGPT-v2's multi-task conversations, which are written the same way."""

import re
from collections.abc import Iterable

from ...errors import UserError
from ..sample import Turn
from .base import Annotated, Fields, coco_names
from .captions import cleaned

_BREAK = re.compile(r"\s*\n\s*")


class Llava(Annotated):
    """A list of {"id", "image", "conversations": [{"from": "human" | "gpt", "value"}]}.

    The picture is ``image`` if that is given, or COCO's of that number. Items are (names of the picture, texts said in turn).
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
        names: tuple[str, ...] = ()
        if "image" in row:
            names = (row.text("image"),)
        if number.isdecimal():
            names += coco_names(number)
        if not names and "<image>" in said[0]:
            raise UserError(f'{row.where}: has <image>, but no "image" to say which')
        said[0] = _BREAK.sub(" ", said[0].replace("<image>", "")).strip()
        yield names, tuple(self._said(said, row))

    def _said(self, said: list[str], row: Fields) -> Iterable[str]:
        return said

    def _names(self, item):
        return item[0]

    def _turns(self, item, image, rng):
        said = item[1]
        return tuple(Turn(question=q, answers=(a,)) for q, a in zip(said[::2], said[1::2], strict=True))


class LlavaSingle(Llava):
    """``detail_23k.json`` and ``complex_reasoning_77k.json``: the first question, cleaned, and its answer as it stands."""

    def _said(self, said: list[str], row: Fields) -> Iterable[str]:
        return cleaned(said[0], "conversations", row), said[1]


class LlavaConversation(Llava):
    """``conversation_58k.json`` and ``multi_task_conversation.json``: all turns as they stand."""
