"""What an evaluation says: lines of scores side by side, as a table or as JSON."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..metrics.interval import Score

_MODEL, _BLIND = "model", "model, blank-image"
"""How lines of the model's own answers are called, and of those before a grey picture."""

_NEITHER = {"words", "yes ratio", "chance"}
"""Measures of which neither more nor less is better."""

_PLAIN = {"CIDEr": (1, 3), "words": (1, 1), "captions covered": (1, 2)}
"""Measures that are no shares: by what they are multiplied to be shown, and with how many decimals."""


@dataclass(frozen=True)
class Line:
    """One way to answer (the model, a baseline) and its scores by the name of the measure."""

    name: str
    scores: Mapping[str, Score]
    note: str = ""


@dataclass(frozen=True)
class Report:
    """All lines of a benchmark.

    Args:
        items: how many questions were scored.
        notes: what a reader of the numbers must know.
        less: measures of which less is better.
    """

    benchmark: str
    items: int
    lines: Sequence[Line]
    notes: Sequence[str] = ()
    less: Collection[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON; what was not defined is null. ``ahead`` is how far the model is ahead of the line, by each measure."""
        lines = [
            {"name": line.name, **{name: _numbers(score) for name, score in line.scores.items()}}
            | ({"ahead": {name: _numbers(score) for name, score in ahead.items()}} if (ahead := self._ahead(line)) else {})
            | ({"note": line.note} if line.note else {})
            for line in self.lines
        ]
        return {"benchmark": self.benchmark, "items": self.items, "lines": lines, "notes": list(self.notes)}

    def cells(self) -> list[list[str]]:
        """The table, its head first: each score with its 95 % interval, and how far the model is ahead by the first measure,
        with an interval of its own; CIDEr and words are plain numbers, all others are percent."""
        measures = list(dict.fromkeys(name for line in self.lines for name in line.scores))
        ahead = [_cell(measures[0], self._ahead(line).get(measures[0]), "+") for line in self.lines]
        rows = [[self.benchmark, *measures, "model ahead by" if any(ahead) else "", ""]]
        for line, lead in zip(self.lines, ahead, strict=True):
            rows.append([line.name, *(_cell(name, line.scores.get(name)) for name in measures), lead, line.note])
        return rows

    def as_text(self) -> str:
        """The table for a terminal, with how many questions there were and what must be known beside it."""
        rows = self.cells()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([table[0], "-" * max(map(len, table)), *table[1:], "", f"{self.items:,} questions", *self.notes])

    def _ahead(self, line: Line) -> dict[str, Score]:
        """By measure, how much better the model did than a line about the same questions; empty for the model itself."""
        block, _, name = line.name.rpartition(": ")  # of some kinds of questions alone, such as those for one class
        model = name.replace(_BLIND, _MODEL) if _BLIND in name else _MODEL
        found = next((own for own in self.lines if own.name == (f"{block}: {model}" if block else model)), None)
        if found is None or found is line:
            return {}
        both = {name: (found.scores[name], score) for name, score in line.scores.items() if name in found.scores}
        return {
            name: theirs - own if name in self.less else own - theirs
            for name, (own, theirs) in both.items()
            if name not in _NEITHER
        }


def _numbers(score: Score) -> dict[str, float | None]:
    values = {"value": score.value, "low": score.low, "high": score.high}
    return {name: None if math.isnan(value) else round(value, 6) for name, value in values.items()}


def _cell(measure: str, score: Score | None, sign: str = "") -> str:
    if score is None:
        return ""
    if math.isnan(score.value):
        return "-"
    scale, digits = _PLAIN.get(measure, (100, 1))
    value, low, high = (f"{scale * v:{sign}.{digits}f}" for v in (score.value, score.low, score.high))
    return value.rjust(5) + ("" if math.isnan(score.low) else f" ({low} .. {high})")
