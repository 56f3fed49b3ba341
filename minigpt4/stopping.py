"""Where an answer ends, for systems whose turns end with a text (``###``) and not only with a token."""

from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria, TextIteratorStreamer


def cut_at(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop texts in it."""
    for mark in stop:
        text = text.split(mark)[0]
    return text


class StopAtText(StoppingCriteria):
    """Ends each row of a batch by itself when a stop text has appeared in what it generated."""

    _TAIL = 8  # tokens that are decoded to look for a stop text

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]):
        self.tokenizer, self.stop = tokenizer, tuple(stop)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        tails = self.tokenizer.batch_decode(input_ids[:, -self._TAIL :], skip_special_tokens=True)
        done = [any(mark in tail for mark in self.stop) for tail in tails]
        return torch.tensor(done, device=input_ids.device)


class TextStream(TextIteratorStreamer):
    """Pieces of text as they are generated; ends at a stop text, and shows no part of one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]):
        super().__init__(tokenizer, skip_prompt=False, skip_special_tokens=True)
        self.stop = tuple(stop)
        self.error: Exception | None = None

    def fail(self, error: Exception) -> None:
        """End the stream with an error of the generating thread."""
        self.error = error
        self.text_queue.put(self.stop_signal)

    def __iter__(self) -> Iterator[str]:
        held = ""  # the end of what came, while it may be the beginning of a stop text
        begun = ended = False
        while (piece := self.text_queue.get()) != self.stop_signal:
            if ended:
                continue
            whole = held + piece
            text = cut_at(whole, self.stop)
            ended = text != whole
            split = len(text) - (0 if ended else self._undecided(text))
            show, held = text[:split], text[split:]
            show = show if begun else show.lstrip()
            if show:
                begun = True
                yield show
        if self.error is not None:
            raise self.error
        if held and not ended:
            yield held

    def _undecided(self, text: str) -> int:
        """Length of the longest end of `text` that a stop text begins with."""
        return max((n for mark in self.stop for n in range(1, len(mark)) if text.endswith(mark[:n])), default=0)
