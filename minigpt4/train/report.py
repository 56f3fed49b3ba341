"""A page about a finished run: curves, answers, settings; one file without anything to fetch."""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..io.atomic import write_text
from .tracking import read_records

_WIDTH, _HEIGHT, _MARGIN = 680, 240, 44

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 760px; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: 13px } svg { width: 100%; height: auto }
.axis { stroke: #999; stroke-width: 1 } .tick { font-size: 11px; fill: #666 }
"""
_COLOURS = ("#0b62a4", "#c8500a", "#2a7d3f", "#8a3d9b", "#9a7d0a", "#444444")


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from what a run has left in `folder` (metrics.jsonl and recipe.yaml)."""
    rows = read_records(folder / "metrics.jsonl")
    recipe = (folder / "recipe.yaml").read_text(encoding="utf-8")
    train = [row for row in rows if "loss" in row]
    valid = [row for row in rows if any(key.startswith("valid_loss") for key in row)]
    names = sorted({key for row in valid for key in row if key.startswith("valid_loss/")})
    # A step that learns from a reward has a loss whose value says nothing; its reward is what rises.
    curves = {"training": _smooth([(row["step"], row["loss"]) for row in train if "reward" not in row])}
    rewards = {name: [(row["step"], row[name]) for row in train if name in row] for name in ("reward", "reward_best")}
    curves |= {name.removeprefix("valid_loss/"): [(row["step"], row[name]) for row in valid if name in row] for name in names}
    parts = [
        f"<h1>{html.escape(folder.name)}</h1>",
        _facts(train, valid),
        "<h2>Loss per supervised token</h2>",
        chart(curves),
        *(["<h2>Reward of the model's own captions</h2>", chart(rewards)] if rewards["reward"] else []),
        "<h2>Learning rate</h2>",
        chart({"learning rate": [(row["step"], row["lr"]) for row in train]}),
        "<h2>Speed</h2>",
        chart({"tokens a second": _smooth([(row["step"], row["tokens_per_s"]) for row in train])}, from_zero=True),
        _answers(rows),
        "<h2>Recipe</h2>",
        f"<pre>{html.escape(recipe)}</pre>",
    ]
    page = f"<!doctype html><meta charset=utf-8><title>{html.escape(folder.name)}</title><style>{_STYLE}</style>"
    path = folder / "report.html"
    text = page + "\n".join(parts)
    write_text(path, text.encode(errors="replace").decode())  # half a character in a name is no reason to have no report
    return path


def _facts(train: Sequence[dict[str, Any]], valid: Sequence[dict[str, Any]]) -> str:
    facts = []
    if train:
        last = train[-50:]
        facts += [("steps", f"{train[-1]['step']:,}"), ("loss at the end", f"{_mean(r['loss'] for r in last):.4f}")]
        facts += [
            ("tokens a second", f"{_mean(r['tokens_per_s'] for r in last):,.0f}"),
            ("samples a second", f"{_mean(r['samples_per_s'] for r in last):.1f}"),
            ("share of the measured matrix-product peak", f"{_mean(r['mfu'] for r in last):.0%}"),
        ]
    if losses := [row["valid_loss"] for row in valid if "valid_loss" in row]:
        facts.append(("validation loss at the end (best)", f"{losses[-1]:.4f} ({min(losses):.4f})"))
    return "<table>" + "".join(f"<tr><th>{name}<td>{value}" for name, value in facts) + "</table>"


def _answers(rows: Sequence[dict[str, Any]]) -> str:
    told = [(row["step"], key.removeprefix("answer/"), row[key]) for row in rows for key in row if key.startswith("answer/")]
    if not told:
        return ""
    lines = "".join(f"<tr><td>{step}<td>{html.escape(name)}<td>{html.escape(text)}" for step, name, text in told)
    return f"<h2>Answers on the way</h2><table><tr><th>step<th>picture<th>answer{lines}</table>"


def chart(curves: dict[str, list[tuple[float, float]]], from_zero: bool = False) -> str:
    """Curves of (step, value) as SVG, with a legend."""
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return "<p>Nothing was recorded.</p>"
    right = max(x for x, _ in points) or 1
    low, high = (0.0 if from_zero else min(y for _, y in points)), max(y for _, y in points)
    span = (high - low) or abs(high) or 1

    def place(x: float, y: float) -> str:
        across = _MARGIN + x / right * (_WIDTH - _MARGIN - 8)
        return f"{across:.1f},{_HEIGHT - 24 - (y - low) / span * (_HEIGHT - 40):.1f}"

    lines = []
    for number, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(place(x, y) for x, y in curve)
        lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/>')
        lines.append(
            f'<text x="{_MARGIN + 10 + 150 * number}" y="12" fill="{colour}" font-size="12">{html.escape(name)}</text>'
        )
    axes = f'<path class="axis" fill="none" d="M{_MARGIN},16 V{_HEIGHT - 24} H{_WIDTH - 8}"/>'
    ticks = [
        f'<text class="tick" x="4" y="{float(place(0, y).split(",")[1]) + 4:.1f}">{y:.3g}</text>'
        for y in (low, low + span / 2, low + span)
    ]
    ticks += [
        f'<text class="tick" x="{place(x, low).split(",")[0]}" y="{_HEIGHT - 8}" text-anchor="middle">{x:,.0f}</text>'
        for x in (0, right / 2, right)
    ]
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{axes}{"".join(ticks)}{"".join(lines)}</svg>'


def _smooth(curve: list[tuple[float, float]], points: int = 400) -> list[tuple[float, float]]:
    """At most `points` points, each the mean of its neighbours."""
    width = max(len(curve) // points, 1)
    groups = [curve[i : i + width] for i in range(0, len(curve), width)]
    return [(group[-1][0], _mean(y for _, y in group)) for group in groups]


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / max(len(found), 1)
