"""Where the library's own decoding ends: at a text (``###``)."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria


class StopAtText(StoppingCriteria):
    """Ends each row of a batch by itself when a stop text has appeared in what it generated."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]):
        self.tokenizer, self.stop = tokenizer, tuple(stop)
        self._tail = 1 + max((len(mark.encode()) for mark in self.stop), default=0)  # no token is less than a byte

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        tails = self.tokenizer.batch_decode(input_ids[:, -self._tail :], skip_special_tokens=True)
        done = [any(mark in tail for mark in self.stop) for tail in tails]
        return torch.tensor(done, device=input_ids.device)
