"""CHAIR: of the things that a description names, how many are not there? (Rohrbach et al. 2018, arXiv 1809.02156.)

Prompts are those of the two papers, whose tables have one number for each. What is there is what has a box, or, as in CHAIR, is
named by one of the people who captioned the image. Recall and words stand beside it: to say nothing is to invent nothing.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...data.formats.fields import coco_aliases
from ...data.formats.files import load_json
from ...errors import UserError
from ...metrics.interval import bootstrap
from ...metrics.objects import kinds, named, objects_in
from ..annotations import Problems
from ..table import Line, Report
from . import parsing
from .base import Against, Benchmark, Choice, File, Row, image_in, new_row
from .captions import read as read_captions
from .fields import ANY_TEXTS
from .short import key_of, text_of

PROMPTS = {
    "chair_long": "Please describe this image as detailed as possible.",
    "chair_short": "Please describe the image shortly and precisely, in less than 20 words.",
    "chair_v2_long": "generate a brief description of the given image",
    "chair_v2_grounded": "[grounding] describe this image in as detailed as possible",
    "chair_v2_short": "[caption] briefly describe the image",
}
"""By the name of the benchmark: MiniGPT-4's two, MiniGPT-v2's three."""
_COCO = "https://cocodataset.org (annotations_trainval2014.zip)"
_YEARS = ("2014", "2017")


def _annotations(kind: str, years: Sequence[str] = _YEARS, needed: bool = True) -> File:
    """Beside the images, or in the folder that COCO's archive unpacks to."""
    names = (f"{folder}{kind}_val{year}.json" for year in years for folder in ("", "annotations/"))
    return File(names=tuple(names), source=_COCO, needed=needed)


INSTANCES = _annotations("instances")
CAPTIONS = _annotations("captions", needed=False)
IMAGES = File(names=("val2014", "images", "val2017"), source="https://cocodataset.org (val2014)")


def read(path: Path, choice: Choice, problems: Problems, name: str) -> list[Row]:
    """A row ``{"image", "there": [kind, ...]}`` for each image with boxes; captions are those of the boxes' year."""
    instances = INSTANCES.the(path)
    year = next(year for year in _YEARS if year in instances.name)
    there = _with_boxes(instances, problems)
    if (captions := _annotations("captions", [year]).find(path)) is not None:
        for row in read_captions(captions, Choice(), problems):
            if row["image"] in there:
                there[row["image"]] |= {kind for text in row["captions"] for kind in objects_in(text)}
    images = replace(IMAGES, names=tuple(sorted(IMAGES.names, key=lambda folder: folder != f"val{year}")))
    return [
        new_row(name, image_in(path, images, image, *coco_aliases(image)), there=sorted(kinds_))
        for image, kinds_ in there.items()
    ]


def _with_boxes(file: Path, problems: Problems) -> dict[str, set[str]]:
    """Image -> the kinds of what has a box in it, crowds among them."""
    data = load_json(str(file))
    try:
        listed = list(data["images"])
        categories = {category["id"]: category["name"] for category in data["categories"]}
        annotations = list(data["annotations"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: expected COCO's images, annotations and categories ({error!r})") from None
    images: dict[Any, str] = {}
    for i, image in enumerate(listed):
        where = f"{file}.images[{i}]"
        with problems.noting():
            images[key_of(image, "id", where)] = text_of(image, "file_name", where)
    known = set(kinds())
    there: dict[str, set[str]] = defaultdict(set)
    for i, annotation in enumerate(annotations):
        try:
            image, kind = images[annotation["image_id"]], categories[annotation["category_id"]]
        except (KeyError, TypeError) as error:
            problems.append(f"{file}.annotations[{i}]: expected image_id and category_id of those listed ({error!r})")
            continue
        if isinstance(kind, str) and kind in known:
            there[image].add(kind)
        else:
            problems.append(f"{file}.annotations[{i}]: {kind!r} is none of COCO's 80 kinds")
    return there


def question(row: Row) -> str:
    return PROMPTS[row["benchmark"]]


def report(rows: Sequence[Row], against: Against, name: str) -> Report:
    """CHAIR_i, CHAIR_s, recall and words, of all texts and, as lines, of the blank image."""

    def line(called: str, answers: Sequence[Row], note: str = "") -> Line:
        said = [named(answer["answer"], row["there"]) for answer, row in zip(answers, rows, strict=True)]
        scores = {
            "CHAIR_i": bootstrap([s.false for s in said], [s.mentions for s in said]),
            "CHAIR_s": bootstrap([s.hallucinates for s in said]),
            "recall": bootstrap([s.found for s in said], [s.there for s in said]),
            "words": bootstrap([s.words for s in said]),
        }
        return Line(called, scores, note)

    lines = [line("model", rows)]
    if against.blank_image is not None:
        lines.append(line("model, blank-image", against.blank_image, "sees a grey picture"))
    notes = ["CHAIR: less is better. The words for the 80 kinds are this project's own"]
    return Report(name, len(rows), lines, notes, less=("CHAIR_i", "CHAIR_s"))


BENCHMARKS = [
    Benchmark(
        name=name,
        read=partial(read, name=name),
        question=question,
        needs={"there": ANY_TEXTS},
        report=partial(report, name=name),
        takes=frozenset({"blank_image"}),
        parse=parsing.objects,
        files=(INSTANCES, CAPTIONS),
        images=IMAGES,
    )
    for name in PROMPTS
]
