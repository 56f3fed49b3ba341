"""How often long answers fail: the MiniGPT-4 paper's measure of what its second stage brings.

Source: the MiniGPT-4 paper's table of failure rates: a description and a poem of each of 100 pictures of COCO's test part;
before the second stage 35 and 32 % failed, afterwards 2 and 1 %. The authors counted repetition, fragments, what was incomplete
and what had nothing to do with the picture by hand; here `metrics.fluency` counts the first three, and an answer is off the
subject if it has none of the words that people use for the picture.
"""

from collections.abc import Sequence
from pathlib import Path

from ...metrics.fluency import flaws
from ...metrics.interval import bootstrap
from ...metrics.words import content_words
from ..annotations import Problems
from ..table import Line, Report
from . import parsing
from .base import Against, Benchmark, Choice, Row, new_row
from .captions import read as read_captions

NAME = "failures"
QUESTIONS = {
    "description": "Describe the image in detail.",
    "poem": "Can you write a beautiful poem about this image?",
}
KINDS = ("repeats", "unfinished", "fragment", "off the subject")


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """Two rows ``{"image", "asked": "description" | "poem", "captions"}`` for each picture of a file of captions."""
    return [
        new_row(NAME, row["image"], asked=asked, captions=row["captions"])
        for row in read_captions(path, choice, problems)
        for asked in QUESTIONS
    ]


def question(row: Row) -> str:
    return QUESTIONS[row["asked"]]


def failings(row: Row) -> list[str]:
    """What is wrong with an answer: some of `KINDS`. Poems may be about anything."""
    verse = row["asked"] == "poem"
    found = flaws(row["answer"], verse=verse)
    people = frozenset[str]().union(*(content_words(text) for text in row["captions"]))
    if not verse and not people & content_words(row["answer"]):
        found.append("off the subject")
    return found


def report(rows: Sequence[Row], against: Against) -> Report:
    """The share of answers with any failing, and with each; pictures drawn again for the intervals."""

    def lines(name: str, answered: Sequence[Row], note: str = "") -> list[Line]:
        made = []
        for asked in QUESTIONS:
            own = [row for row in answered if row["asked"] == asked]
            if not own:
                continue
            found, images = [failings(row) for row in own], [row["image"] for row in own]
            scores = {"failed": bootstrap([bool(f) for f in found], groups=images)}
            scores |= {kind: bootstrap([kind in f for f in found], groups=images) for kind in KINDS}
            made.append(Line(f"{name}, {asked}", scores, note))
        return made

    blank_image = [] if against.blank_image is None else lines("model, blank-image", against.blank_image, "sees a grey picture")
    return Report(NAME, len(rows), [*lines("model", rows), *blank_image], ["counted by rules: see docs/pointing.md"])


BENCHMARK = Benchmark(name=NAME, read=read, question=question, report=report, parse=parsing.words)
