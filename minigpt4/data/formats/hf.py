"""Datasets of the Hugging Face library: a folder, what `save_to_disk` wrote, or an id on the hub; indexed or streamed.

Columns are the keys of our schema, or are named for them (``columns: {image: img, answer: label}``). What other datasets write
in their own way is understood: messages as {"from", "value"} or with a list of parts, answers as {"answer"}, the number of a
class as its name, one box without a list around it, boxes in pixels.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import UserError
from ...media.images import ImageInput, decode_image
from ...prompt.boxes import Box, Rounding
from ...prompt.templates import PLACEHOLDER
from ..schema import KEYS, Row
from ..source import Problem, Record
from ..values import is_number, kind_of, nearest
from .fields import choose, malformed
from .files import Folders, Paths
from .index import Indexed
from .rows import again, own_rows, understood
from .streams import RowStream
from .tars import image_endings

log = logging.getLogger(__name__)

_ROLES = {"human": "user", "gpt": "assistant"}
_BATCH = 1000


def hf(
    *,
    name: str,
    dataset: str,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    streaming: bool = False,
    columns: Mapping[str, str] | None = None,
    box_form: str = "relative",
    images: Paths | None = None,
    missing: str = "error",
    task: str | None = None,
    captions: str = "one",
    prompts: str | list[str] | None = None,
    rounding: Rounding = "nearest",
) -> "Indexed | HubStream":
    """A dataset of the library.

    Args:
        dataset: a folder of data files, a folder that `save_to_disk` wrote, or an id on the hub.
        config: which of its configurations, where it has several.
        split: which of its parts.
        revision: which version of a dataset on the hub.
        streaming: read it from beginning to end instead of indexing it; nothing is downloaded before.
        columns: the columns that hold the keys of our schema; a dot goes into a struct (``boxes: objects.bbox``). Those that
            are called like a key, when not given.
        box_form: how boxes are written: ``relative`` ([x1, y1, x2, y2] in fractions of the image), or in its pixels ``xyxy`` or
            ``xywh``.
        images: the folder that names of images are relative to.
        missing, task, captions, prompts, rounding: as in `rows.own_rows`.

    Raises:
        UserError: the library is not installed, or the dataset or one of its columns is not there.
    """
    choose("streaming", streaming, (False, True))
    choose("box_form", box_form, ("relative", "xyxy", "xywh"))
    data = _load(dataset, config, split, revision, streaming)
    folder = images if images is not None else dataset if os.path.isdir(dataset) else "."
    reading = _Reading(data, f"{dataset}, split {split}", columns, box_form, Folders(folder))
    options: dict[str, Any] = {"missing": missing, "task": task, "captions": captions, "prompts": prompts, "rounding": rounding}
    return HubStream(name, reading, **options) if streaming else own_rows([_Rows(reading)], name=name, **options)


def _load(dataset: str, config: str | None, split: str, revision: str | None, streaming: bool) -> Any:
    try:
        import datasets
    except ImportError:
        raise UserError("datasets of the Hugging Face library need a package: pip install 'minigpt4[hf]'") from None
    if not isinstance(dataset, str) or not dataset:
        raise UserError(f"dataset: expected a folder or an id on the hub, found {kind_of(dataset)}")
    is_folder = os.path.isdir(dataset)
    saved = any(os.path.exists(os.path.join(dataset, name)) for name in ("dataset_dict.json", "state.json"))
    try:
        with _without_bars(datasets):
            if saved:
                data = datasets.load_from_disk(dataset)
            else:
                data = datasets.load_dataset(dataset, config, revision=revision, streaming=streaming)
    except Exception as error:  # the library passes on whatever happens in its readers
        told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        if is_folder:
            raise UserError(f"{dataset}: cannot be read as a dataset ({told})") from None
        raise UserError(
            f"{dataset}: no such folder, and no dataset that can be had from the hub ({told}); is the id right, this machine "
            "online, and the dataset open to you (hf auth login)?"
        ) from None
    if isinstance(data, dict):
        if split not in data:
            raise UserError(f"{dataset}: no split {split!r}; {nearest(split, map(str, data))} (option split)")
        data = data[split]
    elif str(data.split or split) != split:
        raise UserError(f"{dataset}: is the split {str(data.split)!r} alone, not {split!r} (option split)")
    if saved and streaming:
        data = data.to_iterable_dataset(num_shards=max(1, min(len(data.cache_files), len(data))))
    return data


@contextmanager
def _without_bars(datasets: Any) -> Iterator[None]:
    """Nothing is printed below the command line."""
    shown = datasets.are_progress_bars_disabled() is False
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


class _Reading:
    """Which columns of a dataset are read, and how their values become those of a row of our schema."""

    def __init__(self, data: Any, where: str, columns: Mapping[str, str] | None, box_form: str, folders: Folders):
        import datasets

        self.where, self.box_form, self.folders = where, box_form, folders
        there = list(data.column_names or next(iter(data), {}))
        if columns is None:
            columns = {key: key for key in KEYS if key in there}
        elif not isinstance(columns, Mapping) or not all(isinstance(word, str) for pair in columns.items() for word in pair):
            raise UserError(f"columns: expected the name of a column for each key of a row, found {kind_of(columns)}")
        for key, column in columns.items():
            if key not in KEYS:
                raise UserError(f"columns: unknown key {key!r} of a row; {nearest(key, KEYS)}")
            if column.partition(".")[0] not in there:
                raise UserError(f"{where}: no column {column!r} for {key!r}; it has {', '.join(there)} (option columns)")
        if not set(columns) - {"image", "images", "task", "id", "split", "extra"}:
            raise UserError(f"{where}: no column to learn from; it has {', '.join(there)} (option columns: {{answer: ...}})")
        self.image = next((key for key in ("image", "images") if key in columns), None)
        self.columns = {key: column for key, column in columns.items() if key != self.image}
        self.image_column = columns[self.image] if self.image else None
        features = data.features or {}
        named = {key: _classes(features, column.split(".")) for key, column in self.columns.items()}
        self.classes = {key: names for key, names in named.items() if names is not None}
        wanted = {column.partition(".")[0] for column in columns.values()}
        data = data.select_columns([column for column in there if column in wanted])
        if self.image_column is not None and self.image_column in features:  # encoded images, as they are stored
            stored = _undecoded(features[self.image_column], datasets)
            if stored is not None:
                data = data.cast_column(self.image_column, stored)
        self.data = data

    def row(self, values: Mapping[str, Any], images: Callable[[], Sequence[Any]], where: str) -> dict[str, Any]:
        """A row of our schema but for its images, of which the bytes or names are asked for where boxes are in their pixels.

        Raises:
            UserError: boxes in pixels that are none, or whose image cannot be read.
        """
        row: dict[str, Any] = {}
        for key, column in self.columns.items():
            value: Any = values
            for part in column.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if value is not None:
                row[key] = self._plain(key, value)
        if self.box_form != "relative":
            if "boxes" in row:
                row["boxes"] = self._relative(row["boxes"], images(), where)
            if isinstance(row.get("phrases"), list):
                row["phrases"] = [self._tied(entry, images, where) for entry in row["phrases"]]
        return row

    def _tied(self, entry: Any, images: Callable[[], Sequence[Any]], where: str) -> Any:
        """A phrase of a text with its boxes as fractions."""
        if not isinstance(entry, Mapping) or "boxes" not in entry:
            return entry
        return {**entry, "boxes": self._relative(entry["boxes"], images(), where)}

    def _plain(self, key: str, value: Any) -> Any:
        if names := self.classes.get(key):
            if isinstance(value, list):
                return [_class(one, names) for one in value if one != -1]
            value = _class(value, names)
        if key == "conversation" and isinstance(value, list):
            return [_message(one) for one in value]
        if key == "answers" and isinstance(value, list):
            return [one.get("answer") if isinstance(one, dict) else one for one in value]
        if key == "boxes" and isinstance(value, list) and value and all(map(is_number, value)):
            return [value]
        return value

    def _relative(self, boxes: Any, images: Sequence[Any], where: str) -> list[list[float]]:
        """Boxes in pixels as fractions of their image."""
        if len(images) != 1:
            raise UserError(f"{where}: boxes are about one picture, found {len(images)}")
        size = decode_image(images[0] if isinstance(images[0], bytes) else self.read(images[0], where), where).size
        found = []
        for box in boxes if isinstance(boxes, list) else [boxes]:
            if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
                raise UserError(f'{where}: "boxes" must be lists of four numbers, found {kind_of(box)}')
            make: Callable[..., Box] = Box.from_pixels if self.box_form == "xyxy" else Box.from_xywh
            try:
                found.append(list(make(*box, *size).clipped()))
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
        return found

    def read(self, name: str, where: str) -> bytes:
        """The bytes of an image that is named."""
        path = self.folders.find((name,))
        if path is None:
            raise UserError(f"{where}: no picture {name} in {', '.join(self.folders.folders)}")
        return Path(path).read_bytes()


def _undecoded(feature: Any, datasets: Any) -> Any:
    """The type of a column of images that are left as they are stored; None for another type."""
    if isinstance(feature, datasets.Image):
        return datasets.Image(decode=False)
    inner = getattr(feature, "feature", None) or (feature[0] if isinstance(feature, list) else None)
    return datasets.List(datasets.Image(decode=False)) if isinstance(inner, datasets.Image) else None


def _classes(feature: Any, path: Sequence[str]) -> list[str] | None:
    """The names of the classes that a column's numbers stand for, `path` into its structs, in lists or not; None of others."""
    for part in (*path, None):
        while isinstance(feature, list) or hasattr(feature, "feature"):
            feature = feature[0] if isinstance(feature, list) else feature.feature
        if part is not None:
            feature = feature.get(part) if isinstance(feature, Mapping) else None
    return getattr(feature, "names", None)


