"""What all datasets of known length share: items that may be missing their picture, and rows that may be malformed."""

import logging
import os
import random
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...media.images import ImageInput
from ...prompt.tasks import TASKS
from ..sample import Sample, Turn
from ..schema import Row
from ..source import Problem
from ..values import is_number, kind_of, nearest, text_of, texts_of
from .files import Folders, Paths, files, load_json

log = logging.getLogger(__name__)


def choose(option: str, value: Any, allowed: Sequence[Any]) -> Any:
    """The value of an option, which must be one of those allowed."""
    if value not in allowed:
        known = [str(one) for one in allowed]
        raise UserError(f"{option}: {value!r} is none of {', '.join(known)}; {nearest(str(value), known)}")
    return value


class Items(ABC):
    """A map-style source: numbered items, of which those without a picture may be left out.

    Args:
        name: what the dataset is called in messages and in the ids of its samples.
        missing: what becomes of items whose picture is not there: ``error`` raises when one is drawn, ``skip`` leaves them out.
    """

    def __init__(self, name: str, missing: str):
        self.name = name
        self.missing = choose("missing", missing, ("error", "skip"))
        self.malformed: list[Problem] = []
        """Rows that could not be understood; they are no items."""
        self.remarks: list[Problem] = []
        """Mistakes in a dataset that it is known to have; samples do without what is wrong."""
        self._kept: Sequence[int] = ()

    def _settle(self, count: int) -> None:
        """Called when all items are known: decide which are kept."""
        self._count = count
        self._kept = range(count)
        if self.missing == "skip":
            self._kept = array("q", (i for i in range(count) if not self._absent(i)))
            if len(self._kept) < count:
                log.warning(
                    "%s: %d of %d samples are left out, their pictures are missing", self.name, count - len(self), count
                )

    def __len__(self) -> int:
        return len(self._kept)

    def sample(self, index: int, rng: random.Random) -> Sample:
        return self._sample(self._kept[index], rng)

    def images(self, index: int) -> tuple[ImageInput, ...]:
        return self._images(self._kept[index])

    def where(self, index: int) -> str:
        return self._where(self._kept[index])

    def is_missing(self, index: int) -> bool:
        """Whether a picture of a sample is not there."""
        return self._absent(self._kept[index]) is not None

    def outline(self, index: int, seed: int = 0) -> tuple[tuple[Turn, ...], tuple[str, ...]]:
        """What a sample asks and answers, and by what its pictures are told apart, without looking at them."""
        item = self._kept[index]
        return self._turns_of(item, random.Random(seed)), self._keys(item)

    def problems(self) -> Iterator[Problem]:
        yield from self.malformed
        yield from self.remarks
        told = None
        for item in range(self._count):
            message = self._absent(item)
            where = self._where(item)
            if message and (message, where) != told:  # several samples of one row are told once
                told = (message, where)
                yield Problem(kind="missing picture", where=where, message=message)

    @abstractmethod
    def _sample(self, item: int, rng: random.Random) -> Sample: ...

    @abstractmethod
    def _turns_of(self, item: int, rng: random.Random) -> tuple[Turn, ...]: ...

    @abstractmethod
    def _images(self, item: int) -> tuple[ImageInput, ...]: ...

    @abstractmethod
    def _keys(self, item: int) -> tuple[str, ...]:
        """A name for each picture of an item, whether it is there or not."""

    @abstractmethod
    def _where(self, item: int) -> str: ...

    @abstractmethod
    def _absent(self, item: int) -> str | None:
        """What to say of the first picture of an item that is not there, if any is not."""


class Fields:
    """A row of an annotation file whose values are asked for by key and kind; mistakes name the row."""

    def __init__(self, row: Any, where: str):
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected an object, found {kind_of(row)}")
        self.row, self.where = row, where

    def __contains__(self, key: str) -> bool:
        return self.row.get(key) is not None

    def text(self, key: str) -> str:
        return text_of(self.row, key, self.where)

    def texts(self, key: str, blank: bool = False) -> tuple[str, ...]:
        return texts_of(self.row, key, self.where, blank)

    def code(self, key: str) -> str:
        """Something that identifies: text or a whole number."""
        value = self.row.get(key)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise UserError(f'{self.where}: "{key}" must be text or a whole number, found {kind_of(value)}')
        return str(value)

    def number(self, key: str) -> float:
        value = self.row.get(key)
        if not is_number(value):
            raise UserError(f'{self.where}: "{key}" must be a number, found {kind_of(value)}')
        return value

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        values = self.row.get(key)
        if not isinstance(values, list) or len(values) != count or not all(map(is_number, values)):
            raise UserError(f'{self.where}: "{key}" must be {count} numbers, found {kind_of(values)}')
        return tuple(values)

    def rows(self, key: str) -> list["Fields"]:
        """The objects in a list."""
        values = self.row.get(key)
        if not isinstance(values, list):
            raise UserError(f'{self.where}: "{key}" must be a list, found {kind_of(values)}')
        return [Fields(value, f"{self.where}.{key}[{i}]") for i, value in enumerate(values)]


