"""Grounded captions: are the things that a description names where it says they are?

A phrase of an answer is *named* right if a true phrase of the picture has the same head noun, and *right* if its boxes, taken
together, also have an IoU of 0.5 or more with those of such a phrase (the merged boxes of Flickr30k Entities; F1-all and
F1-loc of Zhou et al. 2019, arXiv 1812.06587, are made of the same two decisions).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from ...errors import UserError
from ...metrics.boxes import iou, union_box
from ...metrics.interval import bootstrap
from ...metrics.phrase import head_noun
from ...prompt.boxes import Box, Phrase, parse_phrases
from ...prompt.tasks import TASKS
from ..annotations import Problems, read_places
from ..baselines import best_box, centre_box
from ..demo_format import official_phrases
from ..table import Line, Report
from . import parsing
from .base import Against, Benchmark, Choice, Row, boxes_to_row, new_row
from .fields import PHRASES

NAME = "grounding"
RIGHT, NAMED, LOCATED, RECALL = "phrases right", "named right", "located, if named", "things found"


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "phrases": [{"phrase", "boxes"}]}`` for each picture, with all that anybody said about it."""
    by_image: dict[str, list[dict]] = defaultdict(list)
    sizes: dict[str, tuple[float, float] | None] = {}
    for place in read_places(path, choice.split, problems, choice.images):
        by_image[place.image].append({"phrase": place.phrase, "boxes": boxes_to_row(place.boxes)})
        sizes[place.image] = place.size or sizes.get(place.image)
    return [new_row(NAME, image, sizes[image], phrases=phrases) for image, phrases in by_image.items()]


def question(row: Row) -> str:
    return TASKS["grounding"].instruction()


def report(rows: Sequence[Row], against: Against) -> Report:
    """The model beside the same phrases with boxes that nobody looked for."""
    truth = [_truth(row) for row in rows]
    images = [row["image"] for row in rows]
    prior = truth if against.prior is None else [_truth(row) for row in against.prior]
    fitted = [box for phrases in prior for _, box in phrases]

    def line(name: str, said: Sequence[Sequence[Phrase]], note: str = "") -> Line:
        counts = [_count(phrases, true) for phrases, true in zip(said, truth, strict=True)]
        phrases, named, right, found, things = zip(*counts, strict=True)
        scores = {
            RIGHT: bootstrap(right, phrases, images),
            NAMED: bootstrap(named, phrases, images),
            LOCATED: bootstrap(right, named, images),
            RECALL: bootstrap(found, things, images),
        }
        return Line(name, scores, note)

    def read_by(reader: Callable[[str], list[Phrase]], answers: Sequence[Row] = rows) -> list[list[Phrase]]:
        return [reader(row["answer"]) for row in answers]

    said = read_by(parse_phrases)
    lines = [line("model", said), line("model", read_by(official_phrases), "as the published demo reads it")]
    if against.blank_image is not None:
        lines.append(line("model, blank-image", read_by(parse_phrases, against.blank_image), "sees a grey picture"))
    for name, box in (("centre box", centre_box(fitted)), ("best fixed box", best_box(fitted))):
        lines.append(line(name, [[(phrase, [box]) for phrase, _ in phrases] for phrases in said], "for the model's phrases"))
    return Report(NAME, len(rows), lines, [f"{sum(map(len, said)):,} phrases with boxes in the model's answers"])


def _truth(row: Row) -> list[tuple[str, Box]]:
    """Head nouns and merged boxes."""
    try:
        return [(head_noun(p["phrase"]), union_box([Box(*box) for box in p["boxes"]])) for p in row["phrases"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"a row about {row.get('image')} has no phrases as it should ({error!r})") from None


def _count(said: Sequence[Phrase], truth: Sequence[tuple[str, Box]]) -> tuple[int, int, int, int, int]:
    """Of one picture: phrases, those named right, those right, things found, things."""
    named = right = 0
    found = set()
    for phrase, boxes in said:
        noun, place = head_noun(phrase), union_box(boxes)
        same = [box for other, box in truth if other == noun]
        agreeing = [box for box in same if iou(box, place) >= 0.5]
        named += bool(same)
        right += bool(agreeing)
        found.update(agreeing)
    return len(said), named, right, len(found), len({box for _, box in truth})


BENCHMARK = Benchmark(
    name=NAME,
    read=read,
    question=question,
    needs={"phrases": PHRASES},
    report=report,
    takes=frozenset({"split", "prior", "blank_image"}),
    parse=parsing.phrases,
)
