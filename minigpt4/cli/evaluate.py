"""Commands that measure how good a system is."""

import json as jsonlib
import random
import sys
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UserError
from .options import DECODING, SYSTEM, BatchSize, Group, Json, System, import_quickly, options

app = typer.Typer(no_args_is_help=True, help="Measure a system on benchmarks; answers are kept, and runs can be continued.")

Annotations = Annotated[Path, typer.Argument(metavar="ANNOTATIONS", show_default=False, help="See docs/pointing.md.")]
Images = Annotated[Path | None, typer.Option(help="Folder of the pictures; that of the annotations when not given.")]
Split = Annotated[str | None, typer.Option(help="Only this part of the annotations, as they name it.")]
Limit = Annotated[int | None, typer.Option(min=1, help="So many questions, drawn at random (the same each time).")]
Predictions = Annotated[
    Path | None,
    typer.Option(help="Where answers are kept; BENCHMARK-ANNOTATIONS.jsonl here when not given. Continued if it exists."),
]
Blind = Annotated[
    bool, typer.Option("--blank-image", help="Also ask about a grey picture: what the system says without seeing.")
]
Prior = Annotated[Path | None, typer.Option(help="Annotations that fixed boxes and phrases are fitted to.")]
PriorSplit = Annotated[str | None, typer.Option(help="Only this part of --prior.")]
Grid = Annotated[
    int | None,
    typer.Option(min=1, help="Cells a side of the vision encoder, to see the best that it can do; 10 for the pocket model."),
]


class Tokens(StrEnum):
    """How sentences are taken apart."""

    plain = "plain"
    ptb = "ptb"


@dataclass(frozen=True)
class Measuring:
    """What every benchmark can be told."""

    images: Path | None
    split: str | None
    limit: int | None
    predictions: Path | None
    blank_image: bool
    json: bool
    batch_size: int


@dataclass(frozen=True)
class Fitting:
    """Annotations that the simplest answers are fitted to, to set beside."""

    prior: Path | None = None
    prior_split: str | None = None


MEASURING = Group(
    {
        "images": (Images, None),
        "split": (Split, None),
        "limit": (Limit, None),
        "predictions": (Predictions, None),
        "blank_image": (Blind, False),
        "json": (Json, False),
        "batch_size": (BatchSize, 16),
    },
    Measuring,
)
FITTING = Group({"prior": (Prior, None), "prior_split": (PriorSplit, None)}, Fitting)
ASKED = {"measuring": MEASURING, "system": SYSTEM, "generation": DECODING}


@app.command()
@options(**ASKED, fitting=FITTING)
def refer(
    annotations: Annotations,
    single_box: Annotated[bool, typer.Option("--single-box", help="Only phrases that mean one box.")] = False,
    grid: Grid = None,
    **common: Any,
) -> None:
    """Referring expressions (RefCOCO and its kin, Flickr30k Entities, your own): accuracy at an IoU of 0.5."""
    _evaluate("refer", annotations, single_box=single_box, grid=grid, **common)


@app.command()
@options(**ASKED, fitting=FITTING)
def detection(
    annotations: Annotations,
    things: Annotated[
        str | None, typer.Option(help="Ask for these kinds or names of things, like people,dog, in place of the phrases.")
    ] = None,
    grid: Grid = None,
    **common: Any,
) -> None:
    """All things that a phrase means (COCO, Flickr30k Entities, your own): precision and recall at an IoU of 0.5."""
    named = tuple(word.strip() for word in (things or "").split(",") if word.strip())
    _evaluate("detection", annotations, things=named, grid=grid, **common)


@app.command()
@options(**ASKED, fitting=FITTING)
def grounding(annotations: Annotations, **common: Any) -> None:
    """Descriptions whose phrases have boxes (Flickr30k Entities, your own): are they named and placed right?"""
    _evaluate("grounding", annotations, **common)


@app.command()
@options(**ASKED, fitting=FITTING)
def identify(annotations: Annotations, **common: Any) -> None:
    """What is in a box (any annotations of phrases with boxes): CIDEr, and the head noun."""
    _evaluate("identify", annotations, **common)


@app.command()
@options(**ASKED, fitting=FITTING)
def vqa(annotations: Annotations, **common: Any) -> None:
    """Short answers (VQAv2, OK-VQA, GQA, your own): VQA accuracy, or exact where one person answered."""
    _evaluate("vqa", annotations, **common)


@app.command()
@options(**ASKED)
def vsr(annotations: Annotations, **common: Any) -> None:
    """Statements about where things are (Visual Spatial Reasoning): true or false?"""
    _evaluate("vsr", annotations, **common)


@app.command()
@options(**ASKED)
def captions(
    references: Annotated[Path, typer.Option(help="JSON Lines of image and captions, or COCO's captions.", show_default=False)],
    tokens: Annotated[Tokens, typer.Option(help="ptb: as the COCO tools do it.")] = Tokens.plain,
    **common: Any,
) -> None:
    """Captions against those of people: CIDEr, BLEU-4, ROUGE-L."""
    _evaluate("captions", references, report={"tokens": tokens.value}, **common)