class Annotated(Items):
    """A published dataset: annotation files that are read whole, and at most one picture a sample.

    A subclass says how a row is read (`_read`), where its picture may lie (`_names`) and what is asked and answered
    (`_turns`). The items it reads are tuples.

    Args:
        annotations: the annotation file, or several.
        images: the folder of the pictures, or several that are tried in order.
    """

    task: str | None = None
    """The task all samples are of."""
    expected = "a JSON file with a list of rows"
    """What an annotation file is, for messages."""
    _container: Any = list
    """What the items are kept in: anything that can be appended to and indexed."""

    def __init__(self, *, name: str, annotations: Paths, images: Paths | None = None, missing: str = "error"):
        super().__init__(name, missing)
        self._folders = Folders(images) if images is not None else None
        self._files = files(annotations, "annotations", self.expected)
        self._items: Any = self._container()
        self._origin = array("l")  # of each item, the number of its file
        self._row: list[int | str] = []  # and its row there
        for number, path in enumerate(self._files):
            for row, value in self._rows(self._load(path), path):
                for item in self._understood(value, self._place(path, row)):
                    self._items.append(item)
                    self._origin.append(number)
                    self._row.append(row)
        self._arrange()
        self._shared = self._shared_names()
        self._settle(len(self._items))

    def _understood(self, value: Any, where: str) -> list[tuple]:
        """The items of a row; of a malformed row none, but a problem."""
        try:
            return list(self._read(Fields(value, where)))
        except UserError as error:
            self.malformed.append(Problem(kind="malformed row", where=where, message=str(error)))
            return []

    def _load(self, path: str) -> Any:
        """A file's contents."""
        return load_json(path)

    def _arrange(self) -> None:
        """Called when all rows are read: a place to put items together."""

    def _place(self, path: str, row: int | str) -> str:
        """Where a row stands, for messages."""
        return f"{path}[{row}]" if isinstance(row, int) else f"{path}[{row!r}]"

    def _rows(self, data: Any, path: str) -> Iterable[tuple[int | str, Any]]:
        """Numbered or named rows of a file's contents."""
        if not isinstance(data, list):
            raise UserError(f"{path}: expected {self.expected}, found {kind_of(data)}")
        return enumerate(data)

    @abstractmethod
    def _read(self, row: Fields) -> Iterable[tuple]:
        """The items of a row: none if it is of another split. Raises UserError if it is malformed."""

    @abstractmethod
    def _names(self, item: tuple) -> tuple[str, ...]:
        """Names the item's picture may have, in the order in which they are tried; none for text alone.

        What a row names itself is the first. The others are the same picture as it is called where its folder was left out, or
        another year.
        """

    def _shared_names(self) -> frozenset[str]:
        """Names without their folder that several pictures of different folders would go by: whose they are is not known."""
        owner: dict[str, str] = {}
        shared = set()
        for item in self._items:
            first, *others = self._names(item) or ("",)
            for name in others:
                if os.path.basename(first) == name and owner.setdefault(name, first) != first:
                    shared.add(name)
        return frozenset(shared)

    def _possible(self, content: tuple) -> tuple[str, ...]:
        names = self._names(content)
        return tuple(name for i, name in enumerate(names) if not i or name not in self._shared)

    @abstractmethod
    def _turns(self, item: tuple, image: Path | None, rng: random.Random) -> tuple[Turn, ...]: ...

    def _placed(self, item: tuple) -> bool:
        """Whether questions of the item say with placeholders where its picture stands."""
        return False

    def _extra(self, item: tuple, image: Path | None) -> dict[str, Any]:
        """What evaluation may want to know."""
        return {}

    def rows(self) -> Iterator[Row]:
        """What the files say, as rows of our schema in order, without a look for images: for evaluation. An image is named as
        the files name it."""
        for item in range(self._count):
            yield self._as_row(self._items[item], self._where(item))

    def _as_row(self, item: tuple, where: str) -> Row:
        raise UserError(f"{where}: rows of this format are for training alone")

    def _sample(self, item: int, rng: random.Random) -> Sample:
        images = self._images(item)
        return Sample(
            turns=self._turns_of(item, rng),
            images=images,
            task=self.task,
            id=f"{self.name}:{self._row[item]}",
            placed=self._placed(self._items[item]),
            extra=self._extra(self._items[item], images[0] if images else None),
        )

    def _turns_of(self, item: int, rng: random.Random) -> tuple[Turn, ...]:
        content = self._items[item]
        names = self._possible(content)
        return self._turns(content, self._folders.find(names) if names and self._folders else None, rng)

    def _keys(self, item: int) -> tuple[str, ...]:
        names = self._possible(self._items[item])
        return (str((self._folders and self._folders.find(names)) or names[0]),) if names else ()

    def _images(self, item: int) -> tuple[Path, ...]:
        names = self._possible(self._items[item])
        if not names:
            return ()
        found = self._folders.find(names) if self._folders else None
        if found is None:
            raise UserError(self._lacks(item, names))
        return (found,)

    def _where(self, item: int) -> str:
        return self._place(self._files[self._origin[item]], self._row[item])

    def _absent(self, item: int) -> str | None:
        names = self._possible(self._items[item])
        if not names or (self._folders and self._folders.find(names)):
            return None
        return self._lacks(item, names)

    def _lacks(self, item: int, names: tuple[str, ...]) -> str:
        if self._folders is None:
            return f"{self._where(item)}: no folder of pictures is given for {names[0]} (images)"
        return f"{self._where(item)}: no picture {' or '.join(names)} in {', '.join(self._folders.folders)}"


def coco_names(number: str) -> tuple[str, ...]:
    """The names of a COCO picture: as of 2014, which the published datasets use, and as of 2017."""
    padded = number.zfill(12)
    return (f"COCO_train2014_{padded}.jpg", f"{padded}.jpg")


def instruct(task: str, subject: str, rng: random.Random) -> str:
    """The instruction of a task, worded at random."""
    return TASKS[task].instruction(subject, rng)
