"""POPE: is a thing in the image? Half of the questions are about things that are not (Li et al. 2023, arXiv 2305.10355).

Three sets: things at random, those that are common, and those that are often seen beside what is there.
"""

from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError
from ...metrics.interval import bootstrap
from ...metrics.yes_no import official_yes, said_yes
from ..annotations import Problems, rows_of
from ..table import Line, Report
from . import parsing
from .base import Against, Benchmark, Choice, File, Row, image_in, new_row
from .fields import LABEL, TEXT
from .short import once, text_of

NAME = "pope"
SETS = ("random", "popular", "adversarial")
_SOURCE = "https://github.com/RUCAIBox/POPE (output/coco)"
FILES = tuple(File(names=(f"coco_pope_{kind}.json",), source=_SOURCE, needed=False) for kind in SETS)
IMAGES = File(names=("val2014", "images"), source="https://cocodataset.org (val2014)")


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "question", "label", "set"}`` for each question of the sets that are there."""
    rows = []
    there = [(kind, file.find(path)) for kind, file in zip(SETS, FILES, strict=True)]
    if choice.split is not None and choice.split not in SETS:
        raise UserError(f"pope has the sets {', '.join(SETS)}, not {choice.split!r}")
    there = [(kind, file) for kind, file in there if choice.split in (None, kind)]
    if not any(file for _, file in there):
        raise UserError(f"{path / FILES[0].names[0]}: no such file; it comes from {_SOURCE}")
    for kind, file in there:
        if file is None:
            problems.append(f"{path / f'coco_pope_{kind}.json'}: no such file; that set is left out")
            continue
        seen: set = set()
        for where, line in rows_of(file, None, problems):
            with problems.noting():
                image, asked, label = (text_of(line, key, where) for key in ("image", "text", "label"))
                if label.strip().lower() not in ("yes", "no"):
                    raise UserError(f'{where}: "label" must be yes or no, found {label!r}')
                once(line, seen, where)
                image = image_in(path, IMAGES, image)
                rows.append(new_row(NAME, image, question=asked, label=label.strip().lower() == "yes", set=kind))
    return rows


def question(row: Row) -> str:
    return row["question"]


def report(rows: Sequence[Row], against: Against) -> Report:
    """Accuracy, precision, recall, F1 and the share of yes, by the official reading of answers; and accuracy where an answer
    that says neither yes nor no is wrong."""

    def line(name: str, answers: Sequence[Row], of: Sequence[int], note: str = "") -> Line:
        said, truth = [official_yes(answers[i]["answer"]) for i in of], [bool(rows[i]["label"]) for i in of]
        images = [rows[i]["image"] for i in of]
        both, yes = [s and t for s, t in zip(said, truth, strict=True)], [s + t for s, t in zip(said, truth, strict=True)]
        scores = {
            "F1": bootstrap([2 * b for b in both], yes, images),
            "accuracy": bootstrap([s == t for s, t in zip(said, truth, strict=True)], groups=images),
            "precision": bootstrap(both, said, images),
            "recall": bootstrap(both, truth, images),
            "yes ratio": bootstrap(said, groups=images),
            "strict": bootstrap([said_yes(answers[i]["answer"]) == rows[i]["label"] for i in of], groups=images),
        }
        return Line(name, scores, note)

    everything = range(len(rows))
    lines = [line("model", rows, everything)]
    if against.blank_image is not None:
        lines.append(line("model, blank-image", against.blank_image, everything, "sees a grey picture"))
    lines.append(line("always yes", [row | {"answer": "yes"} for row in rows], everything))
    for kind in SETS:
        of = [i for i in everything if rows[i]["set"] == kind]
        if of and len(of) < len(rows):
            lines.append(line(f"{kind}: model", rows, of))
    return Report(NAME, len(rows), lines, ["strict: an answer that says neither yes nor no is wrong"])


BENCHMARK = Benchmark(
    name=NAME,
    read=read,
    question=question,
    needs={"question": TEXT, "label": LABEL, "set": TEXT},
    report=report,
    takes=frozenset({"split", "blank_image"}),
    parse=parsing.yes_no,
    files=FILES,
    images=IMAGES,
)
