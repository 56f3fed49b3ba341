"""Dialogues that change their task from turn to turn, made of what is known about one picture.

MiniGPT-v2's third stage has such data (paper, section 3.3). Here it is made from rows of our schema: captions, questions,
phrases with boxes, texts with boxes. A later turn never asks for what an earlier one has given away: a phrase and its boxes
come up once in a dialogue.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.sample import Turn
from ..data.schema import Description, GroundedText, Phrase, Question, Row, Style, parse_row
from ..errors import UserError
from ..io.jsonl import read_rows, write_rows

MOST_TURNS = 4
_OVERVIEWS = ("caption", "grounding", "describe")  # what is said of the whole picture: first, and one of them only
_POINTING = ("refer", "identify", "detection")

Choice = tuple[Row, str | None]
"""A row, and the task it is used for."""


def make_conversation(rows: Sequence[Row], rng: random.Random, style: Style | None = None) -> dict[str, Any] | None:
    """A row of the form ``conversation`` with two to four turns of different tasks.

    Args:
        rows: what is known, all about the same picture.
        rng: makes every choice: how many turns, which tasks, which rows, which wording, which of several answers.

    Returns:
        The row, or None where the rows do not serve two tasks.
    """
    options = _options(rows)
    overviews = [task for task in options if task in _OVERVIEWS]
    others = [task for task in options if task not in _OVERVIEWS]
    rng.shuffle(overviews)
    rng.shuffle(others)
    wanted = rng.randint(2, MOST_TURNS)
    for overview in overviews or [""]:
        used, messages = _talk(([overview] if overview else []) + others, options, wanted, rng, style or Style())
        if len(used) > 1:
            break
    else:
        return None
    made: dict[str, Any] = {"image": used[0][0].images[0], "conversation": messages}
    splits = {row.split for row in rows}
    if len(splits) == 1 and None not in splits:
        made["split"] = splits.pop()
    return made


def _talk(
    tasks: Sequence[str], options: dict[str, list[Choice]], wanted: int, rng: random.Random, style: Style
) -> tuple[list[Choice], list[dict[str, str]]]:
    """Turns of these tasks in this order until there are as many as wanted: what they are about, and what is said."""
    used: list[Choice] = []
    messages: list[dict[str, str]] = []
    for task in tasks:
        free = [choice for choice in options[task] if not _given_away(choice, used)]
        if len(used) == wanted or not free:
            continue
        choice = rng.choice(free)
        turn = _turn(*choice, rng, style)
        messages += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": rng.choice(turn.answers)}]
        used.append(choice)
    return used, messages


def make_conversations(
    rows: Iterable[Row], seed: int = 0, per_image: int = 1, style: Style | None = None
) -> Iterator[dict[str, Any]]:
    """Conversations about every picture that is known well enough, in the order in which pictures first come up.

    The same rows and seed give the same conversations; rows of other pictures make no difference.
    """
    by_image: dict[Any, list[Row]] = {}
    for row in rows:
        if len(row.images) == 1:
            by_image.setdefault(row.images[0], []).append(row)
    for image, known in by_image.items():
        made = []
        for number in range(per_image):
            conversation = make_conversation(known, random.Random(f"{seed}/{image}/{number}"), style)
            if conversation and conversation not in made:
                made.append(conversation)
                yield conversation


def conversations_file(source: str | Path, output: str | Path, seed: int = 0, per_image: int = 1) -> int:
    """Make conversations from a JSON Lines file of our schema; returns how many were written.

    Raises:
        UserError: a row is malformed, or no picture is known well enough.
    """
    rows = []
    for number, raw in read_rows(source):
        if isinstance(raw, UserError):
            raise raw
        rows.append(parse_row(raw, f"{source}:{number}"))
    made = list(make_conversations(rows, seed, per_image))
    if not made:
        raise UserError(f"{source}: no picture has rows for two tasks, so there is nothing to make a conversation of")
    write_rows(output, made)
    return len(made)


def _options(rows: Sequence[Row]) -> dict[str, list[Choice]]:
    """What can be asked, by task."""
    found: dict[str, list[Choice]] = {}
    for row in rows:
        for task, choice in _uses(row):
            found.setdefault(task, []).append(choice)
    return found


def _uses(row: Row) -> Iterator[tuple[str, Choice]]:
    if isinstance(row, Description):
        yield (row.task, (row, row.task)) if row.task else ("describe", (row, None))
    elif isinstance(row, Question):
        yield "vqa", (row, row.task)
    elif isinstance(row, Phrase):
        for task in [row.task] if row.task else _POINTING:
            yield task, (row, task)
    elif isinstance(row, GroundedText):
        if row.can("grounding"):
            yield "grounding", (row, "grounding")
        if row.can("caption"):
            yield "caption", (row, "caption")
        for span in row.spans:  # each of its phrases can be asked about by itself
            phrase = Phrase(
                where=row.where, images=row.images, split=row.split, phrase=row.text[span.start : span.end], places=span.boxes
            )
            for task in _POINTING:
                yield task, (phrase, task)


def _turn(row: Row, task: str | None, rng: random.Random, style: Style) -> Turn:
    if isinstance(row, Description) and len(row.answers) > 1:
        row = replace(row, answers=(rng.choice(row.answers),))
    return row.turns(task, rng, style)[0]


def _given_away(choice: Choice, used: Sequence[Choice]) -> bool:
    """Whether earlier turns have said what this one would be asked for."""
    said = {known for earlier in used for known in _tells(*earlier)}
    return any(known in said for known in _tells(*choice))


def _tells(row: Row, task: str | None) -> Iterator[Any]:
    """The phrases that a turn ties to boxes, and the boxes."""
    if isinstance(row, Phrase):
        yield row.phrase.casefold()
        yield row.places
    elif isinstance(row, GroundedText) and task != "caption":
        for span in row.spans:
            yield row.text[span.start : span.end].casefold()
            yield span.boxes
