"""GQA in its official files: the exact answer (Hudson and Manning 2019; MiniGPT-v2 paper, section 4)."""

from collections.abc import Sequence
from pathlib import Path

from ...data.formats.files import load_json
from ...errors import UserError
from ...metrics.vqa import exact
from ...prompt.tasks import TASKS
from ..annotations import Problems
from ..table import Report
from . import parsing
from .base import Against, Benchmark, Choice, File, Row, image_in, new_row
from .short import ACCURACY, KIND, accuracies, key_of, text_of

NAME = "gqa"
QUESTIONS = File(
    names=("testdev_balanced_questions.json", "val_balanced_questions.json"),
    source="https://cs.stanford.edu/people/dorarad/gqa/download.html",
)
IMAGES = File(names=("images", "gqa/images"), source=QUESTIONS.source)


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "question", "truth", "kind"}`` for each question, of the official object of ``{"imageId", "question",
    "answer"}``, or of a list of ``{"image", "question", "answer"}``."""
    file = QUESTIONS.the(path)
    data = load_json(str(file))
    if not isinstance(data, dict | list):
        raise UserError(f"{file}: expected an object or a list of questions")
    rows = []
    for key, entry in data.items() if isinstance(data, dict) else enumerate(data):
        with problems.noting():
            rows.append(_row(path, entry, f"{file}[{key!r}]", str(key)))
    return rows


def _row(folder: Path, entry: object, where: str, key: str) -> Row:
    official = isinstance(entry, dict) and "imageId" in entry
    image = f"{key_of(entry, 'imageId', where)}.jpg" if official else text_of(entry, "image", where)
    asked, truth = text_of(entry, "question", where), text_of(entry, "answer", where)
    types = entry.get("types") if isinstance(entry, dict) else None
    kind = types.get("structural") if isinstance(types, dict) else None
    row = new_row(NAME, image_in(folder, IMAGES, image), question=asked, truth=truth, id=key)
    return row | ({KIND: kind} if isinstance(kind, str) else {})


def question(row: Row) -> str:
    return TASKS["vqa"].instruction(row["question"])


def report(rows: Sequence[Row], against: Against) -> Report:
    return accuracies(NAME, rows, against, {ACCURACY: lambda text, row: exact(text, row["truth"])}, lambda row: [row["truth"]])


BENCHMARK = Benchmark(
    name=NAME, read=read, question=question, report=report, parse=parsing.short_answer, files=(QUESTIONS,), images=IMAGES
)
