"""Our schema as Parquet: one row a row, pictures as file names or stored in the table.

The columns are the keys of the schema. ``image`` (or ``images``, a list) holds file names, encoded bytes, or structs of
``bytes`` and ``path`` as the Hugging Face hub writes them; an empty cell is an absent key. A stored picture is read with the
whole row group around it, so row groups of a hundred rows or so suit random access.
"""

import os
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

from ...errors import UserError
from ...media.images import ImageInput, decode_image
from ..schema import KEYS, Row, parse_row
from ..source import Problem
from ..values import nearest
from .files import Folders, Paths, files
from .index import Store
from .rows import understood

_GROUPS_KEPT = 2  # row groups of images in memory, a process


def parquet(annotations: Paths, images: Paths | None = None) -> list[Store]:
    """Rows in one or several files; the text is kept in memory, images are not.

    Args:
        annotations: the files, or patterns of their names.
        images: the folder that names of images are relative to; each file's own folder when not given.
    """
    paths = files(annotations, "annotations", "Parquet of our schema (docs/data.md)")
    shared = Folders(images) if images is not None else None
    return [Table(path, shared or Folders(os.path.dirname(path) or ".")) for path in paths]


class Cell(NamedTuple):
    """An image in a table."""

    table: "Table"
    row: int
    number: int

    @property
    def key(self) -> str:
        return f"{self.table.where(self.row)}.{self.number}"

    def open(self, where: str) -> ImageInput:
        cells = self.table.cells(self.row)
        if self.number >= len(cells):  # statistics of a file count an empty cell that is not null as one that is there
            raise UserError(f"{where}: no picture in its cell, which is empty")
        content = cells[self.number]
        if not isinstance(content, str):
            return decode_image(content, where)
        found = self.table.folders.find((content,)) if self.table.folders else None
        if found is None:
            raise UserError(f"{where}: no picture in its cell, and no file {content} that it names")
        return found


class Table:
    """One file: its text as a table in memory, its pictures row group by row group."""

    def __init__(self, path: str, folders: Folders | None):
        self.path, self.folders = path, folders
        self._named: dict[int, tuple[str | None, ...]] = {}
        """Of the rows whose struct names a file instead of holding it, the names."""
        self._counts = array("H")
        """Images of each row."""
        self._recent: OrderedDict[int, list[Any]] = OrderedDict()
        file = self._file()
        import pyarrow as pa

        schema = file.schema_arrow
        for column in schema.names:
            if column not in KEYS:
                raise UserError(f'{path}: unknown column "{column}"; {nearest(column, KEYS)}')
        stored = [name for name in ("image", "images") if name in schema.names and not _holds_text(schema.field(name).type, pa)]
        if len(stored) > 1:
            raise UserError(f'{path}: has both columns "image" and "images"; expected one of them')
        self._column = stored[0] if stored else None
        self._text = file.read(columns=[name for name in schema.names if name not in stored], use_threads=False)
        self._rows = file.metadata.num_rows
        self._starts = [0]
        for group in range(file.metadata.num_row_groups):
            self._starts.append(self._starts[-1] + file.metadata.row_group(group).num_rows)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_recent": OrderedDict()}  # pictures in memory do not travel to other processes

    def scan(self) -> Iterator[Row | Problem]:
        whole = self._column == "image" and self._all_there()
        for row in range(self._rows):
            if self._column:
                cells = (b"",) if whole else self.cells(row)
                self._counts.append(len(cells))
                if any(isinstance(cell, str) for cell in cells):
                    self._named[row] = tuple(cell if isinstance(cell, str) else None for cell in cells)
            yield understood(self._values(row), self.where(row), self._images(row))
        self._recent.clear()

    def read(self, number: int) -> Row:
        return parse_row(self._values(number), self.where(number), self._images(number))

    def where(self, number: int) -> str:
        return f"{self.path}[{number}]"

    def _values(self, row: int) -> dict[str, Any]:
        """The cells of a row, without stored images."""
        return self._text.slice(row, 1).to_pylist()[0] if self._text.num_columns else {}

    def _images(self, row: int) -> tuple[str | Cell, ...] | None:
        """The images of a row: names, or where they are stored; None where the text names them."""
        if not self._column:
            return None
        names = self._named.get(row) or (None,) * self._counts[row]
        return tuple(name or Cell(self, row, number) for number, name in enumerate(names))

    def cells(self, row: int) -> tuple[Any, ...]:
        """The stored images of a row: bytes, or names of files."""
        group = bisect_right(self._starts, row) - 1
        cells = self._recent.pop(group, None)
        if cells is None:
            table = self._file().read_row_group(group, columns=[self._column], use_threads=False)
            cells = table.column(self._column).to_pylist()
        self._recent[group] = cells
        while len(self._recent) > _GROUPS_KEPT:
            self._recent.popitem(last=False)
        cell = cells[row - self._starts[group]]
        cells = cell if self._column == "images" else [cell]
        return tuple(value for value in map(_content, cells or ()) if value)

    def _all_there(self) -> bool:
        """Whether the file's statistics say that no cell is without a stored picture, so that none need be read."""
        metadata = self._file().metadata
        for group in range(metadata.num_row_groups):
            columns = [metadata.row_group(group).column(i) for i in range(metadata.num_columns)]
            leaf = next((c for c in columns if c.path_in_schema in ("image", "image.bytes")), None)
            if leaf is None or leaf.statistics is None or not leaf.statistics.has_null_count or leaf.statistics.null_count:
                return False
        return True

    def _file(self) -> Any:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise UserError("reading Parquet needs pyarrow: pip install 'minigpt4[data]'") from None
        try:
            return pq.ParquetFile(self.path)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{self.path}: not a whole Parquet file ({str(error).splitlines()[0]})") from None


def _content(cell: Any) -> Any:
    """Bytes or a name, of a cell in any of the accepted forms."""
    return (cell.get("bytes") or cell.get("path")) if isinstance(cell, dict) else cell


def _holds_text(kind: Any, pa: Any) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
