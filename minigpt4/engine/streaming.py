"""Where an answer ends, for systems whose turns end with a text (``###``) and not only with a token."""

from collections.abc import Iterator, Sequence
from queue import Queue
from threading import Event

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria
from transformers.generation.streamers import BaseStreamer


def cut_at(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop texts in it."""
    for mark in stop:
        text = text.split(mark)[0]
    return text


class StopAtText(StoppingCriteria):
    """Ends each row of a batch by itself when a stop text has appeared in what it generated."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]):
        self.tokenizer, self.stop = tokenizer, tuple(stop)
        self._tail = 1 + max((len(mark.encode()) for mark in self.stop), default=0)  # no token is less than a byte

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        tails = self.tokenizer.batch_decode(input_ids[:, -self._tail :], skip_special_tokens=True)
        done = [any(mark in tail for mark in self.stop) for tail in tails]
        return torch.tensor(done, device=input_ids.device)


class StopWhenTold(StoppingCriteria):
    """Ends all rows when somebody says so: the reader of a stream has left."""

    def __init__(self, told: Event):
        self.told = told

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        return torch.full((len(input_ids),), self.told.is_set(), device=input_ids.device)


class TextStream(BaseStreamer):
    """Pieces of one row's text as they are generated; ends at a stop text, and shows no part of one.

    Joined, the pieces are what decoding the whole row and stripping it gives: a token is decoded beside the one before it,
    because tokenizers of the Llama family drop the blank that a text begins with.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]):
        self.tokenizer, self.stop = tokenizer, tuple(stop)
        self._pieces: Queue[str | Exception | None] = Queue()
        self._ids: list[int] = []
        self._first = self._next = 0  # where decoding begins, and where what has not been shown begins

    def put(self, value: torch.Tensor) -> None:
        """Take new ids (those of the prompt, which come first, are none: it enters as embeddings)."""
        self._ids += value.flatten().tolist()
        shown, text = self._decode(self._ids[self._first : self._next]), self._decode(self._ids[self._first :])
        if len(text) > len(shown) and not text.endswith("\ufffd"):  # a character may be made of several tokens
            self._pieces.put(text[len(shown) :])
            self._first, self._next = self._next, len(self._ids)

    def end(self) -> None:
        """The row has ended; what was no whole character is shown as what it is."""
        rest = self._decode(self._ids[self._first :])[len(self._decode(self._ids[self._first : self._next])) :]
        self._pieces.put(rest)
        self._pieces.put(None)

    def fail(self, error: Exception) -> None:
        """End the stream with an error of the generating thread."""
        self._pieces.put(error)

    def __iter__(self) -> Iterator[str]:
        held = ""  # the end of what came, while it may be the beginning of a stop text, or blanks at the end of the answer
        begun = ended = False
        while (piece := self._pieces.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            if ended:
                continue
            whole = held + piece
            text = cut_at(whole, self.stop)
            ended = text != whole
            shown = text[: len(text) - (0 if ended else self._undecided(text))].rstrip()
            held = text[len(shown) :]
            if shown := shown if begun else shown.lstrip():
                begun = True
                yield shown
        if not ended and (rest := held.rstrip() if begun else held.strip()):
            yield rest

    def _undecided(self, text: str) -> int:
        """Length of the longest end of `text` that a stop text begins with."""
        return max((n for mark in self.stop for n in range(1, len(mark)) if text.endswith(mark[:n])), default=0)

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)
