"""What all ways of storing rows of our own schema have in common (the schema is in `data.schema`)."""

from functools import partial
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...prompt.boxes import Rounding
from ...prompt.tasks import TASKS
from ..schema import DESCRIBE, Row, Style, parse_row
from ..source import Problem
from .fields import choose, malformed
from .index import Indexed, Store


def own_rows(
    stores: list[Store],
    *,
    name: str,
    missing: str = "error",
    split: str | None = None,
    task: str | None = None,
    captions: str = "one",
    prompts: str | list[str] | None = None,
    rounding: Rounding = "nearest",
) -> Indexed:
    """A dataset of rows of our schema.

    Args:
        split: only rows whose ``split`` is this.
        task: only rows that are of this task, or name none and can serve it; what phrases without a task are used for.
        captions: of a description with several answers, ``one`` makes a sample of each, ``all`` one sample that has them
            side by side.
        prompts: as in `prompts_of`.
        rounding: how box corners go on the grid of 0 to 100.
    """
    choose("task", task, (None, *TASKS))
    choose("captions", captions, ("one", "all"))
    style = style_of(prompts, rounding)
    wanted = partial(_wanted, split=split, task=task)
    return Indexed(name, stores, missing=missing, wanted=wanted, task=task, captions=captions, style=style, placing=True)


def style_of(prompts: str | list[str] | None = None, rounding: Rounding = "nearest") -> Style:
    """How rows are worded where they leave it open."""
    return Style(prompts=prompts_of(prompts), rounding=choose("rounding", rounding, ("nearest", "truncate")))


def _wanted(row: Row, split: str | None, task: str | None) -> bool:
    """Whether the options ask for this row. Raises UserError if the row does not say what they ask about."""
    if split is not None:
        if row.split is None:
            raise UserError(f'{row.where}: no "split", but the option split asks for {split!r}')
        if row.split != split:
            return False
    if not row.can(task):
        return False
    row.must_serve(task)
    return True


def understood(raw: Any, where: str, images: tuple[Any, ...] | None = None) -> Row | Problem:
    """A row of our schema, or what is wrong with it; `raw` may be the error that says why there is none."""
    try:
        if isinstance(raw, UserError):
            raise raw
        return parse_row(raw, where, images)
    except UserError as error:
        return malformed(where, error)


def again(raw: Any, where: str, images: tuple[Any, ...] | None = None) -> Row:
    """A row that was understood before. Raises UserError if it no longer is."""
    row = understood(raw, where, images)
    if isinstance(row, Row):
        return row
    raise UserError(f"{row.message} (the file has changed since it was opened)")


def prompts_of(given: str | list[str] | None) -> tuple[str, ...]:
    """Questions to draw from for descriptions that name no task: a list, a file with one a line, ``none`` to ask nothing (as
    MiniGPT-4's first stage), or the four of its second stage when not given.

    A published line begins with the picture's placeholder; ours do not, the picture stands first anyway.
    """
    if given is None:
        return DESCRIBE
    if given == "none":
        return ()
    if isinstance(given, str):
        try:
            given = Path(given).read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError):
            raise UserError(f"prompts: {given} cannot be read; expected a list, a file with one a line, or none") from None
    if not isinstance(given, list) or not all(isinstance(line, str) for line in given):
        raise UserError("prompts: expected a list of texts, a file with one a line, or none")
    lines = tuple(line.replace("<Img><ImageHere></Img>", "").strip() for line in given if line.strip())
    if not lines:
        raise UserError("prompts: there are none in it; to ask nothing, write none")
    return lines
