"""Short answers to questions, against those of one person or of several.

Source: MiniGPT-v2 paper, section 4: VQA accuracy where several people answered (VQAv2, OK-VQA), else the exact answer (GQA).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...data.formats.files import load_json
from ...data.schema import Question, parse_row
from ...errors import UserError
from ...metrics.interval import bootstrap
from ...metrics.vqa import exact, vqa_accuracy
from ...prompt.tasks import TASKS
from ..annotations import Problems, refuse_split, rows_in_format, rows_of
from ..baselines import best_answer
from ..table import Line, Report
from . import parsing
from .base import Against, Benchmark, Choice, Row, new_row
from .fields import TEXT, TEXTS

NAME = "vqa"
ACCURACY = "accuracy"


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "question", "answers": [...]}`` for each question, from our own JSON Lines, from rows with several
    ({image, qa: [{question, answers or answer}]}), or from the JSON of VQAv2, OK-VQA, A-OKVQA and GQA that training reads."""
    rows: list[Row] = []
    if path.suffix == ".json":
        refuse_split(path, choice.split)
        for row in rows_in_format(_format_of(load_json(str(path)), path), path, problems, choice.images, clean=False):
            assert isinstance(row, Question)
            rows.append(new_row(NAME, row.images[0], question=row.question, answers=list(row.answers)))
        return rows
    for where, line in rows_of(path, choice.split, problems):
        if "qa" in line:
            for entry in _several(line, where, problems):
                with problems.noting():
                    rows.append(_row(*entry))
        else:
            with problems.noting():
                rows.append(_row(line, where))
    return rows


def _format_of(data: Any, path: Path) -> str:
    """Which of the published lists a file is."""
    if isinstance(data, dict):
        return "gqa"
    if not isinstance(data, list):
        raise UserError(f"{path}: expected a list of {{image, question, answer}}")
    first = next((row for row in data if isinstance(row, dict)), {})
    if "direct_answers" in first:
        return "aok_vqa"
    return "ok_vqa" if isinstance(first.get("answer"), list) else "gqa"


def _several(line: dict[str, Any], where: str, problems: Problems) -> Iterator[tuple[dict[str, Any], str]]:
    """The questions of a row about one picture, each as a row of our schema; where several people answered, theirs alone."""
    if not isinstance(line["qa"], list):
        problems.append(f"{where}: expected image, question and answers")
        return
    for i, entry in enumerate(line["qa"]):
        at = f"{where}: qa[{i}]"
        if isinstance(entry, dict):
            key = "answers" if "answers" in entry else "answer"
            yield {"image": line.get("image"), "question": entry.get("question"), key: entry.get(key)}, at
        else:
            problems.append(f"{at}: expected question and answers")


def _row(line: dict[str, Any], where: str) -> Row:
    parsed = parse_row(line, where)
    if not isinstance(parsed, Question) or len(parsed.images) != 1:
        raise UserError(f'{where}: expected {{"image": FILE, "question": TEXT, "answers": [TEXT, ...]}}')
    return new_row(NAME, str(parsed.images[0]), question=parsed.question, answers=list(parsed.answers))


def question(row: Row) -> str:
    return TASKS["vqa"].instruction(row["question"])


def report(rows: Sequence[Row], against: Against) -> Report:
    """The model beside the answer that would be right most often, to all questions or to those whose first two words are the
    same."""
    images = [row["image"] for row in rows]
    prior = against.prior or rows
    alike: dict[str, list[Row]] = defaultdict(list)
    for row in prior:
        alike[_beginning(row)].append(row)
    usual = best_answer(prior, _answers, _score)
    fitted = {beginning: best_answer(own, _answers, _score) for beginning, own in alike.items()}

    def line(name: str, said: Sequence[str], note: str = "") -> Line:
        scores = [_score(text, row) for text, row in zip(said, rows, strict=True)]
        return Line(name, {ACCURACY: bootstrap(scores, groups=images)}, note)

    lines = [line("model", [row["answer"] for row in rows])]
    if against.blank_image is not None:
        lines.append(line("model, blank-image", [row["answer"] for row in against.blank_image], "sees a grey picture"))
    lines.append(line("always the same", [usual] * len(rows), f"{usual!r}"))
    by_words = [fitted.get(_beginning(row), usual) for row in rows]
    lines.append(line("by first words", by_words, "the usual answer to questions that begin alike"))
    notes = [] if against.prior else ["usual answers are fitted to the questions themselves, which flatters them"]
    return Report(NAME, len(rows), lines, notes)


def _answers(row: Row) -> list[str]:
    return row["answers"]


def _score(text: str, row: Row) -> float:
    return exact(text, row["answers"][0]) if len(row["answers"]) == 1 else vqa_accuracy(text, row["answers"])


def _beginning(row: Row) -> str:
    return " ".join(row["question"].lower().split()[:2])


BENCHMARK = Benchmark(
    name=NAME,
    read=read,
    question=question,
    needs={"question": TEXT, "answers": TEXTS},
    report=report,
    takes=frozenset({"split", "prior", "blank_image"}),
    parse=parsing.short_answer,
)
