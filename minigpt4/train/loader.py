"""The stream of batches, and where in the data each of them stands."""

import signal
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ..data.collate import Batch, Collator, Item, Reader
from ..data.mixture import Mixture, Pick
from ..errors import UserError


class Loader:
    """Batches of a mixture; with each comes the state from which the next one can be drawn again.

    Worker processes read ahead, so the mixture itself is some batches further than what training has seen: the state that
    belongs to a batch waits here until the batch arrives.
    """

    def __init__(self, mixture: Mixture, reader: Reader, collator: Collator, workers: int = 0, pin_memory: bool = False):
        self._states: deque[dict[str, Any]] = deque()
        self._loader = DataLoader(
            _Telling(reader),
            batch_sampler=_Plan(mixture, self._states),
            collate_fn=_TellingCollator(collator),
            worker_init_fn=_leave_signals_to_the_run,
            num_workers=workers,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # of its own: the loop's random numbers are for dropout, and are saved
        )

    def __iter__(self) -> Iterator[tuple[Batch, dict[str, Any]]]:
        for batch in self._loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch, self._states.popleft()


class _Telling(Dataset):
    """A reader whose errors are values: raised in a worker process, they would come as a traceback of that process."""

    def __init__(self, reader: Reader):
        self.reader = reader

    def __getitem__(self, pick: Pick) -> Item | UserError | None:
        try:
            return self.reader[pick]
        except UserError as error:
            return UserError(str(error))


class _TellingCollator:
    """The same for a collator."""

    def __init__(self, collator: Collator):
        self.collator = collator

    def __call__(self, given: Sequence[Item | UserError | None]) -> Batch | UserError:
        items: list[Item | None] = []
        for item in given:
            if isinstance(item, UserError):
                return item
            items.append(item)
        try:
            return self.collator(items)
        except UserError as error:
            return UserError(str(error))


def _leave_signals_to_the_run(worker: int) -> None:
    """Ctrl-C and a closed terminal reach every process of the group; the run alone answers, and ends its workers."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


class _Plan:
    """A mixture as torch's loader wants it: lists of things to get."""

    def __init__(self, mixture: Mixture, states: deque[dict[str, Any]]):
        self.mixture, self.states = mixture, states

    def __iter__(self) -> Iterator[list[Pick]]:
        for picks in self.mixture:
            self.states.append(self.mixture.state_dict())
            yield picks
