"""Steps of a pipeline: each a JSON Lines file that people may read and edit, each continued after a kill.

A row says what it was made from (``from``: a digest of the row before it and of the step's settings) and what it was when it
was made (``made``: a digest of itself). So a row is made anew when something before it has changed, and a row that a person has
edited is left as the person wrote it. An edited row that a run has no use for (its image was not drawn this time, is another
one now, or a step before it failed) waits in a file beside the step's (``aside``), and comes back when its image does.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import UserError
from ..io.jsonl import Output, Row, read_rows, write_rows
from ..jobs.made_by import IMAGES

Work = Callable[[Sequence[Row]], Sequence[Row]]
"""A batch of rows -> for each what the step adds; ``{"error": why}`` where it failed."""
Elsewhere = Callable[[Sequence[Row]], Iterator[dict[str, Row]]]
"""Rows -> what the step adds to each, by its id, in portions as they are done and in any order."""
Progress = Callable[[str, int, int], object]
"""Told a step's name, how many rows are done and how many there are."""


class Step:
    """One step.

    Args:
        path: its file.
        settings: what its results depend on beside the rows.
        elsewhere: does the work in place of `work`, which is called batch by batch.
    """

    def __init__(self, name: str, path: Path, settings: Any, work: Work, batch: int = 16, elsewhere: Elsewhere | None = None):
        self.name, self.path, self.work, self.batch = name, path, work, batch
        self._elsewhere = elsewhere or self._here
        self._settings = digest(settings)

    def run(self, inputs: Sequence[Row], progress: Progress = lambda *_: None) -> list[Row]:
        """The rows after this step, in the order of `inputs`. Rows that failed before are tried again.

        Raises:
            UserError: its file has a line that is no row.
        """
        out = self._output()
        try:
            return self._run(out, inputs, progress)
        finally:
            out.close()

    def _run(self, out: Output, inputs: Sequence[Row], progress: Progress) -> list[Row]:
        aside = _Aside(self.path)
        known = aside.exchanged(out.rows, inputs)
        made = {row["id"]: digest([self._settings, _content(row)]) for row in inputs}
        todo = [row for row in inputs if not self._stands(known.get(row["id"]), made[row["id"]])]
        done = len(inputs) - len(todo)
        progress(self.name, done, len(inputs))
        by_id = {row["id"]: _content(row) for row in todo}
        for added in self._elsewhere(list(by_id.values())):
            rows = [sealed(by_id[id] | more, made[id]) for id, more in added.items()]
            out.write(rows)
            known |= {row["id"]: row for row in rows}
            done += len(rows)
            progress(self.name, done, len(inputs))
        rows = [known[row["id"]] for row in inputs]
        if rows != out.rows:
            write_rows(self.path, rows)
        aside.close(rows)
        return rows

    def _here(self, rows: Sequence[Row]) -> Iterator[dict[str, Row]]:
        for start in range(0, len(rows), self.batch):
            batch = rows[start : start + self.batch]
            yield {row["id"]: added for row, added in zip(batch, self.work(batch), strict=True)}

    def _stands(self, row: Row | None, origin: str) -> bool:
        return row is not None and "error" not in row and (row["from"] == origin or edited(row))

    def _output(self) -> Output:
        if self.path.is_file():
            numbered = list(read_rows(self.path))
            whole = self.path.read_bytes().endswith(b"\n")
            for place, (number, row) in enumerate(numbered, 1):
                if isinstance(row, UserError):
                    if place < len(numbered) or whole:  # what a kill cut short is dropped, what a person broke is said
                        raise UserError(f"{row}; mend the line, or take it out to have it made anew")
                elif missing := [key for key in ("id", "from", "made") if not isinstance(row.get(key), str)]:
                    raise UserError(
                        f'{self.path}:{number}: no "{missing[0]}" in this row; take the line out to have it made anew'
                    )
        return Output(self.path, "made")


class _Aside:
    """Edited rows that a run has no use for, by id and image. They have a file of their own, which is removed with the last."""

    def __init__(self, step: Path):
        self.path = step.with_suffix(".aside.jsonl")
        self._rows: dict[tuple[str, str | None], Row] = {}
        for _, row in read_rows(self.path) if self.path.is_file() else ():
            if isinstance(row, UserError):
                raise row
            self._rows[row["id"], row.get(IMAGES)] = row

    def exchanged(self, rows: Sequence[Row], inputs: Sequence[Row]) -> dict[str, Row]:
        """A step's rows by id. Edited ones whose image is not among the inputs are put aside, on disk when this returns; those
        that were put aside earlier come back where their image is there again."""
        wanted = {row["id"]: row for row in inputs}
        kept = {row["id"]: row for row in rows}
        useless = [row for row in rows if edited(row) and not _of_image(row, wanted.get(row["id"]))]
        for row in useless:
            self._rows[row["id"], row.get(IMAGES)] = kept.pop(row["id"])
        if useless:
            write_rows(self.path, list(self._rows.values()))
        for row in self._rows.values():
            if _of_image(row, wanted.get(row["id"])) and not (row["id"] in kept and edited(kept[row["id"]])):
                kept[row["id"]] = row
        return kept

    def close(self, rows: Sequence[Row]) -> None:
        """Let go of what is in the step's file again."""
        there = {row["id"]: row for row in rows}
        left = [row for row in self._rows.values() if there.get(row["id"]) != row]
        if not left:
            self.path.unlink(missing_ok=True)
        elif len(left) < len(self._rows):
            write_rows(self.path, left)


def _of_image(row: Row, other: Row | None) -> bool:
    """Whether two rows are about the same image, as far as both say so."""
    return other is not None and (IMAGES not in row or IMAGES not in other or row[IMAGES] == other[IMAGES])


def sealed(row: Row, origin: str) -> Row:
    """A row with its digests."""
    return row | {"from": origin, "made": digest(row)}


def edited(row: Row) -> bool:
    """Whether a person has changed a row since it was made."""
    return row.get("made") != digest(_content(row))


def code_of(*modules: ModuleType) -> dict[str, str]:
    """The code that a step follows, as one of its settings: rows are made anew when it has changed."""
    texts = [Path(module.__file__ or "").read_text(encoding="utf-8") for module in modules]
    return {"code": digest(texts)}


def digest(value: Any) -> str:
    """A short digest of JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _content(row: Row) -> Row:
    return {key: value for key, value in row.items() if key not in ("from", "made")}
