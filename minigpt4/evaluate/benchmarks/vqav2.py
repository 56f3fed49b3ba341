"""VQAv2 and OK-VQA in their official files: short answers against those of ten people.

Sources: Goyal et al. 2017; Marino et al. 2019; MiniGPT-v2 paper, section 4, asks in these words and counts by the VQA tool.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ...metrics.vqa import vqa_accuracy
from ...prompt.tasks import TASKS
from ..annotations import Problems
from ..table import Report
from . import parsing
from .base import Against, Benchmark, Choice, File, Row, image_in, new_row
from .fields import TEXT, TEXTS
from .short import ACCURACY, KIND, accuracies, question_pairs

OFFICIAL = "official tool"
_IMAGES = File(names=("val2014", "images", "coco/images", "val2017"), source="https://cocodataset.org (val2014)")
_VQA = "https://visualqa.org/download.html"
_OKVQA = "https://okvqa.allenai.org/download.html"
FILES = {
    "vqav2": (
        File(names=("v2_OpenEnded_mscoco_val2014_questions.json",), source=_VQA),
        File(names=("v2_mscoco_val2014_annotations.json",), source=_VQA),
    ),
    "okvqa": (
        File(names=("OpenEnded_mscoco_val2014_questions.json", "OpenEnded_mscoco_val2014_questions_clean.json"), source=_OKVQA),
        File(names=("mscoco_val2014_annotations.json", "mscoco_val2014_annotations_clean.json"), source=_OKVQA),
    ),
}


def read(path: Path, choice: Choice, problems: Problems, name: str) -> list[Row]:
    """A row ``{"image", "question", "answers", "kind", "id"}`` for each question."""
    questions, annotations = (file.the(path) for file in FILES[name])
    return [
        new_row(
            name,
            coco_image(path, _IMAGES, question["image_id"]),
            question=question["question"],
            answers=answers,
            id=question["question_id"],
            **({KIND: annotation["answer_type"]} if annotation.get("answer_type") else {}),
        )
        for question, annotation, answers in question_pairs(questions, annotations, problems)
    ]


def coco_image(folder: Path, images: File, number: int | str, part: str = "val2014") -> str:
    """The image of a number in COCO, as named in 2014 and in 2017."""
    padded = str(number).zfill(12)
    return image_in(folder, images, f"COCO_{part}_{padded}.jpg", f"{padded}.jpg")


def question(row: Row) -> str:
    return TASKS["vqa"].instruction(row["question"])


def accuracy(text: str, row: Row) -> float:
    """VQA accuracy, texts normalised always."""
    return vqa_accuracy(text.strip().lower(), row["answers"])


def official_accuracy(text: str, row: Row) -> float:
    """As the official tool counts, which compares texts as they are where all people agree."""
    return vqa_accuracy(text.strip().lower(), row["answers"], official=True)


def report(rows: Sequence[Row], against: Against, name: str) -> Report:
    measures = {ACCURACY: accuracy, OFFICIAL: official_accuracy}
    return accuracies(name, rows, against, measures, lambda row: row["answers"])


BENCHMARKS = [
    Benchmark(
        name=name,
        read=partial(read, name=name),
        question=question,
        needs={"question": TEXT, "answers": TEXTS},
        report=partial(report, name=name),
        takes=frozenset({"prior", "blank_image"}),
        parse=parsing.short_answer,
        files=files,
        images=_IMAGES,
    )
    for name, files in FILES.items()
]
