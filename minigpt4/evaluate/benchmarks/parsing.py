"""What an answer says, as it is scored: for people who read the rows, and to count the answers in which nothing can be read."""

from typing import Any

from ...metrics.objects import objects_in
from ...metrics.vqa import normalise
from ...metrics.yes_no import said_yes
from ...prompt.boxes import parse_boxes, parse_phrases
from .choosing import written_choice

Row = dict[str, Any]


def words(row: Row) -> str | None:
    """What was written, blanks aside."""
    return " ".join(row["answer"].split()) or None


def short_answer(row: Row) -> str | None:
    """The words that count of a short answer: small letters, no articles, no punctuation."""
    return normalise(row["answer"]) or None


def yes_no(row: Row) -> str | None:
    """The first yes or no."""
    said = said_yes(row["answer"])
    return None if said is None else "yes" if said else "no"


def true_false(row: Row) -> bool | None:
    """Whether it says that something is true."""
    return {"true": True, "false": False}.get(row["answer"].strip(" \n.,!\"'").lower())


def boxes(row: Row) -> list[list[float]] | None:
    """Boxes as shares of the image's sides."""
    return [_edges(box) for box in parse_boxes(row["answer"])] or None


def phrases(row: Row) -> list[dict[str, Any]] | None:
    """Phrases with their boxes."""
    found = parse_phrases(row["answer"])
    return [{"phrase": phrase, "boxes": [_edges(box) for box in own]} for phrase, own in found] or None


def objects(row: Row) -> list[str] | None:
    """COCO's names of what is mentioned; an empty list where none of the 80 is."""
    return objects_in(row["answer"]) if row["answer"].strip() else None


def chosen(row: Row) -> int | None:
    """The number of the choice that was taken, from 0."""
    return row["choices"].index(row["answer"]) if row["answer"] in row["choices"] else None


def written(row: Row) -> int | None:
    """The number of the choice that was written, from 0."""
    return written_choice(row["answer"], row["choices"])


def _edges(box: Any) -> list[float]:
    return [round(edge, 4) for edge in box]
