"""JSON Lines in and out: errors that name file and line, output that survives a kill and can be continued."""

import contextlib
import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import UserError
from .atomic import whole_file
from .lock import hold

Row = dict[str, Any]

GZIP = b"\x1f\x8b"
"""How a file packed by gzip begins."""


def to_json(row: Row, indent: int | None = None) -> str:
    """A row as a line (without its end). File names that are no text are written with escapes, and read back the same."""
    text = json.dumps(row, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(row, indent=indent)
    return text


def read_rows(path: str | os.PathLike) -> Iterator[tuple[int, Row | UserError]]:
    """Numbered rows of a file; a line that is no JSON object comes as the error that says so. Empty lines are passed over.

    A JSON array of objects, and either of them packed with gzip, are read as well. What is something else altogether (CSV,
    UTF-16) comes as one error that says what it is.
    """
    try:
        with open(path, "rb") as raw:
            packed = raw.peek(2)[:2] == GZIP
            with gzip.open(raw) if packed else raw as file:
                yield from _rows(file, os.fspath(path))  # type: ignore[arg-type]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: its gzip packing is damaged ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def _rows(file: IO[bytes], path: str) -> Iterator[tuple[int, Row | UserError]]:
    for number, line in enumerate(file, 1):
        if number == 1 and (kind := other_kind(line)) is not None:
            if kind != "array":
                yield 1, UserError(f"{path}: {kind}")
                return
            yield from _array(line + file.read(), path)
            return
        if line.strip():
            yield number, _row(line, f"{path}:{number}")


def whole_rows(path: str | os.PathLike) -> Iterator[Row]:
    """The whole rows of a file that this program has written; none if there is no file.

    Such a file is always JSON Lines. So a damaged line is left out by itself, even one that looks like another kind of file.

    Raises:
        UserError: the file is there and cannot be read.
    """
    yield from rows_after(path, 0)[0]


def rows_after(path: str | os.PathLike, start: int) -> tuple[list[Row], int]:
    """`whole_rows` behind byte `start` of a file, and the byte behind its last whole line, from which to go on later."""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            data = file.read()
    except (FileNotFoundError, IsADirectoryError):
        return [], start
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    rows = []
    for line in data.split(b"\n"):
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line.decode())
            if isinstance(row, dict):
                rows.append(row)
    return rows, start + data.rfind(b"\n") + 1


def other_kind(line: bytes) -> str | None:
    """What a file is whose first line this is: ``array``, or what to say of what is no JSON; None for JSON Lines."""
    if line.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in line[:4]:
        return "is UTF-16 or UTF-32 text, not UTF-8; save it as UTF-8"
    begin = line.removeprefix(b"\xef\xbb\xbf").strip()
    if begin.startswith(b"["):
        return "array"
    if begin and not begin.startswith(b"{") and begin.count(b",") + begin.count(b"\t") and begin[:1] not in b'0123456789-"tfn':
        return "looks like CSV, not JSON Lines; write each row as a JSON object on a line of its own"
    return None


def _array(data: bytes, path: str) -> Iterator[tuple[int, Row | UserError]]:
    try:
        rows = json.loads(data.decode("utf-8-sig"))
    except ValueError as error:  # of which "not UTF-8" is one
        yield 1, UserError(f"{path}: begins as a JSON array, but is not JSON ({error})")
        return
    except RecursionError:
        yield 1, UserError(f"{path}: not JSON that can be read (nested too deeply)")
        return
    for number, row in enumerate(rows, 1):
        is_row = isinstance(row, dict)
        yield number, row if is_row else UserError(f"{path}[{number}]: expected a JSON object, found {type(row).__name__}")


def _row(line: bytes, where: str) -> Row | UserError:
    row = load_json(line, where)
    if isinstance(row, dict | UserError):
        return row
    return UserError(f"{where}: expected a JSON object, found {type(row).__name__}")


def load_json(data: bytes, where: str, what: str = "") -> Any:
    """The JSON in some bytes, or, as a UserError that is returned, why there is none.

    Args:
        where: where they stand, which begins the message.
        what: what goes on with it (``.json is ``).
    """
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return UserError(f"{where}: {what}not UTF-8 text ({error.reason})")
    except ValueError as error:
        return UserError(f"{where}: {what}not JSON ({error})")
    except RecursionError:
        return UserError(f"{where}: {what}not JSON that can be read (nested too deeply)")


