"""What the commands show of a long job: a bar while it runs, its mistakes as they come, and an exit status at its end."""

import sys
from pathlib import Path
from typing import Any

from ..io.jsonl import read_rows, to_json
from ..jobs.made_by import signature
from ..jobs.resumable import Load, Outcome, Watch, ask_file, caption_file, captions
from .options import System
from .terminal import console, remark, say, say_line


class Bar(Watch):
    """A progress bar on a terminal's standard error, and one line for each mistake."""

    def __init__(self) -> None:
        self._progress: Any = None
        self._task: Any = None

    def begin(self, what: str, total: int, done: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        self._progress.start()
        self._task = self._progress.add_task(what, total=total, completed=done)

    def advance(self, count: int) -> None:
        self._progress.advance(self._task, count)

    def wrong(self, message: str) -> None:
        remark(f"error: {message}")

    def end(self) -> None:
        if self._progress is not None:
            self._progress.stop()


def status_of(outcome: Outcome) -> int:
    """0 if everything was answered, 1 if something was not."""
    return int(bool(outcome.problems))


def write_captions(system: System, images: list[Path], output: Path, batch_size: int, settings: dict[str, Any]) -> int:
    """Caption images to a file; returns the exit status."""
    by = signature(system.model, settings | system.kept_as)
    return status_of(caption_file(system.as_named.load, images, output, by, batch_size, settings, Bar()))


def write_answers(system: System, source: Path, output: Path, batch_size: int, settings: dict[str, Any]) -> int:
    """Answer a file of questions to another one; returns the exit status."""
    if not source.exists():
        next(read_rows(source))  # says so, before anything of the system is read
    by = signature(system.model, settings | system.kept_as)
    return status_of(ask_file(system.as_named.load, source, output, by, batch_size, settings, Bar()))


def print_captions(load: Load, images: list[Path], as_json: bool, batch_size: int, settings: dict[str, Any]) -> int:
    """Caption images to standard output; returns the exit status: 2 if none could be captioned, 1 if some could not."""
    failed = 0
    for row, text in captions(load, images, batch_size, settings, Bar()):
        if text is None:
            failed += 1
        elif as_json:
            say_line(to_json(row | {"caption": text}), flush=True)
        elif len(images) == 1:
            say(text, flush=True)
        else:
            say_line(f"{row['image']}: {' '.join(text.split())}", flush=True)
    return 2 if failed == len(images) else int(failed > 0)
