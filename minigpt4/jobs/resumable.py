"""Many pictures at once: files of questions, folders of photos."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..io.jsonl import Output, Row, read_rows, to_json
from ..media.images import EXTENSIONS, check_image

if TYPE_CHECKING:
    from ..inference.assistant import Assistant  # imports `transformers`, which is nothing to wait for to hear of a wrong name

Items = Iterable[tuple[str, Row, Any]]
"""Where each row stands (for messages), the row, and what to ask: a picture, or (pictures, question)."""
Load = Callable[[], "Assistant"]
"""Loads the system; not called if there is nothing to ask."""


def images_in(places: Sequence[Path]) -> list[Path]:
    """Files as they are, folders as the pictures in them (by name, subfolders included).

    Raises:
        UserError: a folder without pictures.
    """
    found: list[Path] = []
    for place in places:
        if os.path.isdir(place):  # unlike Path.is_dir, never an error
            inside = sorted(p for p in place.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
            if not inside:
                raise UserError(f"{place}: no pictures in this folder")
            found += inside
        else:
            found.append(place)
    return found


def caption_files(
    load: Load, images: Sequence[Path], output: Path | None, as_json: bool, batch_size: int, generation: dict
) -> int:
    """Caption pictures to `output`, or to standard output; the exit status says whether all went well."""
    items = [(str(p), {"image": str(p)}, p) for p in images]
    ready = cache(load)

    def answer(batch: list[Path]) -> Sequence[str]:
        return ready().caption(batch, batch_size=batch_size, **generation)

    if output is not None:
        rows = [row for _, row, _ in items]
        return answer_rows(items, rows, Output(output, "caption"), "caption", answer, batch_size, ready)
    failed = 0
    for group in _groups(iter(items), batch_size):
        for (name, row, _), text in _answered(group, answer, ready):
            if text is None:
                failed += 1
            elif as_json:
                print(to_json(row | {"caption": text}), flush=True)
            else:
                print(text if len(items) == 1 else f"{name}: {' '.join(text.split())}", flush=True)
    return 2 if failed == len(items) else int(failed > 0)


def ask_file(load: Load, source: Path, output: Path, batch_size: int, generation: dict) -> int:
    """Answer a JSON Lines file of ``{"image", "question"}``; the exit status says whether every line was answered."""
    if os.path.exists(output) and os.path.exists(source) and os.path.samefile(source, output):
        raise UserError(f"{output}: is the input as well; name another file for the answers")
    failed = 0
    items, rows = [], []
    for number, row in read_rows(source):
        where = f"{source}:{number}"
        if not isinstance(row, UserError):
            row = _checked(row, where)
        if isinstance(row, UserError):
            _complain(row)
            failed += 1
            continue
        images = row["image"] if isinstance(row["image"], list) else [row["image"]]
        items.append((where, row, ([_beside(source, image) for image in images], row["question"])))
        rows.append(row)
    ready = cache(load)

    def answer(batch: list[tuple[list[Path], str]]) -> Sequence[str]:
        return ready().ask_many(batch, batch_size=batch_size, **generation)

    return max(answer_rows(items, rows, Output(output, "answer"), "answer", answer, batch_size, ready), int(failed > 0))


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
    return beside if not os.path.exists(image) and os.path.exists(beside) else Path(image)


def answer_rows(
    items: Items,
    rows: list[Row],
    output: Output,
    key: str,
    answer: Callable[[list], Sequence[str]],
    batch_size: int,
    prepare: Callable[[], object] | None = None,
) -> int:
    """Answer what is not in `output` yet, batch by batch, with a progress bar; the exit status says whether all went well.

    Args:
        rows: those of `items`; `output` is put in their order.
        key: what `output` adds to a row.
        answer: a batch of what to ask -> its answers.
        prepare: called before the bar appears, if there is anything to answer.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    todo = [item for item in items if not output.take(item[1])]
    if todo and prepare is not None:
        prepare()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    failed = 0
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(key, total=len(rows), completed=len(rows) - len(todo))
        for group in _groups(iter(todo), batch_size):
            answered = list(_answered(group, answer))
            good = [row | {key: str(text)} for (_, row, _), text in answered if text is not None]
            output.write(good)
            failed += len(group) - len(good)
            progress.advance(task, len(group))
    output.sort(rows)
    return int(failed > 0)


def _answered(
    group: list, answer: Callable[[list], Sequence[str]], prepare: Callable[[], object] | None = None
) -> Iterator[tuple[Any, str | None]]:
    """The items of a group with their answers, in order; with none where something is wrong, which is said."""
    wrong: dict[int, UserError] = {}
    for i, (*_, asked) in enumerate(group):
        try:
            for image in asked[0] if isinstance(asked, tuple) else [asked]:
                check_image(image)
        except UserError as error:
            wrong[i] = error
    good = [i for i in range(len(group)) if i not in wrong]
    if good and prepare is not None:
        prepare()
    texts: dict[int, str] = {}
    for i, result in _halving(good, lambda some: answer([group[j][2] for j in some])):
        if isinstance(result, UserError):
            wrong[i] = result
        else:
            texts[i] = result
    for i, item in enumerate(group):
        if i in wrong:
            where, _, asked = item
            _complain(wrong[i], where if isinstance(asked, tuple) else None)
        yield item, texts.get(i)


def _halving(some: list[int], answer: Callable[[list[int]], Sequence[str]]) -> Iterator[tuple[int, str | UserError]]:
    """Answers of some items; where they are refused together, they are split until the one at fault stands alone."""
    if not some:
        return
    try:
        yield from zip(some, answer(some), strict=True)
    except UserError as error:
        if len(some) == 1:
            yield some[0], error
            return
        yield from _halving(some[: len(some) // 2], answer)
        yield from _halving(some[len(some) // 2 :], answer)


def _groups(items: Iterator, size: int) -> Iterator[list]:
    while group := list(islice(items, size)):
        yield group


def _complain(error: UserError, where: str | None = None) -> None:
    print(f"error: {where}: {error}" if where else f"error: {error}", file=sys.stderr)