def write_rows(path: str | os.PathLike, rows: Iterable[Row]) -> None:
    """Write a whole file at once: it is there when all of it is on disk, and an older one stays until then."""
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(to_json(row) + "\n" for row in rows)


class Output:
    """A JSON Lines file that grows row by row in the order of its input, and can be continued.

    Args:
        path: the file. A last line that a kill has cut short is taken off.
        added: the key that a result adds to its input row, by which done rows are recognised.
        beside: other keys that are added, which say how the result came about.

    Raises:
        UserError: a file that cannot be read or written, or that is something else; it is then left as it is.
    """

    def __init__(self, path: str | os.PathLike, added: str, beside: Iterable[str] = ()):
        self.path, self.added = Path(path), added
        self._no_input = frozenset((added, *beside))
        self.rows: list[Row] = []
        self._held = hold(self.path, "another command")
        try:
            if self.path.exists():
                self._recover()
            else:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("ab").close()
        except OSError as error:
            raise UserError(f"{self.path}: cannot write ({error.strerror})") from None
        self._done = Counter(self.key(row) for row in self.rows)

    def close(self) -> None:
        """Let others write there."""
        self._held.release()

    def take(self, row: Row) -> bool:
        """Whether this input row is done already; each done row answers for one input row."""
        key = self.key(row)
        if self._done[key]:
            self._done[key] -= 1
            return True
        return False

    def write(self, rows: Iterable[Row]) -> None:
        """Append finished rows; they are on disk when this returns, all of them or none."""
        rows = list(rows)
        before = None
        try:
            with self.path.open("ab") as file:
                before = file.tell()
                file.write(b"".join(to_json(row).encode() + b"\n" for row in rows))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if before is not None:
                with contextlib.suppress(OSError):
                    os.truncate(self.path, before)
            raise UserError(f"{self.path}: cannot write ({error.strerror}); what was written before is kept") from None
        self.rows += rows

    def sort(self, inputs: Iterable[Row], mark: str | None = None) -> None:
        """Put the rows in the order of their inputs, where a continued run has filled a gap. A row that answers an input which
        is answered already is taken out; rows of other inputs stay, behind, with `mark` (one of `beside`) if it is given."""
        places: dict[str, list[int]] = {}
        last = 0
        for last, row in enumerate(inputs, 1):
            places.setdefault(self.key(row), []).append(last)
        ranked: list[tuple[int, Row]] = []
        for row in self.rows:
            free = places.get(self.key(row))
            if free is None:
                ranked.append((last + 1, row))
            elif free:
                ranked.append((free.pop(0), row))
        ordered = [row for _, row in sorted(ranked, key=lambda pair: pair[0])]
        if mark is not None:
            plain = [{key: value for key, value in row.items() if key != mark} for row in ordered]
            ordered = [row if self.key(row) in places else row | {mark: True} for row in plain]
        if ordered != self.rows:
            write_rows(self.path, ordered)
            self.rows = ordered

    def beside(self, name: str) -> dict[str, Any]:
        """What the rows say beside their results under a name, by `key`."""
        return {self.key(row): row.get(name) for row in self.rows}

    def key(self, row: Row) -> str:
        """What tells an input row, or the row of its result, from others."""
        return json.dumps({k: v for k, v in row.items() if k not in self._no_input}, sort_keys=True)

    def _recover(self) -> None:
        """Read what an earlier run has written. Nothing is changed before all of it has proved to be such a run's."""
        refusal = f"{self.path}: is no output of an earlier run; name another file or remove it"
        if not self.path.is_file():
            raise UserError(refusal)
        numbered = list(read_rows(self.path))
        data = self.path.read_bytes()
        keep = data.rfind(b"\n") + 1
        rest = data[keep:].strip()
        if rest and isinstance(numbered[-1][1], UserError) and rest.startswith(b"{"):
            numbered.pop()  # cut short
        else:
            keep = len(data)
        for _, row in numbered:
            if isinstance(row, UserError) or self.added not in row:
                raise UserError(refusal)
            self.rows.append(row)
        unended = bool(rest) and keep == len(data)  # its end alone is missing
        if keep < len(data) or unended:
            with self.path.open("rb+") as file:
                file.truncate(keep)
                if unended:
                    file.seek(keep)
                    file.write(b"\n")
