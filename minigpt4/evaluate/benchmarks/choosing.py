"""What benchmarks with given answers have in common: the answers of a row, and which one a written answer means."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import UserError
from ...prompt.tasks import TASKS

Row = dict[str, Any]
_LETTER = re.compile(
    r"^\W*([A-Za-z])(?:\W*$|[).:]\s)|\b(?:answer|option|choice)(?: is)?\W*\(?([A-Za-z])\b(?!['\w])", re.IGNORECASE
)


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
    said = _plain(text)
    plain = [_plain(choice) for choice in choices]
    if said in plain:
        return plain.index(said)
    if (found := _LETTER.search(text.strip())) and (place := ord((found[1] or found[2]).upper()) - 65) < len(choices):
        return place
    within = [i for i, choice in enumerate(plain) if choice and re.search(rf"\b{re.escape(choice)}\b", said)]
    longest = [i for i in within if not any(i != j and plain[i] in plain[j] for j in within)]
    return longest[0] if len(longest) == 1 else None


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s'-]", " ", text.lower()).split())
