"""GQA in its official files: the exact answer (Hudson and Manning 2019; MiniGPT-v2 paper, section 4)."""

from collections.abc import Sequence
from pathlib import Path

from ...data.schema import Question
from ...metrics.vqa import exact
from ...prompt.tasks import TASKS
from ..annotations import Problems, rows_in_format
from ..table import Report
from . import parsing
from .base import Against, Benchmark, Choice, File, Row, image_in, new_row
from .fields import TEXT
from .short import ACCURACY, KIND, accuracies

NAME = "gqa"
QUESTIONS = File(
    names=("testdev_balanced_questions.json", "val_balanced_questions.json"),
    source="https://cs.stanford.edu/people/dorarad/gqa/download.html",
)
IMAGES = File(names=("images", "gqa/images"), source=QUESTIONS.source)


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "question", "truth", "kind"}`` for each question, of the official object of ``{"imageId", "question",
    "answer"}``, or of a list of ``{"image", "question", "answer"}``."""
    rows = []
    for row in rows_in_format("gqa", QUESTIONS.the(path), problems, clean=False):
        assert isinstance(row, Question)
        image = image_in(path, IMAGES, *row.images, *row.aliases)
        kind = {KIND: row.extra["structural"]} if "structural" in row.extra else {}
        rows.append(new_row(NAME, image, question=row.question, truth=row.answers[0], id=row.id, **kind))
    return rows


def question(row: Row) -> str:
    return TASKS["vqa"].instruction(row["question"])


def report(rows: Sequence[Row], against: Against) -> Report:
    return accuracies(NAME, rows, against, {ACCURACY: lambda text, row: exact(text, row["truth"])}, lambda row: [row["truth"]])


BENCHMARK = Benchmark(
    name=NAME,
    read=read,
    question=question,
    needs={"question": TEXT, "truth": TEXT},
    report=report,
    takes=frozenset({"prior", "blank_image"}),
    parse=parsing.short_answer,
    files=(QUESTIONS,),
    images=IMAGES,
)
