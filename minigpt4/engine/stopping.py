"""Where the library's own decoding ends: at a text (``###``)."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from .streaming import ends_at_text


class StopAtText(StoppingCriteria):
    """Ends each row of the library's generation by itself when a stop text has appeared in what it generated."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]):
        self._ends = ends_at_text(tokenizer, stop)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        return torch.tensor([self._ends(row) for row in input_ids.tolist()], device=input_ids.device)
