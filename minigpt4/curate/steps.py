"""Steps of a pipeline: each a JSON Lines file that people may read and edit, each continued after a kill.

A row says what it was made from (``from``: a digest of the row before it and of the step's settings) and what it was when it
was made (``made``: a digest of itself). So a row is made anew when something before it has changed, and a row that a person has
edited is left as the person wrote it.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..io.jsonl import Output, Row, read_rows, write_rows

Work = Callable[[Sequence[Row]], Sequence[Row]]
"""A batch of rows -> for each what the step adds; ``{"error": why}`` where it failed."""
Progress = Callable[[str, int, int], object]
"""Told a step's name, how many rows are done and how many there are."""


class Step:
    """One step.

    Args:
        path: its file.
        settings: what its results depend on beside the rows.
    """

    def __init__(self, name: str, path: Path, settings: Any, work: Work, batch: int = 16):
        self.name, self.path, self.work, self.batch = name, path, work, batch
        self._settings = digest(settings)

    def run(self, inputs: Sequence[Row], progress: Progress = lambda *_: None) -> list[Row]:
        """The rows after this step, in the order of `inputs`. Rows that failed before are tried again.

        Raises:
            UserError: its file has a line that is no row.
        """
        out = self._output()
        known: dict[str, Row] = {row["id"]: row for row in out.rows}
        made = {row["id"]: digest([self._settings, _content(row)]) for row in inputs}
        todo = [row for row in inputs if not self._stands(known.get(row["id"]), made[row["id"]])]
        done = len(inputs) - len(todo)
        progress(self.name, done, len(inputs))
        for start in range(0, len(todo), self.batch):
            batch = todo[start : start + self.batch]
            added = self.work([_content(row) for row in batch])
            rows = [sealed(_content(row) | more, made[row["id"]]) for row, more in zip(batch, added, strict=True)]
            out.write(rows)
            known |= {row["id"]: row for row in rows}
            done += len(rows)
            progress(self.name, done, len(inputs))
        rows = [known[row["id"]] for row in inputs]
        if rows != out.rows:
            write_rows(self.path, rows)
        return rows

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


def sealed(row: Row, origin: str) -> Row:
    """A row with its digests."""
    return row | {"from": origin, "made": digest(row)}


def edited(row: Row) -> bool:
    """Whether a person has changed a row since it was made."""
    return row.get("made") != digest(_content(row))


def digest(value: Any) -> str:
    """A short digest of JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _content(row: Row) -> Row:
    return {key: value for key, value in row.items() if key not in ("from", "made")}
