"""The report of a suite, as a page and as Markdown: every table with its intervals, and a few answers of each benchmark."""

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..io.atomic import write_text
from ..jobs.made_by import BY, EARLIER, IMAGES, PARSED
from ..reports.page import page
from .benchmarks.base import Row
from .suite import Part

HTML, MARKDOWN = "report.html", "report.md"
_SHOWN, _CHARACTERS = 4, 200
_NO_TRUTH = frozenset(
    ("benchmark", "image", "prompt", "answer", "again", "width", "height", "largest", BY, IMAGES, PARSED, EARLIER)
)


def write_reports(parts: Sequence[Part], by: str, output: Path) -> None:
    """Write `HTML` and `MARKDOWN` into a folder. The same answers give the same text, but for the line that says when."""
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    sections = [_section(part) for part in parts]
    write_text(output / MARKDOWN, _markdown(sections, by, written))
    write_text(output / HTML, page("evaluation.html", sections=sections, by=by, written=written))


def _section(part: Part) -> dict[str, Any]:
    """What the page and the text say of one benchmark."""
    if part.report is None:
        return {"name": part.wanted.name, "failed": part.failed}
    head, *lines = part.report.cells()
    columns = [i for i in range(len(head)) if any(row[i].strip() for row in (head, *lines))]
    head[0], head[-1] = "", ""
    return {
        "name": part.wanted.name,
        "benchmark": part.wanted.benchmark,
        "failed": None,
        "items": part.report.items,
        "head": [head[i].strip() for i in columns],
        "lines": [[line[i].strip() for i in columns] for line in lines],
        "notes": list(part.report.notes),
        "problems": len(part.problems),
        "answers": [_shown(row) for row in _drawn(part.rows)],
    }


def _drawn(rows: Sequence[Row]) -> list[Row]:
    """A few rows, the same ones each time."""
    places = sorted(random.Random(0).sample(range(len(rows)), min(_SHOWN, len(rows))))
    return [rows[i] for i in places]


def _shown(row: Row) -> dict[str, str]:
    truth = {key: value for key, value in row.items() if key not in _NO_TRUTH}
    return {
        "image": Path(row["image"]).name,
        "prompt": _short(row.get("prompt", "")),
        "answer": _short(row["answer"]),
        "truth": _short(json.dumps(truth, ensure_ascii=False)),
    }


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 3] + "..."


def _markdown(sections: Sequence[dict[str, Any]], by: str, written: str) -> str:
    lines = ["# Evaluation", "", f"{_plain(by)}. Written {written}.", ""]
    lines += ["Scores are percent but for CIDEr and words; in brackets the 95 % bootstrap interval over images.", ""]
    for section in sections:
        lines += [f"## {_plain(section['name'])}", ""]
        if section["failed"] is not None:
            lines += [f"Not measured: {_plain(section['failed'])}", ""]
            continue
        lines += [_row(section["head"]), _row(["---"] * len(section["head"])), *map(_row, section["lines"]), ""]
        told = [f"{section['items']:,} questions", *section["notes"]]
        lines += [f"- {_plain(note)}" for note in told]
        lines += ["", "| image | asked | answered | truth |", "|---|---|---|---|"]
        lines += [_row([one[key] for key in ("image", "prompt", "answer", "truth")]) for one in section["answers"]]
        lines += [""]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: no markup of others' words."""
    text = " ".join(text.split())
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return text
