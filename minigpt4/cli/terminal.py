"""The standard streams: what is written there, and what becomes of a command whose streams are closed or full.

Names of files, answers of models and texts of datasets are others' words. They reach a terminal through this file alone, which
writes out what a terminal would obey or hide: control and escape codes, and marks that turn the direction of writing.
"""

import codecs
import contextlib
import errno
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from ..errors import UserError
from ..io.progress import heard_by
from ..io.progress import log as progress_log

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udc7f\udd00-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def harmless(text: object, lines: bool = False) -> str:
    """A text without what a terminal obeys, nor halves of characters, which no stream can hold; each is written as JSON does,
    so JSON stays what it is. Bytes of file names that are no text pass.

    Args:
        lines: line ends and tabs may stay.
    """
    return _OBEYED.sub(lambda m: m[0] if lines and m[0] in "\n\t" else _SHORT.get(m[0]) or f"\\u{ord(m[0]):04x}", str(text))


def say(text: object = "", *, end: str = "\n", flush: bool = False) -> None:
    """Write to standard output; the text may have several lines."""
    print(harmless(text, lines=True), end=end, flush=flush)


def say_line(text: object, *, flush: bool = False) -> None:
    """Write a line to standard output: whatever is in the text, one."""
    print(harmless(text), flush=flush)


def remark(text: object) -> None:
    """Write a line to standard error."""
    print(harmless(text), file=sys.stderr)


def console(stderr: bool = False) -> "Console":
    """For tables and bars of `rich`: square brackets in a text are no markup, and what a terminal obeys is written out."""
    from rich.console import Console
    from rich.text import Text

    class Harmless(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(harmless(text, lines=True), **options)

    return Harmless(file=sys.stderr if stderr else sys.stdout, markup=False, emoji=False, highlight=False)


def styled(text: object, style: str = "") -> "Text":
    """A piece for `console`, in a style."""
    from rich.text import Text

    return Text(harmless(text, lines=True), style=style)


class _Log(logging.Handler):
    """Warnings, and of a training what it tells of itself, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:  # a defect of ours, in a server that goes on
            text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        print(harmless(text, lines=True), file=sys.stderr)


def hear_the_log() -> None:
    """Hear what the house tells of itself, not its warnings alone."""
    logging.getLogger("minigpt4").setLevel(logging.INFO)


# long work ------------------------------------------------------------------------------------------------------------


class _Bars:
    """Shows a bar on standard error for each piece of long work that the house tells of (`io.progress`)."""

    def begin(self, what: str, total: int | None, done: int, in_bytes: bool) -> "_Bar":
        """Show a new bar."""
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        count = DownloadColumn() if in_bytes else MofNCompleteColumn()
        counted = () if total is None else (count, TimeRemainingColumn())
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), *counted)
        bar = Progress(*columns, TextColumn("{task.fields[remark]}", markup=False), console=console(stderr=True))
        bar.start()
        return _Bar(bar, bar.add_task(what, total=total, completed=done, remark=""))


class _Bar:
    def __init__(self, bar: Any, task: Any):
        self._bar, self._task = bar, task

    def reach(self, done: int, remark: str) -> None:
        self._bar.update(self._task, completed=done, remark=remark)

    def end(self) -> None:
        self._bar.stop()


# streams that are closed or full -----------------------------------------------------------------------------------------


def _as_bytes_or_escapes(error: UnicodeError) -> tuple[bytes | str, int]:
    """Encodes what a stream cannot: bytes of names as they were, letters that its encoding lacks as their numbers."""
    if not isinstance(error, UnicodeEncodeError):
        return codecs.lookup_error("surrogateescape")(error)
    text = error.object[error.start : error.end]
    return b"".join(
        bytes([ord(c) - 0xDC00]) if "\udc80" <= c <= "\udcff" else c.encode("ascii", "backslashreplace") for c in text
    ), error.end


codecs.register_error("minigpt4-stream", _as_bytes_or_escapes)


class _Output:
    """Standard output. A failure to write there is the user's to mend: one line, not a traceback."""

    def __init__(self, stream: IO[str] | None):
        self._stream = stream

    def write(self, text: str) -> int:
        return self._do("write", text)

    def flush(self) -> None:
        if self._stream is not None:
            self._do("flush")

    def _do(self, name: str, *given: Any) -> Any:
        try:
            if self._stream is None:
                raise OSError(errno.EBADF, "it is closed")
            return getattr(self._stream, name)(*given)
        except BrokenPipeError:  # its reader has left: that is nobody's mistake
            raise
        except OSError as error:
            to_nowhere(self._stream)
            raise UserError(f"standard output: cannot be written ({error.strerror})") from None

    def __getattr__(self, name: str) -> Any:
        if self._stream is None and name == "encoding":
            return "utf-8"
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()


class _Errors:
    """Standard error. Where nothing can be written there, nobody can be told so."""

    def __init__(self, stream: IO[str]):
        self._stream = stream

    def write(self, text: str) -> int:
        self._do("write", text)
        return len(text)

    def flush(self) -> None:
        self._do("flush")

    def _do(self, name: str, *given: Any) -> None:
        try:
            getattr(self._stream, name)(*given)
        except OSError:
            to_nowhere(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def to_nowhere(stream: IO[str] | None) -> None:
    """What is still to be written to a stream that failed goes nowhere, or Python would fail at its end once more."""
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """The streams of a command, for as long as it runs: names that are no text pass through, and closed streams are no
    reason for a traceback. Standard input that is closed is at its end."""
    before = sys.stdin, sys.stdout, sys.stderr
    for number in range(3):  # a file that is opened later must not get the number of a closed stream
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stdin):  # names of files need not be text, nor what is typed
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="minigpt4-stream")
    if sys.stdin is None:
        sys.stdin = open(os.devnull)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    sys.stdout, sys.stderr = _Output(sys.stdout), _Errors(sys.stderr)
    log = _Log()
    logging.root.addHandler(log)
    progress_log.setLevel(logging.INFO)  # where there is no terminal, lines take the place of bars
    try:
        with heard_by(_Bars()) if sys.stderr.isatty() else contextlib.nullcontext():
            yield
    finally:
        progress_log.setLevel(logging.NOTSET)
        logging.root.removeHandler(log)
        sys.stdin, sys.stdout, sys.stderr = before
        for stream in before[1:]:  # of a reader that has left, whom the library of commands waves off in its own way
            try:
                if stream is not None and not stream.closed:
                    stream.flush()
            except OSError:
                to_nowhere(stream)
