"""VizWiz: questions of blind people about their own photos, some of which cannot be answered (Gurari et al. 2018).

Source: MiniGPT-v2's evaluation asks in these words, and counts min(1, people who answered the same / 3).
"""

from collections.abc import Sequence
from pathlib import Path

from ...data.formats.files import load_json
from ...errors import UserError
from ...metrics.vqa import vizwiz_accuracy
from ..annotations import Problems
from ..table import Report
from . import parsing
from .base import Against, Benchmark, Choice, File, Row, image_in, new_row
from .fields import TEXT, TEXTS
from .short import ACCURACY, KIND, accuracies, answers_of, text_of

NAME = "vizwiz"
_SOURCE = "https://vizwiz.org/tasks-and-datasets/vqa/"
ANNOTATIONS = File(names=("val.json", "Annotations/val.json"), source=_SOURCE)
IMAGES = File(names=("val", "images"), source=_SOURCE)


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "question", "answers", "kind"}`` for each question."""
    file = ANNOTATIONS.the(path)
    data = load_json(str(file))
    if not isinstance(data, list):
        raise UserError(f"{file}: expected a list of {{image, question, answers}}")
    rows = []
    for i, entry in enumerate(data):
        where = f"{file}[{i}]"
        with problems.noting():
            image, asked = text_of(entry, "image", where), text_of(entry, "question", where)
            kind = {KIND: entry["answer_type"]} if isinstance(entry.get("answer_type"), str) else {}
            image = image_in(path, IMAGES, image)
            rows.append(new_row(NAME, image, question=asked, answers=answers_of(entry, where), **kind))
    return rows


def question(row: Row) -> str:
    return (
        f"[vqa] The question is '{row['question']}' Based on the image, answer the question with a single word or phrase. "
        "and reply 'unanswerable' when the provided information is insufficient"
    )


def report(rows: Sequence[Row], against: Against) -> Report:
    return accuracies(
        NAME,
        rows,
        against,
        {ACCURACY: lambda text, row: vizwiz_accuracy(text, row["answers"])},
        lambda row: row["answers"],
    )


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
