"""Our schema as JSON Lines: one row a line, pictures as files."""

import json
from array import array
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..schema import Row
from .files import Folders, Paths, files
from .rows import Lines, RowItems


class JsonLines(RowItems):
    """Rows in one or several JSON Lines files; every line is checked when the dataset is opened, and none is kept in memory. A
    JSON array of rows and files packed by gzip are read too; their rows are kept.

    Args:
        annotations: the files, or patterns of their names.
        images: the folder that picture names are relative to; each file's own folder when not given.
        options: those of `RowItems`.
    """

    def __init__(self, *, name: str, annotations: Paths, images: Paths | None = None, **options: Any):
        super().__init__(name=name, **options)
        paths = files(annotations, "annotations", "JSON Lines of our schema (docs/data.md)")
        shared = Folders(images) if images is not None else None
        self._files = [Lines(path) for path in paths]
        self._folders = [shared or Folders(str(Path(path).parent)) for path in paths]
        self._file_of, self._line_of = array("l"), array("q")  # of each row, its file and its place there
        for i, lines in enumerate(self._files):
            for j, (number, line) in enumerate(lines.scan()):
                self._file_of.append(i)
                self._line_of.append(j)
                self._take(len(self._file_of) - 1, _loads(line, f"{lines.path}:{number}"), f"{lines.path}:{number}")
        self._settle(len(self._row_of))

    def _where(self, item: int) -> str:
        row = self._row_of[item]
        lines = self._files[self._file_of[row]]
        return f"{lines.path}:{lines.numbers[self._line_of[row]]}"

    def _row(self, item: int) -> Row:
        row, where = self._row_of[item], self._where(item)
        raw = _loads(self._files[self._file_of[row]].read(self._line_of[row]), where)
        try:
            if isinstance(raw, UserError):
                raise raw
            return self._parse(raw, where)
        except UserError as error:
            raise UserError(f"{error} (the file has changed since it was opened)") from None

    def _open(self, item: int, row: Row) -> tuple[Path, ...]:
        folders = self._folders[self._file_of[self._row_of[item]]]
        found = [folders.find((image,)) for image in row.images]
        for image, path in zip(row.images, found, strict=True):
            if path is None:
                raise UserError(f"{row.where}: no picture {image} in {', '.join(folders.folders)}")
        return tuple(path for path in found if path)

    def _keys(self, item: int) -> tuple[str, ...]:
        folders = self._folders[self._file_of[self._row_of[item]]]
        return tuple(str(folders.find((image,)) or image) for image in self._row(item).images)

    def _absent(self, item: int) -> str | None:
        try:
            self._open(item, self._row(item))
        except UserError as error:
            return str(error)
        return None


def _loads(line: bytes | UserError, where: str) -> Any:
    if isinstance(line, UserError):
        return line
    try:
        return json.loads(line)
    except RecursionError:
        return UserError(f"{where}: not JSON that can be read (nested too deeply)")
    except ValueError as error:  # of which "not UTF-8" is one
        return UserError(f"{where}: not JSON ({error})")
