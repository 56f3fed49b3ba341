"""Short answers to questions, against those of one person or of several.

Source: MiniGPT-v2 paper, section 4: VQA accuracy where several people answered (VQAv2, OK-VQA), else the exact answer (GQA).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...data.schema import Question, parse_row
from ...errors import UserError
from ...metrics.interval import bootstrap
from ...metrics.vqa import exact, vqa_accuracy
from ...prompt.tasks import TASKS
from ..annotations import load_json, rows_of
from ..baselines import most_common
from ..table import Line, Report
from .base import Against, Benchmark, Choice, Row, new_row

NAME = "vqa"
ACCURACY = "accuracy"


def read(path: Path, choice: Choice) -> list[Row]:
    """A row ``{"image", "question", "answers": [...]}`` for each question, from our own JSON Lines, from rows with several
    ({image, qa: [{question, answers or answer}]}), or from a JSON list of {image, question, answers or answer}."""
    if path.suffix == ".json":
        data = load_json(path)
        if not isinstance(data, list):
            raise UserError(f"{path}: expected a list of {{image, question, answer}}")
        numbered: Iterable[tuple[int, Any]] = enumerate(data)
    else:
        numbered = rows_of(path, choice.split)
    return [
        new_row(NAME, image, question=question, answers=answers)
        for number, line in numbered
        for image, question, answers in _questions(line, f"{path}:{number}", path.suffix == ".json")
    ]


def _questions(line: Any, where: str, official: bool) -> Iterator[tuple[str, str, list[str]]]:
    if not official and "qa" not in line:
        parsed = parse_row(line, where)
        if not isinstance(parsed, Question) or len(parsed.images) != 1:
            raise UserError(f'{where}: expected {{"image": FILE, "question": TEXT, "answers": [TEXT, ...]}}')
        yield str(parsed.images[0]), parsed.question, list(parsed.answers)
        return
    try:
        for entry in line.get("qa", [line]):
            answers = entry.get("answers", entry.get("answer"))
            yield line["image"], entry["question"], [answers] if isinstance(answers, str) else [str(a) for a in answers]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: expected image, question and answers ({error!r})") from None


def question(row: Row) -> str:
    return TASKS["vqa"].instruction(row["question"])


def report(rows: Sequence[Row], against: Against) -> Report:
    """The model beside what is answered most often, to all questions or to those that begin with the same two words."""
    images = [row["image"] for row in rows]
    fitted: dict[str, list[str]] = defaultdict(list)
    for row in against.prior or rows:
        fitted[_beginning(row)].extend(row["answers"])
    usual = most_common([answer for answers in fitted.values() for answer in answers])

    def line(name: str, said: Sequence[str], note: str = "") -> Line:
        scores = [
            exact(text, row["answers"][0]) if len(row["answers"]) == 1 else vqa_accuracy(text, row["answers"])
            for text, row in zip(said, rows, strict=True)
        ]
        return Line(name, {ACCURACY: bootstrap(scores, groups=images)}, note)

    lines = [line("model", [row["answer"] for row in rows])]
    if against.blank_image is not None:
        lines.append(line("model, blank-image", [row["answer"] for row in against.blank_image], "sees a grey picture"))
    lines.append(line("always the same", [usual] * len(rows), f"{usual!r}"))
    by_words = [most_common(fitted.get(_beginning(row)) or [usual]) for row in rows]
    lines.append(line("by first words", by_words, "the usual answer to questions that begin alike"))
    notes = [] if against.prior else ["usual answers are fitted to the questions themselves, which flatters them"]
    return Report(NAME, len(rows), lines, notes)


def _beginning(row: Row) -> str:
    return " ".join(row["question"].lower().split()[:2])


BENCHMARK = Benchmark(name=NAME, read=read, question=question, report=report)
