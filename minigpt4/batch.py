"""Many pictures at once: files of questions, folders of photos."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from .assistant import Assistant
from .errors import UserError
from .jsonl import Output, Row, read_rows
from .pictures import EXTENSIONS, open_picture

Items = Iterator[tuple[str, Row, Any]]  # where it stands, the row, and what to ask


def pictures_in(places: Sequence[Path]) -> list[Path]:
    """Files as they are, folders as the pictures in them (by name, subfolders included).

    Raises:
        UserError: a folder without pictures.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = sorted(p for p in place.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
            if not inside:
                raise UserError(f"{place}: no pictures in this folder")
            found += inside
        else:
            found.append(place)
    return found


def caption_files(
    assistant: Assistant,
    pictures: Sequence[Path],
    output: Path | None,
    as_json: bool,
    batch_size: int,
    generation: dict,
) -> int:
    """Caption pictures to `output`, or to standard output; the exit status says whether all went well."""
    items = [(str(p), {"image": str(p)}, p) for p in pictures]

    def answer(batch: list[Path]) -> Sequence[str]:
        return assistant.caption(batch, batch_size=batch_size, **generation)

    if output is not None:
        return answer_rows(iter(items), [row for _, row, _ in items], Output(output, "caption"), "caption", answer, batch_size)
    failed = 0
    for group in _groups(iter(items), batch_size):
        good, bad = _readable(group)
        failed += bad
        for (name, row, _), text in zip(good, answer([p for *_, p in good]) if good else [], strict=True):
            if as_json:
                print(json.dumps(row | {"caption": text}, ensure_ascii=False), flush=True)
            else:
                print(text if len(items) == 1 else f"{name}: {text}", flush=True)
    return 2 if failed == len(items) else int(failed > 0)


def ask_file(assistant: Assistant, source: Path, output: Path, batch_size: int, generation: dict) -> int:
    """Answer a JSON Lines file of ``{"image", "question"}``; the exit status says whether every line was answered."""
    bad: list[UserError] = []
    items, rows = [], []
    for number, row in read_rows(source):
        where = f"{source}:{number}"
        if not isinstance(row, UserError):
            row = _checked(row, where)
        if isinstance(row, UserError):
            bad.append(row)
            continue
        images = row["image"] if isinstance(row["image"], list) else [row["image"]]
        items.append((where, row, ([_beside(source, image) for image in images], row["question"])))
        rows.append(row)
    for error in bad:
        _complain(error)

    def answer(batch: list[tuple[list[Path], str]]) -> Sequence[str]:
        return assistant.ask_many(batch, batch_size=batch_size, **generation)

    return max(answer_rows(iter(items), rows, Output(output, "answer"), "answer", answer, batch_size), int(bool(bad)))


def _checked(row: Row, where: str) -> Row | UserError:
    """A question row, or what is wrong with it."""
    for key in ("image", "question"):
        if key not in row:
            return UserError(f'{where}: no "{key}" (a line is {{"image": FILE, "question": TEXT}})')
    images = row["image"] if isinstance(row["image"], list) else [row["image"]]
    if not images or not all(isinstance(image, str) for image in images):
        return UserError(f'{where}: "image" must be a file name, or a list of them')
    return row if isinstance(row["question"], str) else UserError(f'{where}: "question" must be text')


def _beside(source: Path, image: str) -> Path:
    """A picture named in a file: as it is, or relative to the file's own folder."""
    beside = source.parent / image
    return beside if not Path(image).exists() and beside.exists() else Path(image)


def answer_rows(
    items: Items, rows: list[Row], output: Output, key: str, answer: Callable[[list], Sequence[str]], batch_size: int
) -> int:
    """Answer what is not in `output` yet, batch by batch, with a progress bar; the exit status says whether all went well.

    Args:
        items: where each row stands (for messages), the row, and what to ask: a picture, or (pictures, question).
        rows: the same rows; `output` is put in their order.
        key: what `output` adds to a row.
        answer: a batch of what to ask -> its answers.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    failed = 0
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(key, total=len(rows))
        todo = [item for item in items if not output.take(item[1])]
        progress.advance(task, len(rows) - len(todo))
        for group in _groups(iter(todo), batch_size):
            good, bad = _readable(group)
            failed += bad
            answered: list[Row] = []
            for some in _halving(good, answer):
                if isinstance(some, tuple):
                    _complain(some[1], some[0])
                    failed += 1
                else:
                    answered += [row | {key: str(text)} for (_, row, _), text in some]
            output.write(answered)
            progress.advance(task, len(group))
    output.sort(rows)
    return int(failed > 0)


def _halving(group: list, answer: Callable[[list], Sequence[str]]) -> Iterator[Any]:
    """Answers of a group; a group that is refused is split until the row at fault stands alone, as (where, error)."""
    if not group:
        return
    try:
        yield list(zip(group, answer([asked for *_, asked in group]), strict=True))
    except UserError as error:
        if len(group) == 1:
            yield group[0][0], error
            return
        yield from _halving(group[: len(group) // 2], answer)
        yield from _halving(group[len(group) // 2 :], answer)


def _readable(group: list) -> tuple[list, int]:
    """The items of a group whose pictures open, and the number of the others, each said."""
    good, bad = [], 0
    for where, row, asked in group:
        try:
            for picture in asked[0] if isinstance(asked, tuple) else [asked]:
                open_picture(picture)
        except UserError as error:
            _complain(error, where if isinstance(asked, tuple) else None)
            bad += 1
        else:
            good.append((where, row, asked))
    return good, bad


def _groups(items: Iterator, size: int) -> Iterator[list]:
    while group := list(islice(items, size)):
        yield group


def _complain(error: UserError, where: str | None = None) -> None:
    print(f"error: {where}: {error}" if where else f"error: {error}", file=sys.stderr)