@app.command()
@options(**ASKED)
def failures(annotations: Annotations, **common: Any) -> None:
    """Descriptions and poems that repeat themselves, break off, or miss the subject; ANNOTATIONS as for `captions`."""
    _evaluate("failures", annotations, **common)


@app.command()
def score(
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS", show_default=False)],
    blank_image: Annotated[Path | None, typer.Option(help="Answers about grey pictures, to set beside.")] = None,
    grid: Grid = None,
    json: Json = False,
) -> None:
    """Score answers that an earlier evaluation kept, without the system and the pictures."""
    import_quickly()
    from ..evaluate.benchmarks.base import Against
    from ..evaluate.benchmarks.registry import BENCHMARKS
    from ..evaluate.predict import aligned, answered

    rows = answered(predictions)
    names = {row["benchmark"] for row in rows}
    if len(names) > 1 or not names <= set(BENCHMARKS):
        raise UserError(f"{predictions}: answers to {', '.join(sorted(names))}; give those of one benchmark")
    sightless = None
    if blank_image is not None:
        rows, sightless = aligned(rows, answered(blank_image))
        if not rows:
            raise UserError(f"{blank_image}: has no question in common with {predictions}")
    _print(BENCHMARKS[names.pop()].report(rows, Against(blank_image=sightless, grid=grid)), json)


def _evaluate(
    name: str,
    annotations: Path,
    *,
    measuring: Measuring,
    system: System,
    generation: dict[str, Any],
    fitting: Fitting = Fitting(),
    single_box: bool = False,
    things: tuple[str, ...] = (),
    grid: int | None = None,
    report: dict[str, Any] | None = None,
) -> None:
    """Read, ask what has not been answered yet, score, print."""
    import_quickly()
    from ..evaluate.benchmarks.base import Against, Choice
    from ..evaluate.benchmarks.registry import BENCHMARKS
    from ..evaluate.predict import aligned, answered, predict, signature

    benchmark = BENCHMARKS[name]
    if not annotations.exists():
        raise UserError(f"{annotations}: no such file")
    rows = benchmark.read(annotations, Choice(split=measuring.split, single_box=single_box, things=things))
    if not rows:
        raise UserError(f"{annotations}: nothing to ask for in it")
    if measuring.limit and measuring.limit < len(rows):
        kept = sorted(random.Random(0).sample(range(len(rows)), measuring.limit))
        rows = [rows[i] for i in kept]
    if fitting.prior_split and not fitting.prior:
        raise UserError("--prior-split goes with --prior FILE")
    prior = None
    if fitting.prior:
        prior = benchmark.read(fitting.prior, Choice(split=fitting.prior_split, single_box=single_box, things=things))
    images = measuring.images or (annotations if annotations.is_dir() else annotations.parent)
    if not images.is_dir():
        raise UserError(f"{images}: no such folder")

    loaded = cache(system.load)

    def ask_many(batch: list) -> Any:
        return loaded().ask_many(batch, batch_size=measuring.batch_size, **generation)

    def run(file: Path, blank_image: bool) -> tuple[list[Any], int]:
        by = signature(system.model, generation, _folder(system.model), blank_image)
        status = predict(benchmark, rows, images, file, by, ask_many, measuring.batch_size, blank_image, loaded)
        return answered(file, rows), status

    part = f"-{measuring.split}" if measuring.split else ""
    file = measuring.predictions or Path(f"{name}-{annotations.stem}{part}.jsonl")
    done, status = run(file, blank_image=False)
    sightless, notes = None, []
    if measuring.blank_image:
        sightless, blank_image_status = run(file.with_name(f"{file.stem}.blank-image{file.suffix}"), blank_image=True)
        done, sightless = aligned(done, sightless)
        status = max(status, blank_image_status)
    if missing := len(rows) - len(done):
        notes.append(f"{missing:,} of {len(rows):,} questions could not be asked and are not scored")
    against = Against(blank_image=sightless, prior=prior, grid=grid)
    _print(benchmark.report(done, against, **report or {}), json=measuring.json, notes=notes)
    print(f"answers are kept in {file}", file=sys.stderr)
    raise typer.Exit(status)


def _folder(model: str) -> Path | None:
    """Where a system's files lie, if they lie here."""
    from ..checkpoints.pocket import FOLDERS

    return FOLDERS.get(model) or (Path(model) if Path(model).is_dir() else None)


def _print(report: Any, json: bool, notes: list[str] | tuple[str, ...] = ()) -> None:
    if json:
        row = report.as_dict()
        print(jsonlib.dumps(row | {"notes": [*row["notes"], *notes]}, ensure_ascii=False, indent=1))
    else:
        print("\n".join([report.as_text(), *notes]))
