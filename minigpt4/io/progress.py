"""How far long work is. It is told to whoever listens (a command shows a bar), and to the log where nobody does."""

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 30.0
T = TypeVar("T")


class Told(Protocol):
    """Somebody who is told of one piece of work."""

    def reach(self, done: int, remark: str) -> None:
        """So much is done; the remark takes the place of the one before."""

    def end(self) -> None:
        """No more will come."""


class Listener(Protocol):
    """Somebody who is told of all long work of this process."""

    def begin(self, what: str, total: int | None, done: int, in_bytes: bool) -> Told:
        """A piece of work begins; of some, nobody knows how much it is."""


_listener: Listener | None = None


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Tell this listener, in all threads, and no longer the log."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


class _Lines:
    """Lines of the log: the first at once, then one now and then, and the last."""

    def __init__(self, what: str, total: int | None, in_bytes: bool):
        self.what, self.total, self.in_bytes = what, total, in_bytes
        self._last: float | None = None

    def reach(self, done: int, remark: str) -> None:
        now = time.monotonic()
        if self._last is None or now - self._last > _SECONDS_BETWEEN_LINES or done == self.total:
            self._last = now
            log.info("%s", "  ".join(filter(None, (self.what + self._counted(done), remark))))

    def _counted(self, done: int) -> str:
        if self.total is None:
            return ""
        return f" {done / 1e6:.0f}/{self.total / 1e6:.0f} MB" if self.in_bytes else f" {done}/{self.total}"

    def end(self) -> None:
        pass


@contextmanager
def telling(what: str, total: int | None = None, done: int = 0, *, in_bytes: bool = False) -> Iterator[Told]:
    """Tell of one piece of work for as long as it goes on.

    Args:
        total: how much there is to do, `done` included; None where that is not known.
        in_bytes: both are numbers of bytes.
    """
    told = _Lines(what, total, in_bytes) if _listener is None else _listener.begin(what, total, done, in_bytes)
    try:
        yield told
    finally:
        told.end()


def each(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items, telling how many were dealt with."""
    with telling(what, total) as told:
        for number, item in enumerate(items, 1):
            yield item
            told.reach(number, "")
