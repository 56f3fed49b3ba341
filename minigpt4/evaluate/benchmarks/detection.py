"""Detection by phrase: where are all the things that a phrase means?

Source: MiniGPT-v2 paper, section 3 (object parsing and grounding). Answers have no confidence, so there is one precision and
one recall: boxes are paired with true ones at an IoU of 0.5 or more, each used once.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from ...metrics.boxes import matches
from ...metrics.interval import bootstrap
from ...metrics.objects import kinds
from ...metrics.phrase import head_words
from ...metrics.words import singular
from ...prompt.boxes import Box, parse_boxes
from ...prompt.tasks import TASKS
from ..annotations import Place, Problems, read_places
from ..baselines import WHOLE, best_box, centre_box, on_grid
from ..table import Line, Report
from . import parsing
from .base import Against, Benchmark, Choice, Row, boxes_of, boxes_to_row, new_row
from .fields import BOXES, TEXT

NAME = "detection"
PRECISION, RECALL, F1 = "precision@0.5", "recall@0.5", "F1@0.5"
_FEW = 6  # phrases that get a line each


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "phrase", "boxes"}`` for each phrase, or for each thing that was chosen in each picture that has it."""
    places: Iterable[Place] = read_places(path, choice.split, problems, choice.images)
    if choice.things:
        places = _things(places, choice.things)
    return [new_row(NAME, place.image, place.size, phrase=place.phrase, boxes=boxes_to_row(place.boxes)) for place in places]


def _things(places: Iterable[Place], things: Sequence[str]) -> list[Place]:
    """All things of a kind (``people``) or of a name (``dog``, in any phrase about it; ``hot dog``), by picture."""
    found: dict[tuple[str, str], dict[Box, None]] = defaultdict(dict)
    sizes = {}
    for place in places:
        sizes[place.image] = place.size
        for thing in things:
            if thing in place.kinds or _is_called(thing, place.phrase):
                found[place.image, thing] |= dict.fromkeys(place.boxes)
    return [Place(image=image, phrase=thing, boxes=tuple(boxes), size=sizes[image]) for (image, thing), boxes in found.items()]


def _is_called(thing: str, phrase: str) -> bool:
    """Whether a phrase is about a thing of this name: it is the name, or its noun with the words before it ends with it.

    A phrase whose noun is part of a longer name of COCO's means only what has this name: a hot dog is no dog.
    """
    wanted, said = thing.lower().split(), head_words(phrase)
    if _alike(said, wanted) or _alike(phrase.lower().split(), wanted):
        return True
    longer = any(len(name) > len(wanted) and _alike(said[-len(name) :], name) for name in _names())
    return not longer and _alike(said[-len(wanted) :], wanted)


def _alike(said: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether two names are the same but for the number of the last word."""
    if not said or not wanted or list(said[:-1]) != list(wanted[:-1]):
        return False
    one, other = said[-1].removesuffix("'s"), wanted[-1]
    return singular(one) == singular(other) or one in (other + "s", other + "es")


@cache
def _names() -> list[list[str]]:
    """COCO's names of several words."""
    return [kind.split() for kind in kinds() if " " in kind]


def question(row: Row) -> str:
    return TASKS["detection"].instruction(row["phrase"])


def report(rows: Sequence[Row], against: Against) -> Report:
    """The model beside one fixed box and beside the best that a grid can do; a line for each phrase where they are few."""
    truth = [boxes_of(row) for row in rows]
    fitted = [box for boxes in (truth if against.prior is None else map(boxes_of, against.prior)) for box in boxes]
    everything = range(len(rows))

    def line(name: str, predicted: Sequence[Sequence[Box]], note: str = "", of: Sequence[int] = everything) -> Line:
        images = [rows[i]["image"] for i in of]
        hits = [matches(predicted[i], truth[i]) for i in of]
        said, true = [len(predicted[i]) for i in of], [len(truth[i]) for i in of]
        scores = {
            F1: bootstrap([2 * h for h in hits], [s + t for s, t in zip(said, true, strict=True)], images),
            PRECISION: bootstrap(hits, said, images),
            RECALL: bootstrap(hits, true, images),
        }
        return Line(name, scores, note)

    found = [parse_boxes(row["answer"]) for row in rows]
    ways = {"model": found}
    if against.blank_image is not None:
        ways["model, blank-image"] = [parse_boxes(row["answer"]) for row in against.blank_image]
    ways |= {
        "centre box": [[centre_box(fitted)]] * len(rows),
        "best fixed box": [[best_box(fitted)]] * len(rows),
        "whole picture": [[WHOLE]] * len(rows),
    }
    if grid := against.grid:
        ways[f"best on {grid} x {grid} cells"] = [[on_grid(box, grid, grid) for box in boxes] for boxes in truth]
    lines = [line(name, predicted, "sees a grey picture" if "blank-image" in name else "") for name, predicted in ways.items()]
    phrases = list(dict.fromkeys(row["phrase"] for row in rows))
    if 1 < len(phrases) <= _FEW:
        for phrase in phrases:
            of = [i for i, row in enumerate(rows) if row["phrase"] == phrase]
            lines += [line(f"{phrase}: {name}", predicted, of=of) for name, predicted in ways.items()]
    notes = [] if against.prior is not None else ["fixed boxes are fitted to the questions themselves, which flatters them"]
    return Report(NAME, len(rows), lines, notes)


BENCHMARK = Benchmark(
    name=NAME,
    read=read,
    question=question,
    needs={"phrase": TEXT, "boxes": BOXES},
    report=report,
    takes=frozenset({"split", "things", "prior", "grid", "blank_image"}),
    parse=parsing.boxes,
)
