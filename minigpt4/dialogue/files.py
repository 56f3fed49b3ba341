"""Dialogues about many images or videos, a JSON line each, continued where an earlier run stopped."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..io.jsonl import Output, read_rows
from .agents import AgentError, CostCeiling
from .analysis import Truth
from .captioner import Transcript

Done = Callable[[str, Transcript | str], object]
"""Told the file's name, and its transcript or why there is none."""


def converse_files(
    files: Sequence[Path], output: str | os.PathLike, run: Callable[[Path], Transcript], done: Done, workers: int = 4
) -> int:
    """A dialogue about each file that `output` does not have yet; returns how many failed.

    Rows are ``{"image": name, "dialogue": transcript}``, in the order of `files` at the end. A file that fails is not written,
    so that the next run tries it again. At the cost ceiling no further dialogue is begun; those cut off by it are not kept.

    Args:
        run: holds the dialogue about one file; called from several threads.
    """
    out = Output(output, "dialogue")
    try:
        return _converse(out, files, run, done, workers)
    finally:
        out.close()


def _converse(out: Output, files: Sequence[Path], run: Callable[[Path], Transcript], done: Done, workers: int) -> int:
    rows = [{"image": str(file)} for file in files]
    todo = iter([file for file, row in zip(files, rows, strict=True) if not out.take(row)])
    failed = 0
    ceiling: str | None = None
    with ThreadPoolExecutor(workers) as pool:
        going: dict[Future[Transcript], Path] = {pool.submit(run, file): file for file in islice(todo, workers)}
        while going:
            ready, _ = wait(going, return_when=FIRST_COMPLETED)
            for future in ready:
                file = going.pop(future)
                try:
                    transcript = future.result()
                    if transcript.stopped == "cost ceiling":
                        raise CostCeiling(transcript.problems[-1])
                    out.write([{"image": str(file), "dialogue": transcript.row()}])
                    done(str(file), transcript)
                except (UserError, AgentError) as error:
                    failed += 1
                    done(str(file), str(error))
                    if isinstance(error, CostCeiling):
                        ceiling = str(error)
                if ceiling is None:
                    going |= {pool.submit(run, file): file for file in islice(todo, 1)}
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
