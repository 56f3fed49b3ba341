"""What every benchmark has: questions made of annotations, and a report made of answers."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...prompt.boxes import Box
from ..annotations import Problems
from .fields import Kind, fault

Row = dict[str, Any]
"""A question with its truth, and once it is answered with ``answer``; see docs/pointing.md for each benchmark's keys."""


OPTIONS = ("split", "single_box", "things", "prior", "grid", "blank_image")
"""What may be asked of some benchmarks and not of others (`run.Asked`)."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of the annotations is asked."""

    split: str | None = None
    single_box: bool = False
    """Only phrases that mean one box."""
    things: tuple[str, ...] = ()
    """In place of the annotated phrases: for each of these words, all things of that kind or name."""
    images: Path | None = None
    """The folder of images, where it is known: of the names that a published list may mean, the one that is there is taken."""


@dataclass(frozen=True, kw_only=True)
class Against:
    """What a report sets beside the model."""

    blank_image: Sequence[Row] | None = None
    """The same questions, answered by the same model about a grey picture."""
    prior: Sequence[Row] | None = None
    """Other questions (of a training part) that fixed boxes are fitted to; the questions themselves where not given, which
    flatters those baselines."""
    grid: int | None = None
    """Cells a side of the vision encoder, for the best that such a grid can do."""


@dataclass(frozen=True, kw_only=True)
class File:
    """A file or folder that a benchmark's data has.

    Args:
        names: what it may be called, the official name first.
        source: where it comes from.
        needed: whether there is nothing to ask without it.
    """

    names: tuple[str, ...]
    source: str
    needed: bool = True

    def find(self, folder: Path) -> Path | None:
        """Where it is, if it is there."""
        return next((folder / name for name in self.names if (folder / name).exists()), None)

    def the(self, folder: Path) -> Path:
        """Where it is. Raises UserError if it is not there."""
        found = self.find(folder)
        if found is None:
            raise UserError(f"{folder / self.names[0]}: no such file; it comes from {self.source}")
        return found


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark: annotations -> rows -> answers -> report."""

    name: str
    read: Callable[[Path, Choice, Problems], list[Row]]
    """Annotations -> rows; what is wrong with those that cannot be used is noted."""
    question: Callable[[Row], str]
    report: Callable[..., Any]
    """(Answered rows, `Against`) -> report."""
    needs: Mapping[str, Kind]
    """The fields that a row has beside its image."""
    takes: frozenset[str]
    """Of `OPTIONS`, those that mean something to it; others are refused."""
    parse: Callable[[Row], Any]
    """What an answered row's answer says, for JSON; None where nothing can be read in it. It stands beside the answer."""
    candidates: Callable[[Row], list[str]] | None = None
    """The answers to choose from by their likelihood, where nothing is written."""
    files: tuple[File, ...] = ()
    """What a folder of the official data has; `read` takes the folder then, and images are named from there."""
    images: File | None = None
    """The folder of images in it."""

    def check(self, asked: Any) -> None:
        """See that everything that is asked for means something to it.

        Args:
            asked: has `OPTIONS` as attributes, or some of them.

        Raises:
            UserError: an option that would change nothing.
        """
        for name in OPTIONS:
            if getattr(asked, name, None) and name not in self.takes:
                raise UserError(f"{self.name}: {name} would change nothing; leave it out")

    def rows(self, path: Path, choice: Choice = Choice()) -> tuple[list[Row], Problems]:
        """The questions in annotations, each with its prompt, no two the same; and what is wrong with rows that cannot be used.

        Raises:
            UserError: not a layout that is known, or nothing to ask for in it.
        """
        if not path.exists():
            raise UserError(f"{path}: no such file")
        problems = Problems()
        rows = []
        for row in self.read(path, choice, problems):
            if (wrong := fault(row, self.needs)) is None:
                rows.append(row)
            else:
                problems.append(f"{path}: a row about {row.get('image')}: {wrong}")
        if not rows:
            raise UserError(next(iter([*problems, *problems.remarks]), f"{path}: nothing to ask for in it"))
        seen: Counter[str] = Counter()
        for row in rows:
            key = json.dumps(row, sort_keys=True)
            seen[key] += 1
            if seen[key] > 1:  # two people said the same of a picture: both count, and are told apart
                row["again"] = seen[key]
            row["prompt"] = self.question(row)
        return rows, problems


def image_in(folder: Path, images: File, *names: str) -> str:
    """The first of several names that an image has in a folder of data, from there; the first of all where there is none.
    A name from the root of the disk stays as it is."""
    place = images.find(folder) or folder / images.names[0]
    found = place / next((name for name in names if _is_there(place / name)), names[0])
    return str(found.relative_to(folder) if found.is_relative_to(folder) else found)


def _is_there(file: Path) -> bool:
    try:
        return file.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def new_row(benchmark: str, image: str, size: tuple[float, float] | None = None, **truth: Any) -> Row:
    """A question without its answer."""
    sizes = {} if size is None else {"width": size[0], "height": size[1]}
    return {"benchmark": benchmark, "image": image, **truth, **sizes}


def boxes_to_row(boxes: Sequence[Box]) -> list[list[float]]:
    return [list(box) for box in boxes]


def boxes_of(row: Row) -> list[Box]:
    """The true boxes of a row."""
    try:
        return [Box(*box) for box in row["boxes"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"a row about {row.get('image')} has no boxes as it should ({error!r})") from None
