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
from typing import Any

from ...errors import UserError
from ...media.images import ImageInput, decode_image
from ..schema import KEYS, Row
from ..values import nearest
from .files import Folders, Paths, files
from .rows import RowItems

_GROUPS_KEPT = 2  # row groups of pictures in memory, a process
_STORED = "(stored)"  # stands for a picture in the table where only its being there matters


class Parquet(RowItems):
    """Rows in one or several Parquet files; the text is kept in memory, pictures are not.

    Args:
        annotations: the files, or patterns of their names.
        images: the folder that picture names are relative to; each file's own folder when not given.
        options: those of `RowItems`.
    """

    def __init__(self, *, name: str, annotations: Paths, images: Paths | None = None, **options: Any):
        super().__init__(name=name, **options)
        paths = files(annotations, "annotations", "Parquet of our schema (docs/data.md)")
        shared = Folders(images) if images is not None else None
        self._tables = [_Table(path, shared) for path in paths]
        self._table_of, self._place_of = array("l"), array("q")  # of each row, its table and its place there
        for i, table in enumerate(self._tables):
            for place, (raw, stored) in enumerate(table.scan()):
                self._table_of.append(i)
                self._place_of.append(place)
                self._take(len(self._table_of) - 1, raw, f"{table.path}[{place}]", stored)
        self._settle(len(self._row_of))

    def _locate(self, item: int) -> tuple["_Table", int]:
        row = self._row_of[item]
        return self._tables[self._table_of[row]], self._place_of[row]

    def _where(self, item: int) -> str:
        table, place = self._locate(item)
        return f"{table.path}[{place}]"

    def _row(self, item: int) -> Row:
        table, place = self._locate(item)
        images = (_STORED,) * table.counts[place] if table.column else None
        return self._parse(table.text(place), self._where(item), images)

    def _open(self, item: int, row: Row) -> tuple[ImageInput, ...]:
        table, place = self._locate(item)
        found: list[ImageInput] = []
        for value in table.images(place) if table.column else row.images:
            if isinstance(value, bytes):
                found.append(decode_image(value, row.where))
            elif (path := table.folders.find((value,))) is not None:
                found.append(path)
            else:
                raise UserError(f"{row.where}: no picture {value} in {', '.join(table.folders.folders)}")
        return tuple(found)

    def _keys(self, item: int) -> tuple[str, ...]:
        table, place = self._locate(item)
        if table.column and place not in table.named:
            return tuple(f"{table.path}[{place}].{k}" for k in range(table.counts[place]))
        names = table.named[place] if table.column else self._row(item).images
        return tuple(str(table.folders.find((name,)) or name) for name in names)

    def _absent(self, item: int) -> str | None:
        table, place = self._locate(item)
        names = table.named.get(place, ()) if table.column else self._row(item).images
        for name in names:
            if table.folders.find((name,)) is None:
                return f"{self._where(item)}: no picture {name} in {', '.join(table.folders.folders)}"
        return None


class _Table:
    """One file: its text as a table in memory, its pictures row group by row group."""

    def __init__(self, path: str, folders: Folders | None):
        self.path = path
        self.folders = folders or Folders(os.path.dirname(path) or ".")
        self.named: dict[int, tuple[str, ...]] = {}
        """Of the rows whose struct names a file instead of holding it, the names."""
        self.counts = array("H")
        """Pictures of each row."""
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
        self.column = stored[0] if stored else None
        self._text = file.read(columns=[name for name in schema.names if name not in stored], use_threads=False)
        self._rows = file.metadata.num_rows
        self._starts = [0]
        for group in range(file.metadata.num_row_groups):
            self._starts.append(self._starts[-1] + file.metadata.row_group(group).num_rows)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_recent": OrderedDict()}  # pictures in memory do not travel to other processes

    def scan(self) -> Iterator[tuple[dict[str, Any], tuple[Any, ...] | None]]:
        """Rows in order, each with its pictures: names, `_STORED`, or None where the text names them."""
        whole = self.column == "image" and self._all_there()
        for place in range(self._rows):
            images: tuple[Any, ...] | None = None
            if whole:
                images = (_STORED,)
            elif self.column:
                values = self.images(place)
                images = tuple(_STORED if isinstance(value, bytes) else value for value in values)
                if names := tuple(value for value in images if value is not _STORED):
                    self.named[place] = names
            self.counts.append(len(images or ()))
            yield self.text(place), images
        self._recent.clear()

    def text(self, place: int) -> dict[str, Any]:
        """The cells of a row, without stored pictures."""
        return self._text.slice(place, 1).to_pylist()[0] if self._text.num_columns else {}

    def images(self, place: int) -> tuple[Any, ...]:
        """The pictures of a row: bytes, or names of files."""
        group = bisect_right(self._starts, place) - 1
        cells = self._recent.pop(group, None)
        if cells is None:
            table = self._file().read_row_group(group, columns=[self.column], use_threads=False)
            cells = table.column(self.column).to_pylist()
        self._recent[group] = cells
        while len(self._recent) > _GROUPS_KEPT:
            self._recent.popitem(last=False)
        cell = cells[place - self._starts[group]]
        cells = cell if self.column == "images" else [cell]
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
