"""The stream of batches, and where in the data each of them stands."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..data.collate import Batch, Collator, Reader
from ..data.mixture import Draw, Mixture


class Loader:
    """Batches of a mixture; with each comes the state from which the next one can be drawn again.

    Worker processes read ahead, so the mixture itself is some batches further than what training has seen: the state that
    belongs to a batch waits here until the batch arrives.
    """

    def __init__(self, mixture: Mixture, reader: Reader, collator: Collator, workers: int = 0, pin_memory: bool = False):
        self._states: deque[dict[str, Any]] = deque()
        self._loader = DataLoader(
            reader,
            batch_sampler=_Plan(mixture, self._states),
            collate_fn=collator,
            num_workers=workers,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # of its own: the loop's random numbers are for dropout, and are saved
        )

    def __iter__(self) -> Iterator[tuple[Batch, dict[str, Any]]]:
        for batch in self._loader:
            yield batch, self._states.popleft()


class _Plan:
    """A mixture as torch's loader wants it: lists of things to get."""

    def __init__(self, mixture: Mixture, states: deque[dict[str, Any]]):
        self.mixture, self.states = mixture, states

    def __iter__(self) -> Iterator[list[Draw]]:
        for draws in self.mixture:
            self.states.append(self.mixture.state_dict())
            yield draws
