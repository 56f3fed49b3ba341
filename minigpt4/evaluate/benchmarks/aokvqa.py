"""A-OKVQA, direct answers (Schwenk et al. 2022): min(1, people who answered the same / 3), of ten people."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...data.formats.files import load_json
from ...errors import UserError
from ...metrics.vqa import vizwiz_accuracy
from ...prompt.tasks import TASKS
from ..annotations import Problems
from ..table import Report
from . import parsing
from .base import Against, Benchmark, Choice, File, Row, image_in, new_row
from .fields import TEXT, TEXTS
from .short import ACCURACY, accuracies, answers_of, key_of, once, text_of

NAME = "aokvqa"
ANNOTATIONS = File(names=("aokvqa_v1p0_val.json",), source="https://allenai.org/project/a-okvqa")
IMAGES = File(names=("val2017", "images", "coco/val2017"), source="https://cocodataset.org (val2017)")


def entries_of(path: Path, problems: Problems) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The image, the entry and the place of each question; those that are malformed, or there twice, are noted."""
    file = ANNOTATIONS.the(path)
    data = load_json(str(file))
    if not isinstance(data, list):
        raise UserError(f"{file}: expected a list of {{image_id, question, choices, direct_answers}}")
    seen: set = set()
    for i, entry in enumerate(data):
        where = f"{file}[{i}]"
        with problems.noting():
            text_of(entry, "question", where)
            once(entry, seen, where)
            padded = str(key_of(entry, "image_id", where)).zfill(12)
            yield image_in(path, IMAGES, f"{padded}.jpg", f"COCO_val2014_{padded}.jpg"), entry, where


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "question", "answers"}`` for each question that asks for a direct answer: those that are marked as
    difficult for one are left out, as in the official count."""
    rows = []
    for image, entry, where in entries_of(path, problems):
        if entry.get("difficult_direct_answer"):
            continue
        with problems.noting():
            answers = answers_of(entry, where, "direct_answers")
            rows.append(new_row(NAME, image, question=entry["question"], answers=answers))
    return rows


def question(row: Row) -> str:
    return TASKS["vqa"].instruction(row["question"])


def report(rows: Sequence[Row], against: Against) -> Report:
    measures = {ACCURACY: lambda text, row: vizwiz_accuracy(text, row["answers"])}
    return accuracies(NAME, rows, against, measures, lambda row: row["answers"])


BENCHMARK = Benchmark(
    name=NAME,
    read=read,
    question=question,
    needs={"question": TEXT, "answers": TEXTS},
    report=report,
    takes=frozenset({"prior", "blank_image"}),
    parse=parsing.short_answer,
    files=(ANNOTATIONS,),
    images=IMAGES,
)
