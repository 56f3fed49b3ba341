"""What benchmarks of short answers have in common: VQAv2's pairs of files, and a report of accuracies."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...data.formats.files import load_json
from ...errors import UserError
from ...metrics.interval import bootstrap
from ..annotations import Problems
from ..baselines import best_answer
from ..table import Line, Report
from .base import Against, Row

ACCURACY = "accuracy"
KIND = "kind"
"""The key of a row that says what kind of question it is; each kind gets a line."""
Measure = Callable[[str, Row], float]
_MOST_KINDS = 12


def question_pairs(questions: Path, annotations: Path, problems: Problems) -> list[tuple[dict, dict, list[str]]]:
    """Questions with their annotations and answers, as VQAv2 and OK-VQA publish them: ``{"questions": [{question_id, image_id,
    question}]}`` and ``{"annotations": [{question_id, answers: [{answer}]}]}``.

    A question that is there twice, that has no annotation, or whose annotation has no answer is noted.
    """
    known: dict[Any, dict] = {}
    for i, annotation in enumerate(_listed(annotations, "annotations")):
        with problems.noting():
            number = key_of(annotation, "question_id", f"{annotations}.annotations[{i}]")
            if number in known:
                raise UserError(f"{annotations}: question {number} is annotated twice; the first counts")
            known[number] = annotation
    found: dict[Any, tuple[dict, dict, list[str]]] = {}
    for i, row in enumerate(_listed(questions, "questions")):
        where = f"{questions}.questions[{i}]"
        with problems.noting():
            number = key_of(row, "question_id", where)
            if number in found:
                raise UserError(f"{where}: question {number} is there twice; the first counts")
            if number not in known:
                raise UserError(f"{where}: question {number} has no annotation in {annotations}")
            key_of(row, "image_id", where)
            text_of(row, "question", where)
            found[number] = (row, known[number], answers_of(known[number], f"{annotations}: question {number}"))
    return list(found.values())


def _listed(path: Path, key: str) -> list:
    data = load_json(str(path))
    rows = data.get(key) if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise UserError(f'{path}: expected {{"{key}": [...]}}')
    return rows


def answers_of(row: Mapping[str, Any], where: str, key: str = "answers") -> list[str]:
    """What people answered: a list of texts, or of ``{"answer": TEXT}``."""
    given = row.get(key)
    found = [one.get("answer") if isinstance(one, dict) else one for one in given] if isinstance(given, list) else []
    texts = [text for text in found if isinstance(text, str)]
    if not "".join(texts).strip() or len(texts) < len(found):
        raise UserError(f'{where}: "{key}" must be a list of answers')
    return texts


def key_of(row: Any, key: str, where: str) -> Any:
    """What identifies something: text or a whole number."""
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise UserError(f'{where}: "{key}" must be text or a whole number')
    return value


def once(row: Mapping[str, Any], seen: set, where: str) -> None:
    """Note the number of a question, if it has one, as seen. Raises UserError if it was seen before."""
    if row.get("question_id") is None:
        return
    number = key_of(row, "question_id", where)
    if number in seen:
        raise UserError(f"{where}: question {number} is there twice; the first counts")
    seen.add(number)


def text_of(row: Any, key: str, where: str) -> str:
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise UserError(f'{where}: "{key}" must be text')
    return value


def accuracies(
    name: str, rows: Sequence[Row], against: Against, measures: Mapping[str, Measure], truth: Callable[[Row], Sequence[str]]
) -> Report:
    """The model beside the answer that is usual, and by kinds of questions where rows have a `KIND`.

    Args:
        measures: of an answer to a row, 0..1 each; the usual answer is the one that scores most by the first.
        truth: the right answers to a row, of which the usual one is found.
    """

    def line(called: str, said: Sequence[str], note: str = "", of: Sequence[int] = range(len(rows))) -> Line:
        images = [rows[i]["image"] for i in of]
        scores = {
            measure: bootstrap([score(said[i], rows[i]) for i in of], groups=images) for measure, score in measures.items()
        }
        return Line(called, scores, note)

    answers = [row["answer"] for row in rows]
    lines = [line("model", answers)]
    if against.blank_image is not None:
        lines.append(line("model, blank-image", [row["answer"] for row in against.blank_image], "sees a grey picture"))
    usual = best_answer(against.prior or rows, truth, next(iter(measures.values())))
    lines.append(line("always the same", [usual] * len(rows), f"{usual!r}"))
    kinds = Counter(row[KIND] for row in rows if row.get(KIND))
    if 1 < len(kinds) <= _MOST_KINDS:
        for kind in kinds:
            lines.append(line(f"{kind}: model", answers, of=[i for i, row in enumerate(rows) if row.get(KIND) == kind]))
    notes = [] if against.prior else ["the usual answer is fitted to the questions themselves, which flatters it"]
    return Report(name, len(rows), lines, notes)
