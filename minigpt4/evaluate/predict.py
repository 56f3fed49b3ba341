"""Answers of a system to the questions of a benchmark, kept in a file so that they can be scored again without it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from ..errors import UserError
from ..io.jsonl import read_rows
from ..jobs.made_by import BY, EARLIER, IMAGES, PARSED
from ..jobs.resumable import Outcome, Watch, answer_rows
from .benchmarks.base import Benchmark, Row
from .benchmarks.fields import TEXT, fault
from .benchmarks.registry import BENCHMARKS

GREY = (128, 128, 128)
AskMany = Callable[[list], Sequence[str | UserError]]
"""Answers to questions; in place of one that there is no answer to, what is wrong with it."""


def predict(
    benchmark: Benchmark,
    rows: Sequence[Row],
    images: Path,
    file: Path,
    by: str,
    ask_many: AskMany,
    batch_size: int = 16,
    blank_image: bool = False,
    prepare: Callable[[], object] | None = None,
    watch: Watch = Watch(),
) -> Outcome:
    """Answer what `file` does not answer yet.

    Args:
        images: the folder that the rows' pictures are in.
        file: JSON Lines of the rows with ``answer`` and ``by``; continued if it exists.
        by: who answers (`jobs.made_by.signature`).
        ask_many: [([picture], question), ...] -> answers, with the candidates behind where there are any. It is not called if
            nothing is left to answer.
        blank_image: show a grey picture in place of each.
        prepare: called before the first question, if any is left.

    Raises:
        UserError: as `answer_rows`.
    """
    grey = Image.new("RGB", (224, 224), GREY)
    if blank_image:
        ask_many = _once(ask_many)
    items = []
    for row in rows:
        asked: tuple = ([grey if blank_image else images / row["image"]], benchmark.question(row))
        if benchmark.candidates is not None:
            asked = (*asked, tuple(benchmark.candidates(row)))
        items.append((f"{benchmark.name}, {row['image']}", row, asked))
    return answer_rows(items, file, "answer", by, ask_many, batch_size, prepare, watch, benchmark.parse, True)


def _once(ask_many: AskMany) -> AskMany:
    """Asks each question once: about the same picture, its answer is the same."""
    known: dict[tuple, str | UserError] = {}

    def ask(batch: list) -> list[str | UserError]:
        new = {tuple(asked): (images, *asked) for images, *asked in batch if tuple(asked) not in known}
        known.update(zip(new, ask_many(list(new.values())) if new else (), strict=True))
        return [known[tuple(asked)] for _, *asked in batch]

    return ask


def answered(file: Path, rows: Sequence[Row] | None = None) -> list[Row]:
    """The answered rows of a file, in order, each question once: those that answer `rows` if that is given, else those that the
    last run asked for.

    Raises:
        UserError: no such file, a line that is no answered row or lacks what its benchmark scores by, or none left.
    """
    found: dict[str, Row] = {}
    wanted = None if rows is None else {_key(row) for row in rows}
    for number, row in read_rows(file):
        if isinstance(row, UserError):
            raise row
        name = row.get("benchmark")
        if not isinstance(name, str) or "answer" not in row:
            raise UserError(f"{file}:{number}: is no answer to a benchmark's question")
        if name in BENCHMARKS and (wrong := fault(row, {**BENCHMARKS[name].needs, "answer": TEXT})) is not None:
            raise UserError(f"{file}:{number}: {wrong}; answers to {name} are scored by it")
        key = _key(row)
        if EARLIER not in row if wanted is None else key in wanted:
            found.setdefault(key, row)
    if not found:
        raise UserError(f"{file}: no answers in it")
    return list(found.values())


def aligned(rows: Sequence[Row], others: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows that both have answered, in whatever words they were asked, side by side."""
    by_key = {_key(row, "prompt"): row for row in others}
    pairs = [(row, found) for row in rows if (found := by_key.get(_key(row, "prompt"))) is not None]
    return [row for row, _ in pairs], [other for _, other in pairs]


def _key(row: Row, *less: str) -> str:
    return json.dumps({k: v for k, v in row.items() if k not in ("answer", BY, IMAGES, PARSED, EARLIER, *less)}, sort_keys=True)
