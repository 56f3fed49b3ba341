"""What is in a box? Phrases for boxes, against what people call the same things.

Source: MiniGPT-v2 paper, section 2.2 (referring expression generation); scored by CIDEr, and by whether the head noun is one
that people used.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ...metrics.caption import cider
from ...metrics.interval import bootstrap
from ...metrics.phrase import head_noun
from ...prompt.boxes import Box
from ...prompt.tasks import TASKS
from ..annotations import Problems, read_places
from ..baselines import most_common
from ..table import Line, Report
from . import parsing
from .base import Against, Benchmark, Choice, Row, boxes_of, boxes_to_row, new_row
from .fields import BOXES, TEXTS

NAME = "identify"
CIDER, NOUN = "CIDEr", "head noun"


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "boxes": [box], "phrases": [...]}`` for each thing that fills one box, with all that people call it."""
    things: dict[tuple[str, Box], list[str]] = defaultdict(list)
    sizes: dict[str, tuple[float, float] | None] = {}
    for place in read_places(path, choice.split, problems, choice.images):
        if len(place.boxes) == 1:
            things[place.image, place.boxes[0]].append(place.phrase)
            sizes[place.image] = place.size or sizes.get(place.image)
    return [
        new_row(NAME, image, sizes[image], boxes=boxes_to_row([box]), phrases=list(dict.fromkeys(phrases)))
        for (image, box), phrases in things.items()
    ]


def question(row: Row) -> str:
    return TASKS["identify"].instruction(boxes_of(row)[0].clipped().render())


def report(rows: Sequence[Row], against: Against) -> Report:
    """The model beside what is said most often."""
    references = [row["phrases"] for row in rows]
    nouns = [{head_noun(phrase) for phrase in phrases} for phrases in references]
    images = [row["image"] for row in rows]

    def line(name: str, said: Sequence[str], note: str = "") -> Line:
        said = [TASKS["identify"].parse(text) for text in said]
        right = [head_noun(text) in true for text, true in zip(said, nouns, strict=True)]
        scores = {CIDER: bootstrap(cider(references, said), groups=images), NOUN: bootstrap(right, groups=images)}
        return Line(name, scores, note)

    lines = [line("model", [row["answer"] for row in rows])]
    if against.blank_image is not None:
        lines.append(
            line("model, blank-image", [row["answer"] for row in against.blank_image], "sees the box, but a grey picture")
        )
    usual = most_common([phrase for row in (against.prior or rows) for phrase in row["phrases"]])
    lines.append(line("always the same", [usual] * len(rows), f"{usual!r}"))
    return Report(NAME, len(rows), lines)


BENCHMARK = Benchmark(
    name=NAME,
    read=read,
    question=question,
    needs={"boxes": BOXES, "phrases": TEXTS},
    report=report,
    takes=frozenset({"split", "prior", "blank_image"}),
    parse=parsing.words,
)
