"""Rows of any format as a dataset whose samples are drawn in any order."""

import logging
import os
import pickle
import random
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ...errors import UserError
from ...media.images import ImageInput
from ..sample import Sample, Turn, ask
from ..schema import Description, Row, Style
from ..source import Problem, Remark
from .fields import choose, coco_aliases, malformed
from .files import Folders

log = logging.getLogger(__name__)

ALL = -1  # instead of the number of one answer


class Outline(NamedTuple):
    """A sample without its images: by what these are told apart (`keys`), and whether questions say where they stand."""

    turns: tuple[Turn, ...]
    keys: tuple[str, ...]
    placed: bool


class Stored(Protocol):
    """An image that is kept with its row, in place of the name of a file."""

    @property
    def key(self) -> str:
        """What it is told apart by."""
        ...

    def open(self, where: str) -> ImageInput:
        """The image; `where` is its row, for messages. Raises UserError if it cannot be read."""
        ...


class Store(Protocol):
    """Where rows are kept: in a file, or in memory."""

    folders: Folders | None
    """Where the images that rows name are looked for; None: nobody has said where."""

    def scan(self) -> Iterator[Row | Problem]:
        """All rows in order, each once; afterwards they can be read by number, counted from 0 (problems are counted too)."""
        ...

    def read(self, number: int) -> Row:
        """A row again. Raises UserError if its file has changed."""
        ...

    def where(self, number: int) -> str: ...


class Kept:
    """Rows that a generator makes, kept in memory as bytes: less than objects take, and worker processes share them."""

    def __init__(self, rows: Iterator[Row | Problem], folders: Folders | None = None):
        self.folders = folders
        self._rows: Iterator[Row | Problem] | None = rows
        self._data, self._ends = bytearray(), array("q", [0])
        self._kinds: list[type[Row]] = []
        self._files: dict[str, int] = {}  # beginnings of places, which most rows share

    def scan(self) -> Iterator[Row | Problem]:
        assert self._rows is not None
        for row in self._rows:
            if isinstance(row, Row):
                self._data += pickle.dumps(self._packed(row), protocol=3)
            self._ends.append(len(self._data))
            yield row
        self._rows = None
        self._begins = list(self._files)

    def _packed(self, row: Row) -> tuple[Any, ...]:
        if type(row) not in self._kinds:
            self._kinds.append(type(row))
        file, bracket, place = row.where.rpartition("[")
        values = attrgetter(*_fields_of(type(row)))(row)
        return (self._files.setdefault(file, len(self._files)), bracket + place, self._kinds.index(type(row)), *values)

    def read(self, number: int) -> Row:
        file, place, kind, *values = self._unpacked(number)
        names = _fields_of(self._kinds[kind])
        return self._kinds[kind](where=self._begins[file] + place, **dict(zip(names, values, strict=True)))

    def where(self, number: int) -> str:
        file, place, *_ = self._unpacked(number)
        return self._begins[file] + place

    def _unpacked(self, number: int) -> tuple[Any, ...]:
        return pickle.loads(memoryview(self._data)[self._ends[number] : self._ends[number + 1]])


def _fields_of(kind: type[Row]) -> list[str]:
    """The fields of a kind of row but for its place."""
    if kind not in _FIELDS:
        _FIELDS[kind] = [field.name for field in fields(kind) if field.name != "where"]
    return _FIELDS[kind]


_FIELDS: dict[type[Row], list[str]] = {}


