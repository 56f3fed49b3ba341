"""A benchmark from annotations to a report: read, ask what has not been answered yet, score."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..dialogue.agents import AgentError
from ..errors import UserError
from ..jobs.made_by import BY
from ..jobs.resumable import Load, Watch
from ..prompt.tasks import split_identifier
from .benchmarks.base import Against, Benchmark, Choice, Row
from .benchmarks.registry import BENCHMARKS
from .predict import aligned, answered, predict
from .table import Line, Report

ANSWERS, BLANK = "answers.jsonl", "answers.blank-image.jsonl"
"""The files of answers in a folder that a run writes."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked, and what the answers are set beside.

    Args:
        split: of the annotations; all of them when not given.
        limit: so many questions, always the same ones.
        images: the folder that the annotations' images are in; their own folder when not given.
        predictions: where answers are kept, a file or an existing folder; named after benchmark and annotations when not given.
        blank_image: ask about a grey image as well.
        prior, prior_split: other questions that fixed boxes are fitted to.
        grid: cells a side of the vision encoder.
        identifier: whether questions begin with their task's identifier, where they have one.
    """

    split: str | None = None
    limit: int | None = None
    images: Path | None = None
    predictions: Path | None = None
    blank_image: bool = False
    single_box: bool = False
    things: tuple[str, ...] = ()
    prior: Path | None = None
    prior_split: str | None = None
    grid: int | None = None
    identifier: bool = True


@dataclass
class Measured:
    """What came of it: the report, what must be said beside it, where the answers are, and what could not be asked."""

    report: Any
    file: Path
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def run_benchmark(
    name: str,
    annotations: Path,
    load: Load,
    by: str,
    asked: Asked = Asked(),
    *,
    batch_size: int = 16,
    settings: dict[str, Any] | None = None,
    report: dict[str, Any] | None = None,
    watch: Watch = Watch(),
) -> Measured:
    """Measure a system on a benchmark; answers are kept, and a run goes on where an earlier one stopped.

    Args:
        name: of the benchmark (`benchmarks.registry.BENCHMARKS`).
        load: loads the system; not called if everything is answered.
        by: who answers (`jobs.made_by.signature`); answers by others are refused.
        settings: of decoding, as `Assistant.ask` takes them.
        report: arguments of the benchmark's own report.

    Raises:
        UserError: annotations, images or answers that are not there or not what they should be; before the system is loaded.
    """
    benchmark, settings = BENCHMARKS[name], settings or {}
    benchmark.check(asked)
    if not asked.identifier:
        benchmark = replace(benchmark, question=partial(_without_identifier, benchmark.question))
    images = asked.images or (annotations if annotations.is_dir() else annotations.parent)
    choice = Choice(split=asked.split, single_box=asked.single_box, things=asked.things, images=images)
    rows, unusable = benchmark.rows(annotations, choice)
    if asked.limit and asked.limit < len(rows):
        rows = [rows[i] for i in sorted(random.Random(0).sample(range(len(rows)), asked.limit))]
    if asked.prior_split and not asked.prior:
        raise UserError("--prior-split goes with --prior FILE")
    if asked.prior_split and "split" not in benchmark.takes:
        raise UserError(f"{name}: prior_split would change nothing; leave it out")
    prior = benchmark.rows(asked.prior, replace(choice, split=asked.prior_split))[0] if asked.prior else None
    if not images.is_dir():
        raise UserError(f"{images}: no such folder")

    loaded = cache(load)

    def prepare() -> None:
        system: Any = loaded()
        if benchmark.candidates is not None and hasattr(system, "check_choosing"):
            system.check_choosing(name)  # an endpoint that cannot is refused before it is asked anything

    if benchmark.candidates is not None and settings:
        raise UserError(f"{name} ranks given answers: {', '.join(settings)} would change nothing; leave it out")

    def ask_many(batch: list) -> Sequence[str | UserError]:
        if benchmark.candidates is not None:
            from .ranking import choose

            system: Any = loaded()
            return system.choose(batch) if hasattr(system, "choose") else choose(system, batch)
        return loaded().ask_many(batch, batch_size=batch_size, **settings)

    for message in unusable:
        watch.wrong(message)
    problems: list[str] = [*unusable]

    def answers(file: Path, blank_image: bool) -> list[Row]:
        who = _of_grey(by) if blank_image else by
        try:
            outcome = predict(benchmark, rows, images, file, who, ask_many, batch_size, blank_image, prepare, watch)
        except AgentError as error:
            raise UserError(f"{error}; what was answered is kept in {file}") from None
        if not outcome.answered:
            raise UserError(f"{annotations}: none of the {len(rows):,} questions could be asked (are the images in {images}?)")
        problems.extend(outcome.problems)
        return answered(file, rows)

    part = f"-{asked.split}" if asked.split else ""
    file = asked.predictions or Path(f"{name}-{annotations.stem}{part}.jsonl")
    if file.is_dir():
        file = file / ANSWERS
    done, sightless, notes = answers(file, False), None, [*unusable.remarks]
    if unusable:
        notes.append(f"{len(unusable):,} rows of the annotations cannot be used and were not asked, the first: {unusable[0]}")
    if asked.blank_image:
        sightless = answers(file.with_name(f"{file.stem}.blank-image{file.suffix}"), True)
        done, sightless = aligned(done, sightless)
    if missing := len(rows) - len(done):
        notes.append(f"{missing:,} of {len(rows):,} questions could not be asked and are not scored")
    notes += _unread(benchmark, done)
    against = Against(blank_image=sightless, prior=prior, grid=asked.grid)
    return Measured(benchmark.report(done, against, **report or {}), file, notes, problems)


def _of_grey(by: str) -> str:
    """Who answers about a grey image."""
    return f"{by} blank_image"


def _without_identifier(question: Callable[[Row], str], row: Row) -> str:
    return split_identifier(question(row))[1]


def score_answers(predictions: Path, blank_image: Path | None = None, grid: int | None = None) -> Any:
    """The report of answers that an earlier run kept, without the system and the images.

    Args:
        predictions: a file of answers, or the folder of a run. Answers about a grey image in that folder are set beside where
            they are to all of the kept questions as these were asked; else that line is left out, and a note says why.
        blank_image: answers about a grey image; only questions that both files answer are scored, and a note counts the others.
        grid: cells a side of the vision encoder.

    Raises:
        UserError: answers to several benchmarks, to none, or none in common with those about a grey image.
    """
    benchmark, rows = kept(predictions)
    benchmark.check(Against(grid=grid))
    sightless, notes = None, []
    if blank_image is not None:
        count = len(rows)
        rows, sightless = aligned(rows, answered(blank_image))
        if not rows:
            raise UserError(f"{blank_image}: has no question in common with {predictions}")
        if count > len(rows):
            notes.append(f"{blank_image} answers {len(rows):,} of {count:,} questions; the others are not scored")
        if other := sum(seen.get("prompt") != grey.get("prompt") for seen, grey in zip(rows, sightless, strict=True)):
            notes.append(f"{blank_image}: {other:,} of {len(rows):,} questions were asked in other words there")
    elif predictions.is_dir() and (predictions / BLANK).exists():
        sightless, why = _beside(rows, predictions / BLANK)
        notes += [f"{why}; its line is left out"] if why else []
    report = benchmark.report(rows, Against(blank_image=sightless, grid=grid))
    return replace(report, notes=[*report.notes, *notes, *_unread(benchmark, rows)])


def _beside(rows: Sequence[Row], file: Path) -> tuple[list[Row] | None, str | None]:
    """The answers about a grey image that an earlier run left in a folder, or why they do not belong to these rows."""
    try:
        others = aligned(rows, answered(file, rows))[1]
    except UserError as error:
        return None, str(error)
    if len(others) < len(rows):
        return None, f"{file} answers {len(others):,} of {len(rows):,} questions as they were asked"
    if any(BY in row and other.get(BY) != _of_grey(row[BY]) for row, other in zip(rows, others, strict=True)):
        return None, f"{file} has another system's answers"
    return others, None


def _unread(benchmark: Benchmark, rows: Sequence[Row]) -> list[str]:
    """What is said of answers in which nothing can be read; they count, as wrong ones."""
    unread = [row for row in rows if benchmark.parse(row) is None]
    if not unread:
        return []
    said = " ".join(unread[0]["answer"].split())[:60]
    return [f"{len(unread):,} of {len(rows):,} answers cannot be read, the first about {unread[0]['image']}: {said!r}"]


def compare(a: Path, b: Path) -> Report:
    """Two runs of one benchmark, question by question: the scores of each on the questions that both have answered, and the
    first's less the second's, with an interval of the difference (paired bootstrap: the same images are drawn for both).

    Raises:
        UserError: runs of different benchmarks, or without a question in common.
    """
    (benchmark, rows), (other, others) = kept(a), kept(b)
    if benchmark.name != other.name:
        raise UserError(f"{a} has answers to {benchmark.name}, {b} to {other.name}: they cannot be compared")
    count = len(rows) + len(others)
    rows, others = aligned(rows, others)
    if not rows:
        raise UserError(f"{a} and {b} have no question in common")
    pairs = list(zip(*(benchmark.report(some, Against()).lines for some in (rows, others)), strict=True))
    lines = []
    for one, two in pairs:
        if one.name.rpartition(": ")[2].partition(",")[0] != "model":
            continue
        what = one.name.replace("model", "", 1).strip(", ")
        as_read = one.note if [line.name for line, _ in pairs].count(one.name) > 1 else ""  # two ways to read the same answers
        ahead = {name: score - two.scores[name] for name, score in one.scores.items() if name in two.scores}
        for name, scores in (("A", one.scores), ("B", two.scores), ("A - B", ahead)):
            lines.append(Line(f"{what} {name}".strip(), scores, as_read))
    left = count - 2 * len(rows)
    notes = [f"A: {a} ({rows[0].get(BY)})", f"B: {b} ({others[0].get(BY)})"]
    if left:
        notes.append(f"{left:,} answers to questions that only one of them has are left out")
    return Report(benchmark.name, len(rows), lines, notes)


def kept(predictions: Path) -> tuple[Benchmark, list[Row]]:
    """The benchmark that a file answers, and its rows; of a folder, the file that a run keeps there."""
    rows = answered(predictions / ANSWERS if predictions.is_dir() else predictions)
    names = {row["benchmark"] for row in rows}
    if len(names) > 1 or not names <= set(BENCHMARKS):
        raise UserError(f"{predictions}: answers to {', '.join(sorted(names))}; give those of one benchmark")
    return BENCHMARKS[names.pop()], rows
