"""Ctrl-C and its kin, heard between two steps."""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

_SAME = 0.5  # seconds in which a signal that comes again means the same


@contextmanager
def signals() -> Iterator[Any]:
    """An event that the first Ctrl-C (or a polite kill) sets; the second ends the process as usual.

    What comes within half a second is the same wish: when torchrun is killed, its processes get SIGTERM twice within 50 ms, and
    schedulers signal a process by itself and with its group.
    """
    stop, first = threading.Event(), 0.0

    def handle(number: int, frame: Any) -> None:
        nonlocal first
        if stop.is_set():
            if time.monotonic() - first < _SAME:
                return
            raise KeyboardInterrupt
        first = time.monotonic()
        log.warning("stopping after this step; once more to stop at once, without saving")
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    polite = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.signal(number, handle) for number in polite}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
