"""Many benchmarks at once: what is there to be asked in a folder, one run after the other, and one report of all.

Each benchmark keeps its answers in a folder of its own, so that a suite that was stopped goes on, and a single benchmark of it
can be scored and compared by itself.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..io.atomic import saying, write_text
from ..io.yaml_file import read_yaml
from ..jobs.resumable import Load, Watch
from .benchmarks.advanced import QUESTIONS
from .benchmarks.base import Row
from .benchmarks.registry import BENCHMARKS, OFFICIAL
from .run import ANSWERS, Asked, Measured, kept, run_benchmark

_OWN = (".jsonl", ".json")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One benchmark of a suite.

    Args:
        name: what it is called in the report; its folder has this name.
        data: its official folder, or annotations as its own command takes.
        images, split, limit, single_box, things, prior, prior_split, grid: as in `run.Asked`.
    """

    name: str
    benchmark: str
    data: Path
    images: Path | None = None
    split: str | None = None
    limit: int | None = None
    single_box: bool = False
    things: tuple[str, ...] = ()
    prior: Path | None = None
    prior_split: str | None = None
    grid: int | None = None
    blank_image: bool | None = None
    """Whether to ask about a grey picture as well; as the suite does, where not given."""


@dataclass
class Part:
    """What came of one benchmark: its report and its answers, or why there are none."""

    wanted: Wanted
    report: Any = None
    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    failed: str | None = None


_KINDS: dict[str, type] = {"benchmark": str, "data": str, "images": str, "split": str, "limit": int, "single_box": bool}
_KINDS |= {"things": list, "prior": str, "prior_split": str, "grid": int, "blank_image": bool}
_PATHS = ("data", "images", "prior")


def find(place: Path) -> list[Wanted]:
    """The benchmarks whose data is there.

    Args:
        place: a folder: official data is looked for in it and in a folder of it with the benchmark's name, annotations of one's
            own under the benchmark's name (``vqa.jsonl``). Or a YAML file that names them:
            ``{NAME: {benchmark: ..., data: ..., limit: ...}}``; paths are relative to it, and `benchmark` is the name where not
            given.

    Raises:
        UserError: nothing is there, or a file that is not what it should be.
    """
    if place.is_dir():
        found = [Wanted(name=name, benchmark=name, data=data) for name in BENCHMARKS if (data := _data_of(name, place))]
        if not found:
            raise UserError(
                f"{place}: no benchmark's data is there; `minigpt4 evaluate prepare NAME --data {place}` tells what is wanted"
            )
        return found
    given = read_yaml(place)
    if not isinstance(given, dict) or not given:
        raise UserError(f"{place}: expected benchmarks by name, like `pope: {{data: coco, limit: 500}}`")
    return [_wanted(name, entry, place) for name, entry in given.items()]


def _data_of(name: str, folder: Path) -> Path | None:
    if name in OFFICIAL:
        files = OFFICIAL[name].files
        for place in (folder / name, folder):
            there = [file for file in files if file.find(place)]
            if there and all(file in there for file in files if file.needed):
                return place
        return None
    places = (folder / f"{name}{ending}" for ending in _OWN)
    if (own := next((place for place in places if place.is_file()), None)) is not None:
        return own
    place = folder / name
    parts = [(part,) for part in QUESTIONS] if name == "advanced" else [("Annotations", "Sentences")]
    return place if any(all((place / each).is_dir() for each in some) for some in parts) else None


def _wanted(name: Any, entry: Any, file: Path) -> Wanted:
    where = f"{file}: {name}"
    if not isinstance(name, str) or not name.strip() or "/" in name or name.startswith("."):
        raise UserError(f"{where}: a benchmark's name must be text that a folder can be called by")
    entry = {"data": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict) or "data" not in entry:
        raise UserError(f"{where}: expected the data, or {{data: ..., limit: ...}}")
    for key, value in entry.items():
        if key not in _KINDS:
            raise UserError(f"{where}: unknown key {key!r}; there are {', '.join(_KINDS)}")
        if type(value) is not _KINDS[key]:
            raise UserError(f"{where}: {key} must be {_KINDS[key].__name__}, found {value!r}")
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise UserError(f"{where}: {key} must be at least 1, found {value!r}")
    benchmark = entry.get("benchmark", name)
    if benchmark not in BENCHMARKS:
        raise UserError(f"{where}: no benchmark {benchmark!r}; there are {', '.join(BENCHMARKS)}")
    values = {key: file.parent / value if key in _PATHS else value for key, value in entry.items()}
    return Wanted(**{"name": name, "benchmark": benchmark} | values | {"things": tuple(map(str, entry.get("things", ())))})


def run_suite(
    wanted: Sequence[Wanted],
    output: Path,
    load: Load,
    by: str,
    *,
    limit: int | None = None,
    blank_image: bool = False,
    batch_size: int = 16,
    settings: dict[str, Any] | None = None,
    watch: Callable[[str], Watch] = lambda name: Watch(),
) -> list[Part]:
    """Measure a system on all of them. What cannot be measured says why, and takes nothing else with it.

    Args:
        output: gets a folder for each, with its answers and its ``report.json``.
        load, by, settings: as in `run.run_benchmark`; where nothing is written, settings of decoding are left out.
        limit: questions of each benchmark that has no limit of its own.
        watch: who looks on while a benchmark is asked.
    """
    load = cache(load)  # one system for all
    parts = []
    for one in wanted:
        part = Part(one)
        parts.append(part)
        folder = output / one.name
        try:
            with saying(folder):
                folder.mkdir(parents=True, exist_ok=True)
            measured = _run(one, folder, load, by, limit, blank_image, batch_size, settings or {}, watch(one.name))
        except UserError as error:
            part.failed = str(error)
            continue
        part.report = replace(measured.report, benchmark=one.name, notes=[*measured.report.notes, *measured.notes])
        part.rows = kept(folder)[1]
        part.problems = measured.problems
        write_text(folder / "report.json", json.dumps(part.report.as_dict(), ensure_ascii=False, indent=1) + "\n")
    return parts


def _run(
    one: Wanted,
    folder: Path,
    load: Load,
    by: str,
    limit: int | None,
    blank_image: bool,
    batch_size: int,
    settings: dict[str, Any],
    watch: Watch,
) -> Measured:
    same = {f.name for f in fields(Asked)} & {f.name for f in fields(Wanted)}
    given = {name: getattr(one, name) for name in same} | {"limit": one.limit or limit}
    if one.blank_image is None:
        given["blank_image"] = blank_image and "blank_image" in BENCHMARKS[one.benchmark].takes
    asked = Asked(**given, predictions=folder / ANSWERS)
    settings = {} if BENCHMARKS[one.benchmark].candidates is not None else settings
    return run_benchmark(one.benchmark, one.data, load, by, asked, batch_size=batch_size, settings=settings, watch=watch)
