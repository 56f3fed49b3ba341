"""Visual Spatial Reasoning: is a statement about where things are true?

Source: Liu et al. 2023, arXiv 2205.00363; MiniGPT-v2 paper, section 4, asks it in these words and counts exact answers.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...metrics.interval import bootstrap
from ...metrics.vqa import exact
from ..annotations import Problems, rows_of
from ..baselines import most_common
from ..table import Line, Report
from . import parsing
from .base import Against, Benchmark, Choice, Row, new_row
from .fields import LABEL, TEXT

NAME = "vsr"
ACCURACY, LENIENT = "accuracy", "punctuation ignored"


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "statement", "label"}`` for each statement, from the published JSON Lines ({image, caption, label})
    or from rows with several ({image, vsr: [{statement, label}]})."""
    rows: list[Row] = []
    for where, line in rows_of(path, choice.split, problems):
        with problems.noting():
            rows += [
                new_row(NAME, image, statement=statement, label=label) for image, statement, label in _statements(line, where)
            ]
    return rows


def _statements(line: dict[str, Any], where: str) -> Iterator[tuple[str, str, bool]]:
    try:
        for entry in line.get("vsr", [line]):
            statement, label = entry["caption"] if "caption" in entry else entry["statement"], entry["label"]
            if label not in (0, 1):
                raise UserError(f"{where}: the label must be 0 or 1, found {label!r}")
            yield str(line["image"]), statement, bool(label)
    except (KeyError, TypeError) as error:
        raise UserError(f"{where}: expected image, caption (or statement) and label ({error!r})") from None


def question(row: Row) -> str:
    return f"[vqa] Based on the image, is this statement true or false? {row['statement']}"


def report(rows: Sequence[Row], against: Against) -> Report:
    """The model beside the answer that is right more often. An answer that is neither true nor false is wrong."""
    truth = [str(row["label"]).lower() for row in rows]
    images = [row["image"] for row in rows]

    def line(name: str, said: Sequence[str], note: str = "") -> Line:
        strict = [exact(text, true) for text, true in zip(said, truth, strict=True)]
        lenient = [exact(text.strip(" \n.,!\"'"), true) for text, true in zip(said, truth, strict=True)]
        scores = {ACCURACY: bootstrap(strict, groups=images), LENIENT: bootstrap(lenient, groups=images)}
        return Line(name, scores, note)

    lines = [line("model", [row["answer"] for row in rows])]
    if against.blank_image is not None:
        lines.append(line("model, blank-image", [row["answer"] for row in against.blank_image], "sees a grey picture"))
    usual = most_common(truth)
    lines.append(line("always the same", [usual] * len(rows), f"{usual!r}"))
    return Report(NAME, len(rows), lines)


BENCHMARK = Benchmark(
    name=NAME,
    read=read,
    question=question,
    needs={"statement": TEXT, "label": LABEL},
    report=report,
    takes=frozenset({"split", "blank_image"}),
    parse=parsing.true_false,
)
