"""Answers of a system to the questions of a benchmark, kept in a file so that they can be scored again without it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import UserError
from ..io.jsonl import Output, read_rows
from ..jobs.resumable import Outcome, Watch, answer_rows
from .benchmarks.base import Benchmark, Row

GREY = (128, 128, 128)


def predict(
    benchmark: Benchmark,
    rows: Sequence[Row],
    images: Path,
    file: Path,
    by: str,
    ask_many: Callable[[list], Sequence[str]],
    batch_size: int = 16,
    blank_image: bool = False,
    prepare: Callable[[], object] | None = None,
    watch: Watch = Watch(),
) -> Outcome:
    """Answer what `file` does not answer yet.

    Args:
        images: the folder that the rows' pictures are in.
        file: JSON Lines of the rows with ``answer`` and ``by``; continued if it exists.
        by: who answers; a file by another is refused.
        ask_many: [([picture], question), ...] -> answers. It is not called if nothing is left to answer.
        blank_image: show a grey picture in place of each.
        prepare: called before the first question, if any is left.

    Raises:
        UserError: `file` holds answers by somebody else.
    """
    output = Output(file, "answer")
    for other in output.rows:
        if other.get("by") != by:
            raise UserError(f"{file}: holds answers by {other.get('by')}, not by {by}; name another file, or remove it")
    signed = [row | {"by": by} for row in rows]
    grey = Image.new("RGB", (224, 224), GREY)
    if blank_image:
        ask_many = _once(ask_many)
    items = [
        (f"{benchmark.name}, {row['image']}", row, ([grey if blank_image else images / row["image"]], benchmark.question(row)))
        for row in signed
    ]
    return answer_rows(iter(items), signed, output, "answer", ask_many, batch_size, prepare, watch)


def _once(ask_many: Callable[[list], Sequence[str]]) -> Callable[[list], Sequence[str]]:
    """Asks each question once: about the same picture, its answer is the same."""
    known: dict[str, str] = {}

    def ask(batch: list) -> list[str]:
        new = {question: (images, question) for images, question in batch if question not in known}
        known.update(zip(new, ask_many(list(new.values())) if new else (), strict=True))
        return [known[question] for _, question in batch]

    return ask


def answered(file: Path, rows: Sequence[Row] | None = None) -> list[Row]:
    """The answered rows of a file, in order; only those that answer `rows` if that is given.

    Raises:
        UserError: no such file, a line that is no answered row, or none left.
    """
    found = []
    wanted = None if rows is None else {_key(row) for row in rows}
    for number, row in read_rows(file):
        if isinstance(row, UserError):
            raise row
        if "benchmark" not in row or not isinstance(row.get("answer"), str):
            raise UserError(f"{file}:{number}: is no answer to a benchmark's question")
        if wanted is None or _key(row) in wanted:
            found.append(row)
    if not found:
        raise UserError(f"{file}: no answers in it")
    return found


def aligned(rows: Sequence[Row], others: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows that both have answered, side by side."""
    by_key: dict[str, list[Row]] = {}
    for row in others:
        by_key.setdefault(_key(row), []).append(row)
    pairs = [(row, by_key[_key(row)].pop(0)) for row in rows if by_key.get(_key(row))]
    return [row for row, _ in pairs], [other for _, other in pairs]


def _key(row: Row) -> str:
    return json.dumps({k: v for k, v in row.items() if k not in ("answer", "by")}, sort_keys=True)


def signature(model: str, generation: dict[str, Any], folder: Path | None, blank_image: bool = False) -> str:
    """Who answers: the system's name, a fingerprint of its weights where they lie here, and how it decodes."""
    name = model if folder is None else f"{model}@{_fingerprint(folder)}"
    settings = [f"{key}={value}" for key, value in sorted(generation.items())]
    return " ".join([name, *settings, *(["blank_image"] if blank_image else [])])


def _fingerprint(folder: Path) -> str:
    """Of the ends of every file of weights, which differ whenever training has gone on."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob("*config.json")]):
        size, span = path.stat().st_size, 1 << 20
        with path.open("rb") as file:
            digest.update(f"{path.name} {size} ".encode() + file.read(span))
            if size > span:
                file.seek(max(span, size - span))
                digest.update(file.read())
    return digest.hexdigest()[:8]
