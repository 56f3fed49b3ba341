"""The end of a curation: the files that training reads, and the page that tells how it went."""

import json
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from ..errors import UserError
from ..io.atomic import whole_file, write_text
from ..io.jsonl import Row, write_rows
from ..media.images import open_image
from ..reports.page import write_page
from .pipeline import FILES, Curated
from .recipe import Recipe
from .review import LOG, Review, agreement, verdict
from .rules import SAYS, words
from .steps import edited

SHOWN = 20
"""Texts of either kind that the report shows."""


def exported(recipe: Recipe, done: Curated) -> list[Row]:
    """Write ``export/`` and ``report.html`` into the recipe's folder; returns the rows that were kept.

    A row is ``{"id", "image", "text"}``.

    ``export/filter_cap.json`` and ``export/image/`` are the layout of cc_sbu_align, ``export/rows.jsonl`` is our own schema.

    Raises:
        UserError: nothing is left, or it cannot be written.
    """
    ruled = done.steps["rules"]
    log = recipe.output / LOG
    review = Review(log, [row["id"] for row in ruled]) if log.exists() else None
    kept, reasons = _verdicts(recipe, ruled, review)
    write_report(recipe, done, kept, reasons, review)
    if not kept:
        raise UserError(f"{recipe.output}: no description is left; {recipe.output / 'report.html'} says why")
    folder = recipe.output / "export"
    try:
        (folder / "image").mkdir(parents=True, exist_ok=True)
        for row in kept:
            _copy(Path(row["image"]), folder / "image" / f"{row['id']}.jpg")
        wanted = {f"{row['id']}.jpg" for row in kept}
        for file in (folder / "image").iterdir():  # of texts that are no longer kept
            if file.name not in wanted:
                file.unlink()
        annotations = [{"image_id": row["id"], "caption": row["text"]} for row in kept]
        write_text(folder / "filter_cap.json", json.dumps({"annotations": annotations}, ensure_ascii=False, indent=1))
    except OSError as error:
        raise UserError(f"{folder}: cannot write ({error.strerror})") from None
    write_rows(folder / "rows.jsonl", ({"image": f"image/{row['id']}.jpg", "answer": row["text"]} for row in kept))
    return kept


def _copy(source: Path, target: Path) -> None:
    if target.exists():
        return
    with whole_file(target) as part:
        if source.suffix.lower() in (".jpg", ".jpeg"):
            shutil.copyfile(source, part)
        else:
            open_image(source).save(part, "JPEG", quality=95)


def _verdicts(recipe: Recipe, ruled: Sequence[Row], review: Review | None) -> tuple[list[Row], dict[str, str]]:
    """The rows that are kept, and of all others why not. Reviewers are above the rules."""
    kept, reasons = [], {}
    for row in ruled:
        state, text = verdict(review.of(row["id"]), row["text"]) if review else ("open", row["text"])
        if state == "open" and not row.get("keep"):
            flaws = row.get("flaws") or [{"rule": "?", "evidence": "marked by hand"}]
            reasons[row["id"]] = "; ".join(f"{flaw['rule']}: {flaw['evidence']}" for flaw in flaws)
        elif state == "drop":
            reasons[row["id"]] = "rejected by a reviewer"
        elif state == "conflict":
            reasons[row["id"]] = "reviewers differ"
        elif state == "open" and recipe.export.unreviewed == "drop":
            reasons[row["id"]] = "not reviewed"
        else:
            kept.append({"id": row["id"], "image": row["image"], "text": text})
    return kept, reasons


def write_report(
    recipe: Recipe, done: Curated, kept: Sequence[Row], reasons: dict[str, str], review: Review | None = None
) -> None:
    """The page: survival by step, rules with counts and examples, lengths, vocabulary, texts at random."""
    survival = [
        {"step": name, "rows": len(rows), "failed": sum("error" in row for row in rows)} for name, rows in done.steps.items()
    ]
    for one, rows in zip(survival, done.steps.values(), strict=True):
        one["edited"] = sum(map(edited, rows))
    survival.append({"step": "kept", "rows": len(kept), "failed": 0, "edited": 0})
    rng = random.Random(recipe.seed)
    by_id = {row["id"]: row for row in done.steps["rules"]}
    rejects = sorted(reasons)
    write_page(
        recipe.output / "report.html",
        "curation.html",
        name=recipe.output.name,
        survival=survival,
        rules=_rules(done.steps["rules"]),
        repairs=Counter(name for row in done.steps["repair"] for name in row.get("repairs", ())).most_common(),
        texts=[_lengths(name, texts) for name, texts in _texts(done, kept).items()],
        histogram=_histogram([len(words(row["text"])) for row in kept]),
        agreement=agreement(review) if review else [],
        errors=[f"{row['id']}: {row['error']}" for rows in done.steps.values() for row in rows if "error" in row][:SHOWN],
        survivors=rng.sample(list(kept), min(SHOWN, len(kept))),
        rejects=[by_id[id] | {"reason": reasons[id]} for id in rng.sample(rejects, min(SHOWN, len(rejects)))],
        files=FILES,
    )


def _rules(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every rule with how often it fired and three examples, the commonest first; those that never fired too."""
    found: dict[str, list[str]] = {name: [] for name in SAYS}
    for row in rows:
        for flaw in row.get("flaws", ()):
            found.setdefault(flaw["rule"], []).append(f"{row['id']}: {flaw['evidence']}")
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    return [{"name": name, "says": SAYS.get(name, ""), "count": len(hits), "examples": hits[:3]} for name, hits in ordered]


def _texts(done: Curated, kept: Sequence[Row]) -> dict[str, list[str]]:
    keys = {"describe": "raw", "continue": "continued", "repair": "text"}
    texts = {step: [row[key] for row in done.steps[step] if key in row] for step, key in keys.items()}
    return texts | {"kept": [row["text"] for row in kept]}


def _lengths(name: str, texts: Sequence[str]) -> dict[str, Any]:
    said = [words(text) for text in texts]
    counts = [len(one) for one in said]
    return {
        "step": name,
        "texts": len(texts),
        "mean": mean(counts) if counts else 0.0,
        "median": median(counts) if counts else 0,
        "vocabulary": len({word for one in said for word in one}),
        "different": len({" ".join(one) for one in said}),
    }


def _histogram(counts: Sequence[int], width: int = 20) -> list[dict[str, Any]]:
    bins = Counter(count // width for count in counts)
    most = max(bins.values(), default=1)
    return [
        {"from": b * width, "to": b * width + width - 1, "count": bins[b], "share": bins[b] / most}
        for b in range(min(bins, default=0), max(bins, default=-1) + 1)
    ]
