"""What is said to a language model as ids, whichever library the tokenizer is of; and what people say made safe to be said."""

import re
from collections.abc import Callable, Iterable, Sequence

from .templates import PLACEHOLDER, ChatTemplate, Message, TokenizerTemplate

IdsOf = Callable[[str], list[int]]
"""A tokenizer: the ids of a text, without special tokens added to it."""


def special_pattern(texts: Iterable[str]) -> re.Pattern[str]:
    """Any of some special texts, the longest first."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=lambda text: (-len(text), text)))))


def plain(text: str, special: re.Pattern[str]) -> str:
    """A text without any special one: each is broken by a blank after its first character. Halves of characters are replaced by
    question marks. All other text stays byte for byte, and doing it twice changes nothing more."""
    text = text.encode(errors="replace").decode()
    while (broken := special.sub(_break, text)) != text:  # of "####", what the blank leaves behind is special again
        text = broken
    return text


def _break(match: re.Match[str]) -> str:
    text = match[0]
    return f"{text[0]} {text[1:]}" if len(text) > 1 else " "


def text_ids(text: str, ids_of: IdsOf, image: Sequence[int]) -> list[int]:
    """Ids of one text; each `PLACEHOLDER` becomes the ids of an image.

    The text between pictures is tokenised piece by piece, as in training, and no special tokens are added. Special tokens
    written out in the text (``<s>``, ``<|im_start|>``) count as such.
    """
    text = text.encode(errors="replace").decode()  # halves of characters, as in names that are no text, are no text
    ids: list[int] = []
    for i, piece in enumerate(text.split(PLACEHOLDER)):
        if i:
            ids += image
        if piece:
            ids += ids_of(piece)
    return ids


def prompt_ids(
    messages: Sequence[Message],
    chat: ChatTemplate | TokenizerTemplate,
    encode: IdsOf,
    bos: int | None,
    extra_bos: bool,
    open_turn: bool = True,
) -> list[int]:
    """Ids of a conversation up to where the assistant is to speak (with `open_turn`), with one beginning-of-sequence token if
    its format has one (and another one with `extra_bos`). Answers of the past are tokenised by themselves, as in training.

    Args:
        encode: `text_ids` of the system.
    """
    parts = chat.parts(messages, open_turn) if isinstance(chat, ChatTemplate) else [chat.render(messages, open_turn)]
    ids = [i for part in parts for i in encode(part)]
    begin = [] if bos is None else [bos]
    if chat.add_bos and ids[:1] != begin:
        ids = [*begin, *ids]
    return [*begin, *ids] if extra_bos else ids
