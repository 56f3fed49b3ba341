"""Referring expressions: where is the one thing that a phrase means?

Source: MiniGPT-v2 paper, section 4 (RefCOCO, RefCOCO+, RefCOCOg); a thing is found if the IoU is above 0.5.
"""

from collections.abc import Sequence
from pathlib import Path

from ...metrics.boxes import iou, official_correct
from ...metrics.interval import Score, bootstrap
from ...prompt.boxes import Box, parse_boxes
from ...prompt.tasks import TASKS
from ..annotations import Problems, read_places
from ..baselines import WHOLE, best_box, centre_box, largest_boxes, mean_box, on_grid
from ..table import Line, Report
from . import parsing
from .base import Against, Benchmark, Choice, Row, boxes_of, boxes_to_row, new_row
from .fields import BOXES, TEXT

NAME = "refer"
ACCURACY, MEAN_IOU, OFFICIAL, ANSWERED = "accuracy@0.5", "mean IoU", "accuracy, +1 pixel", "with a box"


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "phrase", "boxes", "largest", "width"?, "height"?}`` for each phrase; of several boxes any one will
    do. ``largest`` is the largest of all boxes in the picture, for a baseline."""
    places = read_places(path, choice.split, problems, choice.images)
    largest = largest_boxes(places)
    return [
        new_row(
            NAME,
            place.image,
            place.size,
            phrase=place.phrase,
            boxes=boxes_to_row(place.boxes),
            largest=list(largest[place.image]),
        )
        for place in places
        if len(place.boxes) == 1 or not choice.single_box
    ]


def question(row: Row) -> str:
    return TASKS["refer"].instruction(row["phrase"])


def report(rows: Sequence[Row], against: Against) -> Report:
    """The model beside boxes that nobody looked for, and beside the best that a grid can do.

    The model's answer is its first box. ``accuracy, +1 pixel`` is the published way of counting: an answer must begin with
    its box and have no other number in it, and sides are longer by a pixel. It needs the pictures' sizes.
    """
    truth = [boxes_of(row) for row in rows]
    images = [row["image"] for row in rows]
    single = [boxes[0] for boxes in truth]
    fitted = single if against.prior is None else [boxes_of(row)[0] for row in against.prior]

    def line(name: str, predicted: Sequence[Box | None], note: str = "") -> Line:
        agreement = [max(iou(p, t) for t in true) if p else 0.0 for p, true in zip(predicted, truth, strict=True)]
        scores = {
            ACCURACY: bootstrap([v > 0.5 for v in agreement], groups=images),
            MEAN_IOU: bootstrap(agreement, groups=images),
        }
        return Line(name, scores, note)

    def answered(name: str, answers: Sequence[Row], note: str = "") -> Line:
        boxes = [parse_boxes(row["answer"]) for row in answers]
        plain = line(name, [found[0] if found else None for found in boxes], note)
        extra = {ANSWERED: bootstrap([bool(found) for found in boxes], groups=images)}
        return Line(name, {**plain.scores, **_official(answers, images), **extra}, note)

    lines = [answered("model", rows)]
    if against.blank_image is not None:
        lines.append(answered("model, blank-image", against.blank_image, "sees a grey picture"))
    lines += [
        line("centre box", [centre_box(fitted)] * len(rows), "of mean size"),
        line("mean box", [mean_box(fitted)] * len(rows)),
        line("best fixed box", [best_box(fitted)] * len(rows), "right most often"),
        line("whole picture", [WHOLE] * len(rows)),
    ]
    if all("largest" in row for row in rows):
        lines.append(line("largest box", [Box(*row["largest"]) for row in rows], "of the annotated ones in the picture"))
    if grid := against.grid:
        best = [
            max((on_grid(box, grid, grid) for box in boxes), key=lambda b: max(iou(b, t) for t in boxes)) for boxes in truth
        ]
        lines.append(line(f"best on {grid} x {grid} cells", list(best), "the vision encoder's limit"))
    notes = [] if against.prior is not None else ["fixed boxes are fitted to the questions themselves, which flatters them"]
    return Report(NAME, len(rows), lines, notes)


def _official(rows: Sequence[Row], images: Sequence[str]) -> dict[str, Score]:
    if not all("width" in row and len(row["boxes"]) == 1 for row in rows):
        return {}
    right = []
    for row in rows:
        width, height = row["width"], row["height"]
        pixels = boxes_of(row)[0].pixels(width, height)
        right.append(official_correct(row["answer"], pixels, width, height))
    return {OFFICIAL: bootstrap(right, groups=images)}


BENCHMARK = Benchmark(
    name=NAME,
    read=read,
    question=question,
    needs={"phrase": TEXT, "boxes": BOXES},
    report=report,
    takes=frozenset({"split", "single_box", "prior", "grid", "blank_image"}),
    parse=parsing.boxes,
)
