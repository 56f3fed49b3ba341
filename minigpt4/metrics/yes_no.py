"""Answers of yes or no: what was said, and how right it is over a set (POPE, Li et al. 2023)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_SAID = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def official_yes(text: str) -> bool:
    """Yes or no by POPE's own rule: no, if its first sentence has one of the words "No", "no" and "not"; else yes, whatever it
    says."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return not {"No", "no", "not"} & set(words)


def said_yes(text: str) -> bool | None:
    """The first "yes" or "no" of an answer, or None if it has neither."""
    found = _SAID.search(text)
    return None if found is None else found[1].lower() == "yes"


@dataclass(frozen=True)
class YesNo:
    """How answers of yes or no compare with the truth, each 0..1; nan where nothing counts.

    Args:
        accuracy: right ones of all.
        precision: of those that were answered with yes, how many are; `recall`: of those that are, how many were.
        f1: the harmonic mean of both.
        yes_ratio: answered with yes, of all.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    yes_ratio: float


def yes_no(said: Sequence[bool], truth: Sequence[bool]) -> YesNo:
    """Compare what was said with what is."""
    pairs = list(zip(said, truth, strict=True))
    right = sum(s == t for s, t in pairs)
    both, yes, true = sum(s and t for s, t in pairs), sum(said), sum(truth)

    def share(part: float, whole: float) -> float:
        return part / whole if whole else float("nan")

    return YesNo(
        share(right, len(pairs)), share(both, yes), share(both, true), share(2 * both, yes + true), share(yes, len(pairs))
    )
