"""One of several given answers: IconQA, A-OKVQA's multiple choice, and rows of your own.

The likeliest candidate counts (mean log-likelihood of its tokens), as the MiniGPT-v2 evaluation ranks; nothing is written.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...data.formats.files import load_json
from ...errors import UserError
from ...metrics.vqa import exact
from ...prompt.tasks import TASKS
from ..annotations import Problems, rows_of
from ..table import Report
from . import parsing
from .aokvqa import ANNOTATIONS as AOKVQA_FILE
from .aokvqa import IMAGES as AOKVQA_IMAGES
from .aokvqa import entries_of
from .base import Against, Benchmark, Choice, File, Row, image_in, new_row
from .short import ACCURACY, accuracies, key_of, text_of

_ICONQA = "https://iconqa.github.io (choose_text, as MiniGPT-v2's evaluation lists it)"
ICONQA_FILE = File(names=("choose_text_val.json",), source=_ICONQA)
ICONQA_IMAGES = File(names=("choose_text/val", "val/choose_txt", "images"), source=_ICONQA)
CHANCE = "chance"


def read_own(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """Rows of one's own: ``{"image", "question", "choices": [TEXT, ...], "answer": number of the right one or its text}``."""
    rows = []
    for where, line in rows_of(path, choice.split, problems):
        with problems.noting():
            image, asked = text_of(line, "image", where), text_of(line, "question", where)
            rows.append(new_row("choice", image, question=asked, **_choices(line, "answer", where)))
    return rows


def read_iconqa(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A list of ``{"image_id", "question", "choices", "answer"}``, or an object of them; images are ``image_id/image.png``."""
    file = ICONQA_FILE.the(path)
    data = load_json(str(file))
    if not isinstance(data, list | dict):
        raise UserError(f"{file}: expected a list of {{image_id, question, choices, answer}}")
    rows = []
    for key, entry in data.items() if isinstance(data, dict) else enumerate(data):
        where = f"{file}[{key!r}]"
        with problems.noting():
            image = f"{key_of(entry, 'image_id', where)}/image.png"
            asked = text_of(entry, "question", where)
            image = image_in(path, ICONQA_IMAGES, image)
            rows.append(new_row("iconqa", image, question=asked, **_choices(entry, "answer", where)))
    return rows


def read_aokvqa(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "question", "choices", "truth"}`` for each question of A-OKVQA."""
    rows = []
    for image, entry, where in entries_of(path, problems):
        with problems.noting():
            truth = _choices(entry, "correct_choice_idx", where)
            rows.append(new_row("aokvqa_mc", image, question=entry["question"], **truth))
    return rows


def _choices(entry: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    choices = entry.get("choices")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c.strip() for c in choices):
        raise UserError(f'{where}: "choices" must be a list of two texts or more')
    right = entry.get(key)
    if isinstance(right, str) and right in choices:
        right = choices.index(right)
    if not isinstance(right, int) or isinstance(right, bool) or not 0 <= right < len(choices):
        raise UserError(f'{where}: "{key}" must be the number of a choice, counted from 0, found {entry.get(key)!r}')
    return {"choices": choices, "truth": choices[right]}


def question(row: Row) -> str:
    return TASKS["vqa"].instruction(row["question"])


def report(rows: Sequence[Row], against: Against, name: str) -> Report:
    """The model beside the answer that is right most often, and beside chance."""
    measures = {
        ACCURACY: lambda text, row: exact(text, row["truth"]),
        CHANCE: lambda text, row: row["choices"].count(row["truth"]) / len(row["choices"]),
    }
    return accuracies(name, rows, against, measures, lambda row: [row["truth"]])


def _benchmark(name: str, read: Callable, files: tuple[File, ...] = (), images: File | None = None) -> Benchmark:
    return Benchmark(
        name=name,
        read=read,
        question=question,
        report=partial(report, name=name),
        parse=parsing.chosen,
        candidates=lambda row: row["choices"],
        files=files,
        images=images,
    )


BENCHMARKS = [
    _benchmark("choice", read_own),
    _benchmark("iconqa", read_iconqa, (ICONQA_FILE,), ICONQA_IMAGES),
    _benchmark("aokvqa_mc", read_aokvqa, (AOKVQA_FILE,), AOKVQA_IMAGES),
]
