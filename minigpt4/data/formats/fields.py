"""Rows of published annotation files: found in the file, read value by value, and named where they are wrong."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ...errors import UserError
from ...prompt.text import clean_text
from ..schema import Row
from ..source import Problem
from ..values import is_number, kind_of, nearest, text_of, texts_of


def choose(option: str, value: Any, allowed: Sequence[Any]) -> Any:
    """The value of an option, which must be one of those allowed."""
    if value not in allowed:
        known = [str(one) for one in allowed]
        raise UserError(f"{option}: {value!r} is none of {', '.join(known)}; {nearest(str(value), known)}")
    return value


class Entry(NamedTuple):
    """Something in an annotation file that should be a row."""

    where: str
    """Its file, and its number or key there."""
    id: str
    value: Any


def listed(data: Any, path: str, expected: str, key: str | None = None) -> Iterator[Entry]:
    """The entries of a list, or of the list that an object has under a key.

    Raises:
        UserError: there is no such list.
    """
    values = data if key is None else data.get(key) if isinstance(data, dict) else None
    if not isinstance(values, list):
        raise UserError(f"{path}: expected {expected}, found {kind_of(data)}")
    return (Entry(f"{path}[{i}]", str(i), value) for i, value in enumerate(values))


def named(data: Any, path: str, expected: str) -> Iterator[Entry]:
    """The entries of an object, by their keys. Raises UserError if it is none."""
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected {expected}, found {kind_of(data)}")
    return (Entry(f"{path}[{key!r}]", key, value) for key, value in data.items())


def each(entries: Iterable[Entry], read: Callable[["Fields"], Iterable[Row | Problem]]) -> Iterator[Row | Problem]:
    """What `read` makes of each entry; of one that it raises UserError for, the problems alone."""
    for where, id, value in entries:
        made: list[Row | Problem] = []
        try:
            made.extend(read(Fields(value, where, id)))  # one by one: what came before an error is kept
        except UserError as error:
            made = [*(one for one in made if isinstance(one, Problem)), malformed(where, error)]
        yield from made


def malformed(where: str, error: UserError) -> Problem:
    """A row that cannot be understood."""
    return Problem(kind="malformed row", where=where, message=str(error))


class Fields:
    """A row of an annotation file whose values are asked for by key and kind; mistakes name the row."""

    def __init__(self, row: Any, where: str, id: str = ""):
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected an object, found {kind_of(row)}")
        self.row, self.where, self.id = row, where, id

    @property
    def place(self) -> dict[str, Any]:
        """Where the row stands, as a row of our schema says it."""
        return {"where": self.where, "id": self.id}

    def __contains__(self, key: str) -> bool:
        return self.row.get(key) is not None

    def text(self, key: str) -> str:
        return text_of(self.row, key, self.where)

    def texts(self, key: str, blank: bool = False) -> tuple[str, ...]:
        return texts_of(self.row, key, self.where, blank)

    def cleaned(self, key: str, text: str | None = None) -> str:
        """A text as the published processor cleans it, of which something must be left."""
        text = clean_text(self.text(key) if text is None else text)
        if not text:
            raise UserError(f'{self.where}: "{key}" has no words in it')
        return text

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


def coco_names(number: str) -> tuple[str, ...]:
    """The names of a COCO picture: as of 2014, which the published datasets use, as of 2017, and as of 2014's other part."""
    padded = number.zfill(12)
    return (f"COCO_train2014_{padded}.jpg", f"{padded}.jpg", f"COCO_val2014_{padded}.jpg")


def coco_aliases(image: str) -> tuple[str, ...]:
    """Other names of a picture that is named, with or without its folder, as COCO's are: those of 2014 and of 2017."""
    folder, name = os.path.split(image)
    if old := re.fullmatch(r"COCO_(?:train|val)2014_(\d{12}\.jpg)", name):
        return tuple(os.path.join(place, old[1]) for place in (("", "train2017", "val2017") if folder else ("",)))
    if re.fullmatch(r"\d{12}\.jpg", name):
        return tuple(f"COCO_{part}2014_{name}" for part in ("train", "val"))
    return ()
