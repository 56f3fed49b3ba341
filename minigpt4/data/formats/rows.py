"""Rows of our own schema as samples, wherever the rows are stored (the schema is in `data.schema`)."""

import json
import random
from abc import abstractmethod
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...io.jsonl import GZIP, other_kind, read_rows
from ...media.images import ImageInput
from ...prompt.boxes import Rounding
from ...prompt.tasks import TASKS
from ..sample import Sample, Turn, ask
from ..schema import DESCRIBE, Description, Row, Style, parse_row
from ..source import Problem
from .base import Items, choose

ALL = -1  # instead of the number of one answer


class RowItems(Items):
    """A dataset of rows of our schema.

    Args:
        split: only rows whose ``split`` is this.
        task: only rows that are of this task, or name none and can serve it; what phrases without a task are used for.
        captions: of a description with several answers, ``one`` makes a sample of each, ``all`` one sample that has them
            side by side.
        prompts: questions for descriptions that name no task, or a file with one a line; ``none`` asks nothing, as
            MiniGPT-4's first stage. The four of its second stage when not given.
        rounding: how box corners go on the grid of 0 to 100.
    """

    def __init__(
        self,
        *,
        name: str,
        missing: str = "error",
        split: str | None = None,
        task: str | None = None,
        captions: str = "one",
        prompts: str | list[str] | None = None,
        rounding: Rounding = "nearest",
    ):
        super().__init__(name, missing)
        self.split = split
        self.task = choose("task", task, (None, *TASKS))
        self.captions = choose("captions", captions, ("one", "all"))
        self.style = Style(prompts=prompts_of(prompts), rounding=choose("rounding", rounding, ("nearest", "truncate")))
        self._row_of = array("q")  # of each sample, the number of its row
        self._answer_of = array("h")  # and of its answer, or ALL

    def _take(self, number: int, raw: Any, where: str, images: tuple[Any, ...] | None = None) -> None:
        """Look at a row while reading through the file: its samples are added, or what is wrong with it."""
        try:
            row = raw if isinstance(raw, UserError) else self._parse(raw, where, images)
            if isinstance(row, UserError):
                raise row
            if not self._selected(row):
                return
        except UserError as error:
            self.malformed.append(Problem(kind="malformed row", where=where, message=str(error)))
            return
        several = isinstance(row, Description) and self.captions == "one"
        for answer in range(len(row.answers)) if several else (ALL,):  # type: ignore[attr-defined]
            self._row_of.append(number)
            self._answer_of.append(answer)

    def _parse(self, raw: Any, where: str, images: tuple[Any, ...] | None = None) -> Row:
        return parse_row(raw, where, images)

    def _selected(self, row: Row) -> bool:
        """Whether the options ask for this row. Raises UserError if the row does not say what they ask about."""
        if self.split is not None:
            if row.split is None:
                raise UserError(f'{row.where}: no "split", but the option split asks for {self.split!r}')
            if row.split != self.split:
                return False
        if not row.can(self.task):
            return False
        row.must_serve(self.task)
        return True

    def _sample(self, item: int, rng: random.Random) -> Sample:
        row = self._row(item)
        turns = self._ask(item, row, rng)
        id = f"{self.name}:{row.id or self._row_of[item]}"
        return row.sample(turns, self._open(item, row), row.as_task(self.task), id)

    def _turns_of(self, item: int, rng: random.Random) -> tuple[Turn, ...]:
        return self._ask(item, self._row(item), rng)

    def _ask(self, item: int, row: Row, rng: random.Random) -> tuple[Turn, ...]:
        turns, answer = row.turns(row.as_task(self.task), rng, self.style), self._answer_of[item]
        return turns if answer == ALL else ask(turns[0].question, turns[0].answers[answer])

    def _images(self, item: int) -> tuple[ImageInput, ...]:
        return self._open(item, self._row(item))

    def _absent(self, item: int) -> str | None:
        return None

    @abstractmethod
    def _row(self, item: int) -> Row:
        """The row of a sample, read again. Raises UserError if the file has changed."""

    @abstractmethod
    def _open(self, item: int, row: Row) -> tuple[ImageInput, ...]:
        """The pictures of a row. Raises UserError if one is missing."""


def prompts_of(given: str | list[str] | None) -> tuple[str, ...]:
    """Questions to draw from: a list, a file with one a line, ``none``, or the default ones.

    A published line begins with the picture's placeholder; ours do not, the picture stands first anyway.
    """
    if given is None:
        return DESCRIBE
    if given == "none":
        return ()
    if isinstance(given, str):
        try:
            given = Path(given).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError):
            raise UserError(f"prompts: {given} cannot be read; expected a list, a file with one a line, or none") from None
    if not isinstance(given, list) or not all(isinstance(line, str) for line in given):
        raise UserError("prompts: expected a list of texts, a file with one a line, or none")
    lines = tuple(line.replace("<Img><ImageHere></Img>", "").strip() for line in given if line.strip())
    if not lines:
        raise UserError("prompts: there are none in it; to ask nothing, write none")
    return lines


class Lines:
    """The lines of a file, by number, without keeping the file in memory: where each begins. Only rows that are no lines of the
    file as it lies on disk (those of an array, or of a packed file) are kept."""

    def __init__(self, path: str):
        self.path = path
        self.starts = array("q")
        self.numbers = array("q")
        self._kept: list[bytes | UserError] | None = None

    def scan(self) -> Iterator[tuple[int, bytes | UserError]]:
        """Numbered lines that are not blank, as they are or with what is wrong with them; remembers where they are.

        Raises:
            UserError: the file cannot be read, or is something else altogether (CSV, UTF-16).
        """
        try:
            with open(self.path, "rb") as file:
                first = file.readline()
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}") from None
        kind = other_kind(first)
        if first.startswith(GZIP) or kind == "array":
            self._kept = []
            for number, row in read_rows(self.path):
                self.numbers.append(number)
                self._kept.append(row if isinstance(row, UserError) else json.dumps(row).encode())
                yield number, self._kept[-1]
            return
        if kind is not None:
            raise UserError(f"{self.path}: {kind}")
        try:
            with open(self.path, "rb") as file:
                start = 0
                for number, line in enumerate(file, 1):
                    if line.strip():
                        self.starts.append(start)
                        self.numbers.append(number)
                        yield number, line
                    start += len(line)
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}") from None

    def read(self, i: int) -> bytes | UserError:
        """Line number `i` of those scanned, counted from 0. The file is opened anew: processes share no position in it."""
        if self._kept is not None:
            return self._kept[i]
        try:
            with open(self.path, "rb") as file:
                file.seek(self.starts[i])
                return file.readline()
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}") from None
