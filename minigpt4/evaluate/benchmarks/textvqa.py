"""TextVQA: questions about what is written in images, against the answers of ten people (Singh et al. 2019)."""

from collections.abc import Sequence
from pathlib import Path

from ...data.formats.files import load_json
from ...errors import UserError
from ...metrics.vqa import vqa_accuracy
from ...prompt.tasks import TASKS
from ..annotations import Problems
from ..table import Report
from . import parsing
from .base import Against, Benchmark, Choice, File, Row, image_in, new_row
from .fields import TEXT, TEXTS
from .short import ACCURACY, accuracies, answers_of, key_of, once, text_of

NAME = "textvqa"
_SOURCE = "https://textvqa.org/dataset"
ANNOTATIONS = File(names=("TextVQA_0.5.1_val.json",), source=_SOURCE)
IMAGES = File(names=("train_images", "train_val_images/train_images", "images"), source=_SOURCE)


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "question", "answers"}`` for each question."""
    file = ANNOTATIONS.the(path)
    data = load_json(str(file))
    entries = data.get("data") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise UserError(f'{file}: expected {{"data": [{{question_id, image_id, question, answers}}]}}')
    rows: list[Row] = []
    seen: set = set()
    for i, entry in enumerate(entries):
        where = f"{file}.data[{i}]"
        with problems.noting():
            key_of(entry, "question_id", where)
            asked = text_of(entry, "question", where)
            once(entry, seen, where)
            image = image_in(path, IMAGES, f"{key_of(entry, 'image_id', where)}.jpg")
            rows.append(new_row(NAME, image, question=asked, answers=answers_of(entry, where)))
    return rows


def question(row: Row) -> str:
    return TASKS["vqa"].instruction(row["question"])


def report(rows: Sequence[Row], against: Against) -> Report:
    measures = {ACCURACY: lambda text, row: vqa_accuracy(text.strip().lower(), row["answers"])}
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
