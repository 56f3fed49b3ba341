"""Many images at once: files of questions, folders of photos. Who wants to see how far it is hands in a `Watch`."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from ..errors import UserError
from ..io.jsonl import Output, Row, read_rows
from ..media.images import ImageInput, check_image, regular_file
from .made_by import BY, EARLIER, IMAGES, PARSED, check_maker, check_unchanged, digest

Item = tuple[str, Row, Any]
"""Where a row stands (for messages), the row, and what to ask: an image, or (images, question)."""


class Answerer(Protocol):
    """What a job needs of `inference.assistant.Assistant`; importing that takes seconds, and a wrong name is said before."""

    def caption(self, images: Any, batch_size: int = 16, **settings: Any) -> Any: ...

    def ask_many(self, items: Any, batch_size: int = 16, **settings: Any) -> Any: ...


Load = Callable[[], Answerer]
"""Loads the system; not called if there is nothing to ask."""


class Watch:
    """Somebody who looks on; this one looks away."""

    def begin(self, what: str, total: int, done: int) -> None:
        """So many answers are wanted, of which some are there from an earlier run."""

    def advance(self, count: int) -> None:
        """So many more were dealt with."""

    def wrong(self, message: str) -> None:
        """Something could not be answered, and why."""

    def end(self) -> None:
        """No more will come."""


@dataclass
class Outcome:
    """What became of a job.

    Args:
        answered: rows that have an answer now, those of earlier runs among them.
        problems: of each row that has none, what is wrong.
    """

    answered: int = 0
    problems: list[str] = field(default_factory=list)


def captions(
    load: Load, images: Sequence[Path], batch_size: int, settings: dict[str, Any], watch: Watch = Watch()
) -> Iterator[tuple[Row, str | None]]:
    """Each image's row with its caption, batch by batch; with none where something is wrong, which `watch` is told."""
    ready = cache(load)

    def answer(batch: list[Path]) -> Sequence[str]:
        return ready().caption(batch, batch_size=batch_size, **settings)

    items = [(str(p), {"image": str(p)}, p) for p in images]
    for group in _groups(iter(items), batch_size):
        for (_, row, _), result in _answered(group, answer, ready):
            if isinstance(result, UserError):
                watch.wrong(str(result))
                yield row, None
            else:
                yield row, result


def caption_file(
    load: Load, images: Sequence[Path], output: Path, by: str, batch_size: int, settings: dict[str, Any], watch: Watch = Watch()
) -> Outcome:
    """Caption images to a JSON Lines file of ``{"image", "caption", "by", "image_digest"}``, which is continued if it exists.

    Args:
        by: who answers (`made_by.signature`).

    Raises:
        UserError: the file holds captions by somebody else, or of an image that has changed since.
    """
    items = [(str(p), {"image": str(p)}, p) for p in images]
    ready = cache(load)

    def answer(batch: list[Path]) -> Sequence[str]:
        return ready().caption(batch, batch_size=batch_size, **settings)

    return answer_rows(items, output, "caption", by, answer, batch_size, ready, watch)


