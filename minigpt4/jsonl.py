"""JSON Lines in and out: errors that name file and line, output that survives a kill and can be continued."""

import contextlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .errors import UserError

Row = dict[str, Any]


def read_rows(path: str | os.PathLike) -> Iterator[tuple[int, Row | UserError]]:
    """Numbered rows of a file; a line that is no JSON object comes as the error that says so. Empty lines are passed over."""
    try:
        file = open(path, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    with file:
        number = 0
        while True:
            number += 1
            try:
                line = file.readline()
            except UnicodeDecodeError as error:
                yield number, UserError(f"{path}:{number}: not UTF-8 text ({error.reason})")
                return
            if not line:
                return
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                yield number, UserError(f"{path}:{number}: not JSON ({error})")
                continue
            if not isinstance(row, dict):
                yield number, UserError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
                continue
            yield number, row


def write_rows(path: str | os.PathLike, rows: Iterable[Row]) -> None:
    """Write a whole file at once: it is there when all of it is on disk, and an older one stays until then."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise UserError(f"{path}: cannot write ({error.strerror})") from None


class Output:
    """A JSON Lines file that grows row by row in the order of its input, and can be continued.

    Args:
        path: the file; a last line that a kill has cut short is taken off.
        added: the key that a result adds to its input row, by which done rows are recognised.
    """

    def __init__(self, path: str | os.PathLike, added: str):
        self.path, self.added = Path(path), added
        self.rows: list[Row] = []
        if self.path.exists():
            self._recover()
        else:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"{self.path.parent}: {error.strerror}") from None
        self._done = Counter(self._key(row) for row in self.rows)

    def take(self, row: Row) -> bool:
        """Whether this input row is done already; each done row answers for one input row."""
        key = self._key(row)
        if self._done[key]:
            self._done[key] -= 1
            return True
        return False

    def write(self, rows: Iterable[Row]) -> None:
        """Append finished rows; they are on disk when this returns."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                for row in rows:
                    self.rows.append(row)
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"{self.path}: cannot write ({error.strerror}); what was written before is kept") from None

    def sort(self, inputs: Iterable[Row]) -> None:
        """Put the rows in the order of their inputs, where a continued run has filled a gap."""
        places: dict[str, list[int]] = {}
        for i, row in enumerate(inputs):
            places.setdefault(self._key(row), []).append(i)
        rank = [places[k].pop(0) if places.get(k := self._key(row)) else len(self.rows) for row in self.rows]
        if rank == sorted(rank):
            return
        ordered = [row for _, row in sorted(zip(rank, self.rows, strict=True), key=lambda pair: pair[0])]
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=self.path.parent, delete=False) as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in ordered)
        os.replace(file.name, self.path)

    def _key(self, row: Row) -> str:
        return json.dumps({k: v for k, v in row.items() if k != self.added}, sort_keys=True)

    def _recover(self) -> None:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with self.path.open("rb+") as file:
                file.truncate(len(whole))
        for number, row in read_rows(self.path):
            if isinstance(row, UserError) or self.added not in row:
                raise UserError(f"{self.path}:{number}: is no output of an earlier run; name another file or remove it")
            self.rows.append(row)
