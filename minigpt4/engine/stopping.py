"""Where the library's own decoding ends: at a text (``###``), or when nobody waits for the answer any more."""

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from .streaming import ends_at_text


class StopAtText(StoppingCriteria):
    """Ends each row of the library's generation by itself when a stop text has appeared in what it generated."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]):
        self._ends = ends_at_text(tokenizer, stop)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        return torch.tensor([self._ends(row) for row in input_ids.tolist()], device=input_ids.device)


class StopWhenCancelled(StoppingCriteria):
    """Ends rows of the library's generation at the token after which they were cancelled.

    Args:
        cancelled: of each request, whether it was; each has equally many rows (answers, or candidates of a beam search).
    """

    def __init__(self, cancelled: Callable[[], Sequence[bool]]):
        self._cancelled = cancelled
        self.lengths: dict[int, int] = {}
        """How many tokens a row had then; one that had ended before may be among them."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        gone = torch.tensor(self._cancelled(), device=input_ids.device)
        rows = gone.repeat_interleave(len(input_ids) // len(gone))
        for number in rows.nonzero().flatten().tolist():
            self.lengths.setdefault(number, input_ids.shape[1])
        return rows
