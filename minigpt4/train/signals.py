"""Ctrl-C and its kin, heard between two steps."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)


@contextmanager
def signals() -> Iterator[Any]:
    """An event that the first Ctrl-C (or a polite kill) sets; the second ends the process as usual."""
    stop = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
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
