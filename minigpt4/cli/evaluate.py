"""Commands that measure how good a system is."""

import json as jsonlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import DECODING, SYSTEM, BatchSize, Group, Json, System, import_quickly, options
from .terminal import remark, say

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
    from ..evaluate.run import score_answers

    _print(score_answers(predictions, blank_image, grid), json)


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
    """Measure, and print what came of it."""
    import_quickly()
    from ..evaluate.run import Asked, run_benchmark
    from ..jobs.made_by import signature
    from .batch import Bar

    asked = Asked(
        split=measuring.split,
        limit=measuring.limit,
        images=measuring.images,
        predictions=measuring.predictions,
        blank_image=measuring.blank_image,
        single_box=single_box,
        things=things,
        prior=fitting.prior,
        prior_split=fitting.prior_split,
        grid=grid,
    )
    measured = run_benchmark(
        name,
        annotations,
        system.load,
        signature(system.model, generation | system.kept_as),
        asked,
        batch_size=measuring.batch_size,
        settings=generation,
        report=report,
        watch=Bar(),
    )
    _print(measured.report, json=measuring.json, notes=measured.notes)
    remark(f"answers are kept in {measured.file}")
    raise typer.Exit(int(bool(measured.problems)))


def _print(report: Any, json: bool, notes: list[str] | tuple[str, ...] = ()) -> None:
    if json:
        row = report.as_dict()
        say(jsonlib.dumps(row | {"notes": [*row["notes"], *notes]}, ensure_ascii=False, indent=1))
    else:
        say("\n".join([report.as_text(), *notes]))