def ask_file(
    load: Load, source: Path, output: Path, by: str, batch_size: int, settings: dict[str, Any], watch: Watch = Watch()
) -> Outcome:
    """Answer a JSON Lines file of ``{"image", "question"}`` to another one, which is continued if it exists.

    The same rows get ``answer``, ``by`` and ``image_digest``; errors are those of `caption_file`.
    """
    if os.path.exists(output) and os.path.exists(source) and os.path.samefile(source, output):
        raise UserError(f"{output}: is the input as well; name another file for the answers")
    problems: list[str] = []
    items = []
    for number, row in read_rows(source):
        where = f"{source}:{number}"
        if not isinstance(row, UserError):
            row = _checked(row, where)
        if isinstance(row, UserError):
            watch.wrong(str(row))
            problems.append(str(row))
            continue
        images = row["image"] if isinstance(row["image"], list) else [row["image"]]
        items.append((where, row, ([_beside(source, image) for image in images], row["question"])))
    ready = cache(load)

    def answer(batch: list[tuple[list[Path], str]]) -> Sequence[str]:
        return ready().ask_many(batch, batch_size=batch_size, **settings)

    outcome = answer_rows(items, output, "answer", by, answer, batch_size, ready, watch)
    return Outcome(outcome.answered, problems + outcome.problems)


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
    items: Sequence[Item],
    file: Path,
    key: str,
    by: str,
    answer: Callable[[list], Sequence[str | UserError]],
    batch_size: int,
    prepare: Callable[[], object] | None = None,
    watch: Watch = Watch(),
    parse: Callable[[Row], Any] | None = None,
    mark_earlier: bool = False,
) -> Outcome:
    """Answer what a file does not answer yet, batch by batch. At the end the file is in the order of the items, and an item has
    one row there at most.

    Args:
        key: what an answer is called in its row; `made_by.BY` and `made_by.IMAGES` stand beside it.
        by: who answers.
        answer: a batch of what to ask -> its answers; in place of one that there is no answer to, what is wrong.
        prepare: called before `watch` hears of the beginning, if there is anything to answer.
        parse: an answered row -> what its answer says, which stands beside it under `made_by.PARSED`.
        mark_earlier: mark rows of the file that answer none of the items with `made_by.EARLIER`.

    Raises:
        UserError: a file that is something else, that another command is writing, that holds answers by somebody else, or
            about an image that has changed since.
    """
    outcome = Outcome()
    mark = EARLIER if mark_earlier else None
    output = Output(file, key, beside=(BY, IMAGES, PARSED, *([mark] if mark else [])))
    try:
        check_maker(file, output.rows, by)
        if mark:  # before anything is asked: a run that is stopped has asked the same
            output.sort((row for _, row, _ in items), mark)
        shown = output.beside(IMAGES)
        todo = []
        for item in items:
            if output.take(item[1]):
                check_unchanged(file, _images_of(item[2]), shown[output.key(item[1])])
            elif message := _absent(item):
                watch.wrong(message)
                outcome.problems.append(message)
            else:
                todo.append(item)
        if todo and prepare is not None:
            prepare()
        outcome.answered = len(items) - len(todo) - len(outcome.problems)
        watch.begin(key, len(items), outcome.answered)
        for group in _groups(iter(todo), batch_size):
            good = []
            for (where, row, asked), result in _answered(group, answer):
                if isinstance(result, UserError):
                    outcome.problems.append(_placed(where, asked, result))
                    watch.wrong(outcome.problems[-1])
                else:
                    seen = digest(_images_of(asked))
                    done = row | {key: str(result), BY: by} | ({IMAGES: seen} if seen else {})
                    good.append(done if parse is None else done | {PARSED: parse(done)})
            output.write(good)
            outcome.answered += len(good)
            watch.advance(len(group))
        output.sort((row for _, row, _ in items), mark)
    finally:
        watch.end()
        output.close()
    return outcome


def _images_of(asked: Any) -> list[ImageInput]:
    return asked[0] if isinstance(asked, tuple) else [asked]


def _placed(where: str, asked: Any, error: UserError) -> str:
    """An error with the place of its row, which an image's own name is."""
    return f"{where}: {error}" if isinstance(asked, tuple) else str(error)


def _absent(item: Item) -> str | None:
    """What is wrong if an image of an item is not there; the others are asked about."""
    where, _, asked = item
    try:
        for image in _images_of(asked):
            if isinstance(image, str | os.PathLike):
                regular_file(image)
    except UserError as error:
        return _placed(where, asked, error)
    return None


def _answered(
    group: list, answer: Callable[[list], Sequence[str | UserError]], prepare: Callable[[], object] | None = None
) -> Iterator[tuple[Any, str | UserError]]:
    """The items of a group with their answers, in order; with what is wrong where something is. If `prepare` fails, all do."""
    found: dict[int, str | UserError] = {}
    for i, (*_, asked) in enumerate(group):
        try:
            for image in _images_of(asked):
                check_image(image)
        except UserError as error:
            found[i] = error
    good = [i for i in range(len(group)) if i not in found]
    if good and prepare is not None:
        prepare()
    found |= dict(_halving(good, lambda some: answer([group[j][2] for j in some])))
    for i, item in enumerate(group):
        yield item, found[i]


def _halving(
    some: list[int], answer: Callable[[list[int]], Sequence[str | UserError]]
) -> Iterator[tuple[int, str | UserError]]:
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
