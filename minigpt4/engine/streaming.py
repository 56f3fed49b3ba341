"""Text from tokens as they come, and where it ends: at an end of sequence, or at a text (``###``)."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol


def cut_at(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop texts in it."""
    for mark in stop:
        text = text.split(mark)[0]
    return text


class Decodes(Protocol):
    """A tokenizer: of `transformers`, or of `tokenizers` itself."""

    def decode(self, ids: list[int], /, *, skip_special_tokens: bool) -> str:
        """The text that these ids stand for."""


def ends_at_text(tokenizer: Decodes, stop: Sequence[str]) -> Callable[[list[int]], bool]:
    """Whether ids that grow by one at a time end with a stop text."""
    tail = 1 + max((len(mark.encode()) for mark in stop), default=0)  # no token is less than a byte

    def ends(ids: list[int]) -> bool:
        text = tokenizer.decode(ids[-tail:], skip_special_tokens=True)
        return any(mark in text for mark in stop)

    return ends


def token_text(tokenizer: Any, token: int, *, special: bool = False) -> str:
    """What a token writes behind another one: tokenizers of the Llama family drop the blank that a text begins with.
    A special token writes nothing, as in an answer's text, or its name with `special`."""
    before = tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
    known, both = (tokenizer.decode(ids, skip_special_tokens=not special) for ids in (before, [*before, token]))
    return both[both.index(known) + len(known) :]  # Llama's puts a blank before it if there is a special token among them


class TextStream:
    """One answer's text, piece by piece; ends at a stop text, and shows no part of one.

    Joined, the pieces are what decoding the whole row and stripping it gives: a token is decoded beside the one before it,
    because tokenizers of the Llama family drop the blank that a text begins with.
    """

    def __init__(self, tokenizer: Decodes, stop: Sequence[str]):
        self.tokenizer, self.stop = tokenizer, tuple(stop)
        self._ids: list[int] = []
        self._first = self._next = 0  # where decoding begins, and where what has not been decoded begins
        self._held = ""  # the end of what came, while it may begin a stop text, or be blanks at the end of the answer
        self._begun = False
        self.ended = False
        """Whether a stop text has come."""

    def put(self, ids: Sequence[int]) -> str:
        """Take new ids; returns what can be shown by now."""
        self._ids += ids
        known, text = self._decode(self._ids[self._first : self._next]), self._decode(self._ids[self._first :])
        if len(text) <= len(known) or text.endswith("\ufffd"):  # a character may be made of several tokens
            return ""
        self._first, self._next = self._next, len(self._ids)
        return self._show(text[len(known) :])

    def end(self) -> str:
        """The row has ended: what was still held back; what was no whole character is shown as what it is."""
        rest = self._decode(self._ids[self._first :])[len(self._decode(self._ids[self._first : self._next])) :]
        self._first = self._next = len(self._ids)
        shown = self._show(rest)
        if self.ended:
            return shown
        held, self._held = self._held, ""
        return shown + (held.rstrip() if self._begun else held.strip())

    def _show(self, piece: str) -> str:
        if self.ended:
            return ""
        whole = self._held + piece
        text = cut_at(whole, self.stop)
        self.ended = text != whole
        shown = text[: len(text) - (0 if self.ended else self._undecided(text))].rstrip()
        self._held = text[len(shown) :]
        shown = shown if self._begun else shown.lstrip()
        self._begun = self._begun or bool(shown)
        return shown

    def _undecided(self, text: str) -> int:
        """Length of the longest end of `text` that a stop text begins with."""
        return max((n for mark in self.stop for n in range(1, len(mark)) if text.endswith(mark[:n])), default=0)

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)
