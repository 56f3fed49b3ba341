"""How often long answers fail: the MiniGPT-4 paper's measure of what its second stage brings.

Source: the MiniGPT-4 paper's table of failure rates: a description and a poem of each of 100 pictures of COCO's test part;
before the second stage 35 and 32 % failed, afterwards 2 and 1 %. The authors counted repetition, fragments, what was incomplete
and what had nothing to do with the picture by hand; here `metrics.fluency` counts all but the last, and an answer is off the
subject if it has none of the words that people use for the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from ...metrics.fluency import Flaw, flaws
from ...metrics.interval import bootstrap
from ...metrics.words import content_words
from ..annotations import Problems
from ..table import Line, Report
from .base import Against, Benchmark, Choice, Row, new_row
from .captions import read as read_captions
from .fields import TEXTS, one_of

NAME = "failures"
QUESTIONS = {
    "description": "Describe the image in detail.",
    "poem": "Can you write a beautiful poem about this image?",
}
OFF = "off the subject"
KINDS = ("repeats", "unfinished", "fragment", "off language", OFF)


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """Two rows ``{"image", "asked": "description" | "poem", "captions"}`` for each picture of a file of captions."""
    return [
        new_row(NAME, row["image"], asked=asked, captions=row["captions"])
        for row in read_captions(path, choice, problems)
        for asked in QUESTIONS
    ]


def question(row: Row) -> str:
    return QUESTIONS[row["asked"]]


def failings(row: Row) -> list[Flaw]:
    """What is wrong with an answer, at most one flaw of each of `KINDS`, with what the rule found."""
    found = flaws(row["answer"], verse=row["asked"] == "poem")
    people = frozenset[str]().union(*(content_words(text) for text in row["captions"]))
    if not people & content_words(row["answer"]):
        found.append(Flaw(OFF, f"none of the {len(people)} content words of people's captions"))
    return found


def parse(row: Row) -> dict[str, str]:
    """Kind -> what the rule found."""
    return {flaw.kind: flaw.why for flaw in failings(row)}


def report(rows: Sequence[Row], against: Against) -> Report:
    """The share of answers with any failing, and with each; pictures drawn again for the intervals."""

    def lines(name: str, answered: Sequence[Row], note: str = "") -> list[Line]:
        made = []
        for asked in QUESTIONS:
            own = [row for row in answered if row["asked"] == asked]
            if not own:
                continue
            found, images = [parse(row) for row in own], [row["image"] for row in own]
            scores = {"failed": bootstrap([bool(f) for f in found], groups=images)}
            scores |= {kind: bootstrap([kind in f for f in found], groups=images) for kind in KINDS}
            made.append(Line(f"{name}, {asked}", scores, note))
        return made

    blank_image = [] if against.blank_image is None else lines("model, blank-image", against.blank_image, "sees a grey picture")
    notes = ["counted by rules: see docs/evaluation.md; less is better"]
    return Report(NAME, len(rows), [*lines("model", rows), *blank_image], notes, less=("failed", *KINDS))


@dataclass(frozen=True)
class Agreement:
    """Rules beside labels by hand, over a set of answers.

    Args:
        kind: of a failing, or ``failed`` for any.
        rule: answers that the rules say have it; `hand`: that people say have it; `same`: on which both say the same.
        kappa: Cohen's, nan where both always say the same one thing.
    """

    kind: str
    rule: int
    hand: int
    same: int
    kappa: float


def agreement(rows: Sequence[Row]) -> list[Agreement]:
    """How well the rules agree with the ``label`` of each row, a list of `KINDS`.

    Raises:
        UserError: a row without a label, or with an unknown one.
    """
    for i, row in enumerate(rows, 1):
        if not isinstance(row.get("label"), list) or not set(row["label"]) <= set(KINDS):
            raise UserError(f'row {i}: "label" must be a list of these: {", ".join(KINDS)}')
    found = []
    for kind in ("failed", *KINDS):
        rule = [bool(said) if kind == "failed" else kind in said for said in map(parse, rows)]
        hand = [bool(row["label"]) if kind == "failed" else kind in row["label"] for row in rows]
        same = sum(r == h for r, h in zip(rule, hand, strict=True))
        share, r, h = same / len(rows), sum(rule) / len(rows), sum(hand) / len(rows)
        chance = r * h + (1 - r) * (1 - h)
        found.append(
            Agreement(kind, sum(rule), sum(hand), same, (share - chance) / (1 - chance) if chance < 1 else float("nan"))
        )
    return found


BENCHMARK = Benchmark(
    name=NAME,
    read=read,
    question=question,
    needs={"asked": one_of(QUESTIONS), "captions": TEXTS},
    report=report,
    takes=frozenset({"split", "blank_image"}),
    parse=parse,
)
