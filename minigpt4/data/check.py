"""Looking at datasets before they are trained on: what there is, what is missing, and what is broken."""

import hashlib
import json
import os
import random
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice, pairwise
from typing import Any, Literal

import numpy as np

from ..errors import UserError
from ..media.images import open_image
from .formats import open_source
from .formats.index import Indexed
from .formats.streams import Stream
from .group import STREAMED, why_not_together
from .source import Problem, Source, StreamSource

Dataset = Source | StreamSource | tuple[str, Mapping[str, Any]]
"""A dataset, or its format and options: then it is opened here, and what is wrong with it is told instead of raised."""
OpenImages = int | Literal["all"]
Progress = Callable[[str, int, int | None], object]
"""(What is looked at, how many of it are done, of how many if that is known.)"""

KEPT = 1000  # problems of one kind in one dataset that are told one by one; the others are counted


@dataclass(kw_only=True)
class DatasetReport:
    """What was found in one dataset."""

    name: str
    format: str
    samples: int = 0
    images: int = 0
    """Different ones, missing ones included; of a stream, which are not told apart, those of whole records."""
    opened: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Problems by kind."""
    problems: list[Problem] = field(default_factory=list)
    """The first `KEPT` of each kind."""

    def add(self, problem: Problem) -> None:
        self.counts[problem.kind] += 1
        if self.counts[problem.kind] <= KEPT:
            self.problems.append(problem)


@dataclass(kw_only=True)
class Report:
    """What was found in all datasets."""

    datasets: list[DatasetReport]

    @property
    def ok(self) -> bool:
        """Whether nothing is missing or broken; duplicates are told, but harm nobody."""
        return not any(kind != "duplicate" for one in self.datasets for kind in one.counts)

    def to_json(self) -> str:
        rows = [asdict(one) | {"counts": dict(one.counts)} for one in self.datasets]
        text = json.dumps({"ok": self.ok, "datasets": rows}, ensure_ascii=False, indent=1)
        return text.encode(errors="backslashreplace").decode()  # names of files need not be text

    @property
    def problems(self) -> list[Problem]:
        """Those of all datasets."""
        return [problem for one in self.datasets for problem in one.problems]


def check(
    datasets: Sequence[Dataset],
    open_images: OpenImages = 100,
    held_out: Sequence[Dataset] = (),
    together: Collection[int] = (),
    progress: Progress | None = None,
) -> Report:
    """Count samples and pictures, and list what is missing, broken or there twice.

    Args:
        datasets: what is trained on.
        open_images: how many pictures of each dataset to open, evenly spread, or ``all``.
        held_out: what is validated on; pictures that are trained on too are told.
        together: numbers of the datasets, those held out counted on, whose samples share their image (`Together`).
        progress: told how far it is.
    """
    reports = []
    trained: set[str] = set()
    for number, dataset in enumerate([*datasets, *held_out]):
        source, report = _open(dataset)
        reports.append(report)
        if source is None:
            continue
        if isinstance(source, Stream):
            if number in together:
                report.add(Problem(kind="not for together", where=report.name, message=f"{report.name}: {STREAMED}"))
            _check_stream(source, report, open_images, progress)
        elif isinstance(source, Indexed):
            images = _check_indexed(source, report, open_images, number in together, progress)
            if number < len(datasets):
                trained |= set(map(os.path.realpath, images))
            else:
                for key, index in images.items():
                    if os.path.realpath(key) not in trained:  # one file may be named in several ways
                        continue
                    where = source.where(index)
                    report.add(Problem(kind="also trained on", where=where, message=f"{where}: {key} is also trained on"))
        else:
            raise TypeError(f"cannot check a {type(source).__name__}")
    return Report(datasets=reports)


def _open(dataset: Dataset) -> tuple[Source | StreamSource | None, DatasetReport]:
    if not isinstance(dataset, tuple):
        return dataset, DatasetReport(name=dataset.name, format=type(dataset).__name__)
    format, options = dataset[0], {key: value for key, value in dataset[1].items() if key != "malformed"}
    report = DatasetReport(name=str(options.get("name", format)), format=format)
    try:
        return open_source(format, **options), report
    except UserError as error:
        report.add(Problem(kind="unreadable", where=format, message=str(error)))
        return None, report


def _check_indexed(
    source: Indexed, report: DatasetReport, open_images: OpenImages, together: bool, progress: Progress | None
) -> dict[str, int]:
    """Fills the report; returns the pictures, each with the first sample that has it."""
    report.samples = len(source)
    images: dict[str, int] = {}
    digests = array("Q")
    for problem in source.problems():
        report.add(problem)
    for index in _told(range(len(source)), source.name, progress):
        try:
            said, keys, placed = source.outline(index)
            content = repr((said, source.outline(index, seed=1).turns, keys))  # twice: answers of several people are drawn
            if together and (refused := why_not_together(said, placed)):
                where = source.where(index)
                report.add(Problem(kind="not for together", where=where, message=f"{where}: {refused}"))
        except UserError as error:
            if not source.is_missing(index):
                report.add(Problem(kind="malformed row", where=source.where(index), message=str(error)))
            keys, content = (), f"{index}"
        digests.append(int.from_bytes(hashlib.blake2b(content.encode(errors="replace"), digest_size=8).digest(), "little"))
        for key in keys:
            images.setdefault(key, index)
    report.images = len(images)
    for first, again in _equal(digests):
        where = source.where(again)
        message = f"{where}: says the same of the same picture as {source.where(first)}"
        report.add(Problem(kind="duplicate", where=where, message=message))
    _look(source, report, list(dict.fromkeys(images.values())), open_images, progress)
    return images


def _look(
    source: Indexed, report: DatasetReport, indices: list[int], open_images: OpenImages, progress: Progress | None
) -> None:
    """Open pictures: of each sample listed, evenly spread, until there were as many as wanted."""
    indices = [index for index in indices if not source.is_missing(index)]
    wanted = len(indices) if open_images == "all" else min(open_images, len(indices))
    chosen = [indices[i * len(indices) // wanted] for i in range(wanted)]

    def look(index: int) -> list[str] | UserError:
        try:
            return [_digest(open_image(image)) for image in source.images(index)]
        except UserError as error:
            return error

    seen: dict[str, int] = {}
    with ThreadPoolExecutor() as pool:  # decoding a JPEG lets other threads run
        for index, found in zip(chosen, _told(pool.map(look, chosen), source.name, progress, wanted), strict=True):
            where = source.where(index)
            if isinstance(found, UserError):
                report.opened += 1
                message = str(found) if str(found).startswith(where) else f"{where}: {found}"
                report.add(Problem(kind="broken picture", where=where, message=message))
                continue
            report.opened += len(found)
            for digest in found:
                first = seen.setdefault(digest, index)
                if first != index:
                    message = f"{where}: the same picture as at {source.where(first)}, under another name"
                    report.add(Problem(kind="duplicate", where=where, message=message))


def _digest(image: Any) -> str:
    return hashlib.blake2b(image.tobytes() + repr(image.size).encode(), digest_size=16).hexdigest()


def _check_stream(source: Stream, report: DatasetReport, open_images: OpenImages, progress: Progress | None) -> None:
    for problem in _told(source.survey(), source.name, progress):
        if problem is None:
            report.samples += 1
        else:
            report.add(problem)
    report.images = report.samples
    each = None if open_images == "all" else -(-open_images // len(source.shards))
    for shard in source.shards:
        if each is not None and report.opened >= int(open_images):
            break
        try:
            for record in islice(source.records(shard), each):
                try:
                    report.opened += len(source.sample(record, random.Random(0)).images)
                except UserError as error:
                    if source.is_whole(record):  # otherwise it was told before
                        report.opened += 1
                        report.add(Problem(kind="broken picture", where=record.where, message=str(error)))
        except UserError:  # the shard is broken, which was told before
            continue


def _equal(digests: array) -> list[tuple[int, int]]:
    """Pairs of the first index with some digest and a later one with the same, in the order of the later ones."""
    values = np.frombuffer(digests, dtype=np.uint64)
    order = np.argsort(values, kind="stable")
    pairs: list[tuple[int, int]] = []
    first = None
    for before, after in pairwise(order.tolist()):
        if values[before] != values[after]:
            first = None
            continue
        first = before if first is None else first
        pairs.append((first, after))
    return sorted(pairs, key=lambda pair: pair[1])


def _told(items: Iterable[Any], name: str, progress: Progress | None, total: int | None = None) -> Iterator[Any]:
    """The items; `progress` hears how many are done, every hundred of them."""
    if total is None and isinstance(items, Sequence):
        total = len(items)
    for done, item in enumerate(items):
        if progress is not None and done % 100 == 0:
            progress(name, done, total)
        yield item
    if progress is not None and total is not None:
        progress(name, total, total)
