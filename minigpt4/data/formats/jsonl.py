"""Our schema as JSON Lines: one row a line, images as files."""

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...io.jsonl import GZIP, load_json, other_kind, read_rows
from ..schema import Row
from ..source import Problem
from .files import Folders, Paths, files
from .index import Store
from .rows import again, understood


def jsonl(annotations: Paths, images: Paths | None = None) -> list[Store]:
    """Rows in one or several files.

    Args:
        annotations: the files, or patterns of their names.
        images: the folder that names of images are relative to; each file's own folder when not given.
    """
    paths = files(annotations, "annotations", "JSON Lines of our schema (docs/data.md)")
    shared = Folders(images) if images is not None else None
    return [Lines(path, shared or Folders(str(Path(path).parent))) for path in paths]


class Lines:
    """The rows of a file without keeping it in memory: where each line begins. Only rows that are no lines of the file as it
    lies on disk (those of a JSON array, or of a file packed by gzip) are kept."""

    def __init__(self, path: str, folders: Folders | None):
        self.path, self.folders = path, folders
        self._starts, self._numbers = array("q"), array("q")
        self._kept: list[bytes | UserError] | None = None

    def scan(self) -> Iterator[Row | Problem]:
        """Raises UserError if the file cannot be read, or is something else altogether (CSV, UTF-16)."""
        for number, line in self._lines():
            self._numbers.append(number)
            where = f"{self.path}:{number}"
            yield understood(_loads(line, where), where)

    def _lines(self) -> Iterator[tuple[int, bytes | UserError]]:
        """Numbered lines that are not blank, as they are or with what is wrong with them; remembers where they are."""
        try:
            with open(self.path, "rb") as file:
                first = file.readline()
                kind = other_kind(first)
                if first.startswith(GZIP) or kind == "array":
                    self._kept = []
                    for number, row in read_rows(self.path):
                        self._kept.append(row if isinstance(row, UserError) else json.dumps(row).encode())
                        yield number, self._kept[-1]
                    return
                if kind is not None:
                    raise UserError(f"{self.path}: {kind}")
                file.seek(start := 0)
                for number, line in enumerate(file, 1):
                    if line.strip():
                        self._starts.append(start)
                        yield number, line
                    start += len(line)
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}") from None

    def read(self, number: int) -> Row:
        where = self.where(number)
        return again(_loads(self._line(number), where), where)

    def where(self, number: int) -> str:
        return f"{self.path}:{self._numbers[number]}"

    def _line(self, number: int) -> bytes | UserError:
        if self._kept is not None:
            return self._kept[number]
        try:
            with open(self.path, "rb") as file:  # opened anew: processes share no position in it
                file.seek(self._starts[number])
                return file.readline()
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}") from None


def _loads(line: bytes | UserError, where: str) -> Any:
    return line if isinstance(line, UserError) else load_json(line, where)
