"""What benchmarks with given answers have in common: the answers of a row, and which one a written answer means."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import UserError
from ...prompt.tasks import TASKS

Row = dict[str, Any]
_ALONE = re.compile(r"^\W*([A-Za-z])(?:\W*$|[).:]\s)")
_NAMED = re.compile(r"\b(?i:(?:answer|option|choice)(?: is)?)\W*\(?([A-Za-z])\b(?!['\w])")
_ARTICLE = re.compile(r"\s+\w")
"""What follows an "a" that is a word and no letter."""


def choices_of(entry: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """The given answers and the right one, which is named by its number, from 0, or by its text."""
    choices = entry.get("choices")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c.strip() for c in choices):
        raise UserError(f'{where}: "choices" must be a list of two texts or more')
    right = entry.get(key)
    if isinstance(right, str) and right in choices:
        right = choices.index(right)
    if not isinstance(right, int) or isinstance(right, bool) or not 0 <= right < len(choices):
        raise UserError(f'{where}: "{key}" must be the number of a choice, counted from 0, found {entry.get(key)!r}')
    return {"choices": choices, "truth": choices[right]}


def ask(row: Row) -> str:
    """A question whose answers are chosen by likelihood: they are not shown."""
    return TASKS["vqa"].instruction(row["question"])


def ask_with_choices(row: Row) -> str:
    """A question with its answers, of which one is to be written."""
    listed = " ".join(f"({chr(65 + i)}) {choice}" for i, choice in enumerate(row["choices"]))
    return f"{ask(row)} Choose one of these answers: {listed}"


def written_choice(text: str, choices: Sequence[str]) -> int | None:
    """Which of the given answers, counted from 0, a text means: it is one, names its letter, or has it and no other in it."""
    for form in (str.strip, _spaced, _plain):  # with capitals and marks first: "Ff" and "ff", "50" and "50%" are two answers
        same = [i for i, choice in enumerate(choices) if form(choice) == form(text)]
        if len({choices[i] for i in same}) == 1:
            return same[0]
    found = _ALONE.search(text.strip()) or _NAMED.search(text.strip())
    article = found is not None and found[1] in "aA" and _ARTICLE.match(found.string, found.end()) is not None
    letter = ord(found[1].upper()) - 65 if found else len(choices)
    if letter < len(choices) and not article:
        return letter
    alike = len(set(map(_spaced, choices))) < len({choice.strip() for choice in choices})  # but for capitals
    for form in (*([_as_written] if alike else []), _spaced, _plain):
        if within := _within(form(text), [form(choice) for choice in choices]):
            return within[0] if len(within) == 1 else None
    return letter if letter < len(choices) and found is not None and found[1] == "A" else None  # "The answer is A because"


def _within(text: str, choices: Sequence[str]) -> list[int]:
    """The choices that stand in a text as words of their own, not as part of another that stands in the same place."""
    places = [
        (match.span(), i)
        for i, choice in enumerate(choices)
        if choice
        for match in re.finditer(rf"(?<![\w-]){re.escape(choice)}(?!-?\w)", text)
    ]
    whole = {
        i
        for (start, end), i in places
        if not any(first <= start and end <= last and last - first > end - start for (first, last), _ in places)
    }
    return sorted(whole)


def _as_written(text: str) -> str:
    return " ".join(text.split())


def _spaced(text: str) -> str:
    return _as_written(text.lower())


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s'-]", " ", text.lower()).split())