class Indexed:
    """A dataset of rows. Every row is looked at when it is opened; what is wrong with one is told, and it is no sample.

    Args:
        name: what the dataset is called in messages and in the ids of its samples.
        stores: where its rows are.
        missing: what becomes of samples whose image is not there: ``error`` raises when one is drawn, ``skip`` leaves them out.
        wanted: whether a row is taken; raises UserError if it does not say what is asked about.
        task: what rows are used for that name no task.
        captions: of a description with several answers, ``one`` makes a sample of each, ``all`` one sample that has them side
            by side.
        style: what rows leave open.
        placing: whether ``<ImageHere>`` in a question is a place for an image. Otherwise it is text.
    """

    def __init__(
        self,
        name: str,
        stores: Sequence[Store],
        *,
        missing: str = "error",
        wanted: Callable[[Row], bool] | None = None,
        task: str | None = None,
        captions: str = "all",
        style: Style = Style(),
        placing: bool = False,
    ):
        self.name, self.task, self.style, self.placing = name, task, style, placing
        self.missing = choose("missing", missing, ("error", "skip"))
        self.malformed: list[Problem] = []
        """Rows that could not be understood; they are no samples."""
        self.remarks: list[Problem] = []
        """Mistakes in a dataset that it is known to have; samples do without what is wrong."""
        self._stores = list(stores)
        self._starts = [0]  # of each store, the number of its first row
        self._row_of = array("q")  # of each sample, the number of its row
        self._answer_of = array("h")  # and of its answer, or ALL
        owners: dict[str, str] = {}
        self._shared: set[str] = set()
        """Names without their folder that images of different folders would go by: whose they are is not known."""
        number = 0
        for store in self._stores:
            for row in store.scan():
                if isinstance(row, Row):
                    self._note_names(row, owners)
                    self._add(number, row, wanted, captions)
                else:
                    (self.remarks if isinstance(row, Remark) else self.malformed).append(row)
                number += 1
            self._starts.append(number)
        self._kept: Sequence[int] = range(len(self._row_of))
        if self.missing == "skip":
            self._leave_out()

    def _note_names(self, row: Row, owners: dict[str, str]) -> None:
        for name in row.aliases:
            if os.path.basename(row.images[0]) == name and owners.setdefault(name, row.images[0]) != row.images[0]:
                self._shared.add(name)

    def _add(self, number: int, row: Row, wanted: Callable[[Row], bool] | None, captions: str) -> None:
        try:
            if wanted is not None and not wanted(row):
                return
        except UserError as error:
            self.malformed.append(malformed(row.where, error))
            return
        several = isinstance(row, Description) and captions == "one"
        for answer in range(len(row.answers)) if several else (ALL,):  # type: ignore[attr-defined]
            self._row_of.append(number)
            self._answer_of.append(answer)

    def _leave_out(self) -> None:
        count = len(self._row_of)
        self._kept = array("q", (item for item in range(count) if self._absent(item) is None))
        if len(self._kept) < count:
            left = count - len(self._kept)
            log.warning("%s: %d of %d samples are left out, their pictures are missing", self.name, left, count)

    # What a source is (`data.source.Source`) ------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._kept)

    def sample(self, index: int, rng: random.Random) -> Sample:
        item = self._kept[index]
        row, store = self._read(item)
        images = self._images(row, store)
        row = row.seen(images[0] if images else None)
        id = f"{self.name}:{row.id or self._row_of[item]}"
        return row.sample(self._turns(item, row, rng), images, row.as_task(self.task), id, self.placing)

    def images(self, index: int) -> tuple[ImageInput, ...]:
        return self._images(*self._read(self._kept[index]))

    def where(self, index: int) -> str:
        return self._where(self._kept[index])

    def problems(self) -> Iterator[Problem]:
        yield from self.malformed
        yield from self.remarks
        told = None
        for item in range(len(self._row_of)):
            message = self._absent(item)
            if message and (message, where := self._where(item)) != told:  # several samples of one row are told once
                told = (message, where)
                yield Problem(kind="missing picture", where=where, message=message)

    # For checks and evaluation --------------------------------------------------------------------------------------------

    def is_missing(self, index: int) -> bool:
        """Whether an image of a sample is not there."""
        return self._absent(self._kept[index]) is not None

    def outline(self, index: int, seed: int = 0) -> Outline:
        """What a sample says, without looking at its images."""
        item = self._kept[index]
        row, store = self._read(item)
        found = [self._found(image, row, store) for image in row.images]
        keys = [
            image.key if not isinstance(image, str) else str(path or image)
            for image, path in zip(row.images, found, strict=True)
        ]
        turns = self._turns(item, row.seen(found[0] if found else None), random.Random(seed))
        return Outline(turns, tuple(keys), row.says_where(turns, self.placing))

    def rows(self) -> Iterator[Row]:
        """What the files say, in order, without a look for images, which are named as the files name them."""
        for number in dict.fromkeys(self._row_of):
            yield self._read_row(number)[0]

    # ----------------------------------------------------------------------------------------------------------------------

    def _read(self, item: int) -> tuple[Row, Store]:
        return self._read_row(self._row_of[item])

    def _read_row(self, number: int) -> tuple[Row, Store]:
        store, place = self._locate(number)
        return store.read(place), store

    def _locate(self, number: int) -> tuple[Store, int]:
        which = bisect_right(self._starts, number) - 1
        return self._stores[which], number - self._starts[which]

    def _where(self, item: int) -> str:
        store, place = self._locate(self._row_of[item])
        return store.where(place)

    def _turns(self, item: int, row: Row, rng: random.Random) -> tuple[Turn, ...]:
        turns, answer = row.turns(row.as_task(self.task), rng, self.style), self._answer_of[item]
        return turns if answer == ALL else ask(turns[0].question, turns[0].answers[answer])

    def possible(self, image: str, row: Row) -> tuple[str, ...]:
        """The names that an image may have, in the order in which they are tried."""
        others = [name for name in row.aliases if name not in self._shared]
        if row.aliases:  # a published list, whose pictures may have been fetched under COCO's later names
            others += coco_aliases(image)
        return tuple(dict.fromkeys((image, *others)))

    def _found(self, image: str | Stored, row: Row, store: Store) -> Path | None:
        if not isinstance(image, str) or store.folders is None:
            return None
        return store.folders.find(self.possible(image, row))

    def _images(self, row: Row, store: Store) -> tuple[ImageInput, ...]:
        opened: list[ImageInput] = []
        for image in row.images:
            if not isinstance(image, str):
                opened.append(image.open(row.where))
            elif (path := self._found(image, row, store)) is not None:
                opened.append(path)
            else:
                raise UserError(self._lacks(image, row, store))
        return tuple(opened)

    def _absent(self, item: int) -> str | None:
        """What to say of the first image of a sample that is not there, if any is not."""
        try:
            row, store = self._read(item)
        except UserError as error:
            return str(error)
        for image in row.images:
            if isinstance(image, str) and self._found(image, row, store) is None:
                return self._lacks(image, row, store)
        return None

    def _lacks(self, image: str, row: Row, store: Store) -> str:
        if store.folders is None:
            return f"{row.where}: no folder of pictures is given for {image} (images)"
        return f"{row.where}: no picture {' or '.join(self.possible(image, row))} in {', '.join(store.folders.folders)}"