def _class(value: Any, names: Sequence[str]) -> Any:
    """The name of a class by its number; None of -1, which says that nobody has said. Other values as they are."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    return names[value] if 0 <= value < len(names) else None


def _message(message: Any) -> Any:
    """A message of a conversation as our schema has it; anything else as it is."""
    if not isinstance(message, dict):
        return message
    role, said = message.get("role", message.get("from")), message.get("content", message.get("value"))
    if isinstance(said, list):
        said = "".join(_part(part) for part in said)
    if isinstance(said, str) and role in ("user", "human"):
        said = said.replace("<image>", PLACEHOLDER).strip()
    return {"role": _ROLES.get(str(role), role), "content": said}


def _part(part: Any) -> str:
    if isinstance(part, dict) and part.get("type") == "image":
        return f"{PLACEHOLDER} "
    return str(part.get("text") or "") if isinstance(part, dict) else str(part)


def _images_of(cell: Any) -> list[Any]:
    """The images in a cell: bytes, or names."""
    cells = cell if isinstance(cell, list) else [cell]
    found = [(one.get("bytes") or one.get("path")) if isinstance(one, dict) else one for one in cells]
    return [one for one in found if one]


class _Image(NamedTuple):
    """An image that is stored in a dataset."""

    rows: "_Rows"
    row: int
    number: int

    @property
    def key(self) -> str:
        return f"{self.rows.where(self.row)}.{self.number}"

    def open(self, where: str) -> ImageInput:
        return decode_image(self.rows.images(self.row)[self.number], where)


class _Rows:
    """The rows of a dataset that can be indexed; nothing of it is kept in memory, and images are left where they are."""

    def __init__(self, reading: _Reading):
        self.reading = reading
        self.folders: Folders | None = reading.folders
        self._tables = reading.data.with_format("arrow")

    def scan(self) -> Iterator[Row | Problem]:
        number = 0
        for table in self._tables.iter(batch_size=_BATCH):
            for values, names in zip(self._values(table), self._names(table), strict=True):
                where = self.where(number)
                yield understood(self._raw(values, number, where), where, self._images(names, number))
                number += 1

    def read(self, number: int) -> Row:
        table, where = self._tables[number : number + 1], self.where(number)
        (values,), (names,) = self._values(table), self._names(table)
        return again(self._raw(values, number, where), where, self._images(names, number))

    def where(self, number: int) -> str:
        return f"{self.reading.where}[{number}]"

    def images(self, number: int) -> list[Any]:
        """The images of a row: bytes, or names."""
        column = self.reading.image_column
        return _images_of(self.reading.data[number][column]) if column else []

    def _raw(self, values: dict[str, Any], number: int, where: str) -> Any:
        try:
            return self.reading.row(values, lambda: self.images(number), where)
        except UserError as error:
            return error

    def _images(self, names: list[str | None] | None, number: int) -> tuple[Any, ...] | None:
        return None if names is None else tuple(name or _Image(self, number, i) for i, name in enumerate(names))

    def _values(self, table: Any) -> list[dict[str, Any]]:
        return table.drop_columns([c for c in table.column_names if c == self.reading.image_column]).to_pylist()

    def _names(self, table: Any) -> list[Any]:
        column = self.reading.image_column
        return [None] * table.num_rows if column is None else _names_in(table[column])


def _names_in(column: Any) -> list[list[str | None]]:
    """The images in each cell of a column: names, or None for those that are stored, which are not read for this."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        flat = iter(_names_in(pc.list_flatten(column)))
        return [[name for _ in range(count or 0) for name in next(flat)] for count in pc.list_value_length(column).to_pylist()]
    if pa.types.is_struct(column.type):
        stored = pc.is_valid(pc.struct_field(column, "bytes")).to_pylist()
        paths = pc.struct_field(column, "path").to_pylist()
        return [[None] if there else [path] if path else [] for there, path in zip(stored, paths, strict=True)]
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return [[None] if there else [] for there in pc.is_valid(column).to_pylist()]
    return [[name] if name else [] for name in column.to_pylist()]


