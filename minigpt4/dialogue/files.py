"""Dialogues about many images or videos, a JSON line each, continued where an earlier run stopped."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

from ..errors import UserError
from ..io.jsonl import Output, read_rows
from ..jobs.made_by import BY, IMAGES, check_maker, check_unchanged, digest
from .agents import AgentError, AgentGone, CostCeiling
from .analysis import Truth
from .captioner import Listener, Transcript

Done = Callable[[str, Transcript | str], object]
"""Told the file's name, and its transcript or why there is none."""


def converse_files(
    files: Sequence[Path],
    output: str | os.PathLike,
    run: Callable[[Path, Listener], Transcript],
    done: Done,
    by: str,
    workers: int = 4,
    prepare: Callable[[], object] = lambda: None,
) -> int:
    """A dialogue about each file that `output` does not have yet; returns how many failed.

    Rows are ``{"image": name, "dialogue": transcript, "by", "image_digest"}``, in the order of `files` at the end. A file that
    fails is not written, so that the next run tries it again. At the cost ceiling, or where nobody answers at an
    endpoint, no further dialogue is begun; those cut off by it are not kept. Stopped (Ctrl-C, a full disk), those that run
    end after the round in hand, and what is finished by then is kept.

    Args:
        run: holds the dialogue about one file, and tells a listener of each round; called from several threads.
        by: who takes part, and how (`jobs.made_by`).
        prepare: called before the first dialogue, if any is to be held.

    Raises:
        UserError: `output` is something else, holds dialogues by others, or about an image that has changed since.
    """
    out = Output(output, "dialogue", beside=(BY, IMAGES))
    try:
        check_maker(out.path, out.rows, by)
        return _converse(files, out, run, done, by, workers, prepare)
    finally:
        out.close()


def _converse(
    files: Sequence[Path],
    out: Output,
    run: Callable[[Path, Listener], Transcript],
    done: Done,
    by: str,
    workers: int,
    prepare: Callable[[], object],
) -> int:
    rows = [{"image": str(file)} for file in files]
    shown = out.beside(IMAGES)
    waiting = []
    for file, row in zip(files, rows, strict=True):
        if out.take(row):
            check_unchanged(out.path, [file], shown[out.key(row)])
        else:
            waiting.append(file)
    if waiting:
        prepare()
    todo = iter(waiting)
    failed = 0
    ended: str | None = None
    stopping = Event()

    def listen(kind: str, text: str) -> None:
        if stopping.is_set() and kind != "caption":  # with that, a dialogue is finished
            raise AgentGone("stopped")

    def row_of(file: Path, transcript: Transcript) -> dict[str, Any]:
        if transcript.stopped == "cost ceiling":
            raise CostCeiling(transcript.problems[-1])
        return {"image": str(file), "dialogue": transcript.row(), BY: by, IMAGES: digest([file])}

    with ThreadPoolExecutor(workers) as pool:
        going: dict[Future[Transcript], Path] = {pool.submit(run, file, listen): file for file in islice(todo, workers)}
        try:
            while going:
                ready, _ = wait(going, return_when=FIRST_COMPLETED)
                for future in ready:
                    file = going[future]
                    try:
                        row = row_of(file, future.result())
                    except (UserError, AgentError) as error:
                        failed += 1
                        done(str(file), str(error))
                        if isinstance(error, AgentGone):
                            ended = str(error)
                    else:
                        out.write([row])
                        done(str(file), future.result())
                    del going[future]
                    if ended is None:
                        going |= {pool.submit(run, file, listen): file for file in islice(todo, 1)}
        except BaseException:  # nothing more is begun, and nobody goes on asking for what would be thrown away
            stopping.set()
            pool.shutdown(cancel_futures=True)
            for future, file in going.items():
                if not future.cancelled() and future.exception() is None:
                    with suppress(UserError, AgentError):  # a disk that is full still is
                        out.write([row_of(file, future.result())])
            raise
    out.sort(rows)
    return failed + len(list(todo))


def transcripts_in(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The transcripts that `converse_files` wrote.

    Raises:
        UserError: a line is none.
    """
    found = []
    for number, row in read_rows(path):
        if isinstance(row, UserError):
            raise row
        dialogue = row.get("dialogue")
        if not isinstance(dialogue, dict) or not {"image", "rounds", "caption", "plain"} <= dialogue.keys():
            raise UserError(f'{path}:{number}: no dialogue in this line (expected what "converse --output" writes)')
        found.append(dialogue)
    return found


def truth_in(path: str | os.PathLike) -> Truth:
    """What is in each image: JSON Lines of ``{"image", "objects"}`` or ``{"image", "captions"}``, found by the file's own name.

    Raises:
        UserError: a line is neither.
    """
    known: dict[str, list[str]] = {}
    for number, row in read_rows(path):
        if isinstance(row, UserError):
            raise row
        texts = row.get("objects", row.get("captions", row.get("answers")))
        if not isinstance(row.get("image"), str) or not isinstance(texts, list):
            raise UserError(
                f'{path}:{number}: expected {{"image": FILE, "objects": [...]}} or {{"image": FILE, "captions": [...]}}'
            )
        known.setdefault(os.path.basename(row["image"]), []).extend(map(str, texts))
    return _ByName(known)


class _ByName(dict[str, list[str]]):
    """Looked up by the last part of a path."""

    def __getitem__(self, name: str) -> list[str]:
        return super().__getitem__(os.path.basename(name))

    def __contains__(self, name: object) -> bool:
        return super().__contains__(os.path.basename(str(name)))

    def __iter__(self) -> Iterator[str]:
        return super().__iter__()