class HubStream(RowStream):
    """Rows of a dataset that is read from beginning to end. What is skipped is not read where the library can do without."""

    def __init__(self, name: str, reading: _Reading, **options: Any):
        self.reading = reading
        super().__init__(name, [f"{reading.where}#{i}" for i in range(reading.data.num_shards)], **options)

    def records(self, shard: str, skip: int = 0) -> Iterator[Record]:
        left_out, fault, passed = 0, None, 0
        begin = 0 if self.missing == "skip" else skip  # of those that are left out nobody knows before they are looked at
        for number, values in self._rows(shard, begin):
            try:
                record = self._record(shard, number, values)
                if self.missing == "skip":
                    self._check(record.parts, tuple(image_endings(record.parts)), record.where)
            except UserError as error:
                if self.missing == "error":
                    raise
                left_out, fault = left_out + 1, error
                continue
            passed += 1
            if begin or passed > skip:
                yield record
        if left_out:
            log.warning("%s: %s: %d records are left out, the last: %s", self.name, shard, left_out, fault)

    def survey(self) -> Iterator[Problem | None]:
        for shard in self.shards:
            try:
                for number, values in self._rows(shard, 0):
                    where = f"{shard}:{number:09d}"
                    try:
                        record = self._record(shard, number, values)
                        self._check(record.parts, tuple(image_endings(record.parts)), where)
                        yield None
                    except UserError as error:
                        yield malformed(where, error)
            except UserError as error:
                yield Problem(kind="broken shard", where=shard, message=str(error))

    def _rows(self, shard: str, begin: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """The numbered rows of a shard. Raises UserError where the library cannot read on."""
        data = self.reading.data.shard(num_shards=len(self.shards), index=self.shards.index(shard))
        rows = iter(data.skip(begin) if begin else data)
        for number in count(begin):
            try:
                values = next(rows, None)
            except Exception as error:
                told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                raise UserError(f"{shard}: cannot be read on from row {number} ({told})") from None
            if values is None:
                return
            yield number, values

    def _record(self, shard: str, number: int, values: Mapping[str, Any]) -> Record:
        """A row as a record. Raises UserError if an image that it names is not there."""
        where = f"{shard}:{number:09d}"
        column = self.reading.image_column
        cells = _images_of(values.get(column)) if column is not None else []
        images = [cell if isinstance(cell, bytes) else self.reading.read(cell, where) for cell in cells]
        row = self.reading.row(values, lambda: images, where)
        parts = {"json": json.dumps(row, default=str).encode()} | {f"{i}.png": image for i, image in enumerate(images)}
        return Record(shard=shard, key=f"{number:09d}", parts=parts)
