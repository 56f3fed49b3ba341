"""Commands that measure how good a system is."""

import json as jsonlib
import random
import sys
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from .cli_options import BatchSize, Device, DtypeOption, Json, Model, Quantize, decoding, import_quickly, load
from .errors import UserError

app = typer.Typer(no_args_is_help=True, help="Measure a system on benchmarks; answers are kept, and runs can be continued.")

Annotations = Annotated[Path, typer.Argument(metavar="ANNOTATIONS", show_default=False, help="See docs/pointing.md.")]
Images = Annotated[Path | None, typer.Option(help="Folder of the pictures; that of the annotations when not given.")]
Split = Annotated[str | None, typer.Option(help="Only this part of the annotations, as they name it.")]
Limit = Annotated[int | None, typer.Option(min=1, help="So many questions, drawn at random (the same each time).")]
Predictions = Annotated[
    Path | None,
    typer.Option(help="Where answers are kept; BENCHMARK-ANNOTATIONS.jsonl here when not given. Continued if it exists."),
]
Blind = Annotated[bool, typer.Option("--blind", help="Also ask about a grey picture: what the system says without seeing.")]
Prior = Annotated[Path | None, typer.Option(help="Annotations that fixed boxes and phrases are fitted to.")]
PriorSplit = Annotated[str | None, typer.Option(help="Only this part of --prior.")]
Grid = Annotated[
    int | None, typer.Option(min=1, help="Cells a side of the eye, to see the best that it can do; 10 for the pocket model.")
]


class Tokens(StrEnum):
    """How sentences are taken apart."""

    plain = "plain"
    ptb = "ptb"


@app.command()
@decoding
def refer(
    annotations: Annotations,
    images: Images = None,
    split: Split = None,
    single_box: Annotated[bool, typer.Option("--single-box", help="Only phrases that mean one box.")] = False,
    limit: Limit = None,
    predictions: Predictions = None,
    blind: Blind = False,
    prior: Prior = None,
    prior_split: PriorSplit = None,
    grid: Grid = None,
    json: Json = False,
    batch_size: BatchSize = 16,
    model: Model = "pocket",
    device: Device = None,
    dtype: DtypeOption = None,
    quantize: Quantize = None,
    *,
    generation: dict,
) -> None:
    """Referring expressions (RefCOCO and its kin, Flickr30k Entities, your own): accuracy at an IoU of 0.5."""
    _evaluate("refer", locals())


@app.command()
@decoding
def detection(
    annotations: Annotations,
    images: Images = None,
    split: Split = None,
    things: Annotated[
        str | None, typer.Option(help="Ask for these kinds or names of things, like people,dog, in place of the phrases.")
    ] = None,
    limit: Limit = None,
    predictions: Predictions = None,
    blind: Blind = False,
    prior: Prior = None,
    prior_split: PriorSplit = None,
    grid: Grid = None,
    json: Json = False,
    batch_size: BatchSize = 16,
    model: Model = "pocket",
    device: Device = None,
    dtype: DtypeOption = None,
    quantize: Quantize = None,
    *,
    generation: dict,
) -> None:
    """All things that a phrase means (COCO, Flickr30k Entities, your own): precision and recall at an IoU of 0.5."""
    _evaluate("detection", locals())


@app.command()
@decoding
def grounding(
    annotations: Annotations,
    images: Images = None,
    split: Split = None,
    limit: Limit = None,
    predictions: Predictions = None,
    blind: Blind = False,
    prior: Prior = None,
    prior_split: PriorSplit = None,
    json: Json = False,
    batch_size: BatchSize = 16,
    model: Model = "pocket",
    device: Device = None,
    dtype: DtypeOption = None,
    quantize: Quantize = None,
    *,
    generation: dict,
) -> None:
    """Descriptions whose phrases have boxes (Flickr30k Entities, your own): are they named and placed right?"""
    _evaluate("grounding", locals())


@app.command()
@decoding
def identify(
    annotations: Annotations,
    images: Images = None,
    split: Split = None,
    limit: Limit = None,
    predictions: Predictions = None,
    blind: Blind = False,
    prior: Prior = None,
    prior_split: PriorSplit = None,
    json: Json = False,
    batch_size: BatchSize = 16,
    model: Model = "pocket",
    device: Device = None,
    dtype: DtypeOption = None,
    quantize: Quantize = None,
    *,
    generation: dict,
) -> None:
    """What is in a box (any annotations of phrases with boxes): CIDEr, and the head noun."""
    _evaluate("identify", locals())


@app.command()
@decoding
def vqa(
    annotations: Annotations,
    images: Images = None,
    split: Split = None,
    limit: Limit = None,
    predictions: Predictions = None,
    blind: Blind = False,
    prior: Prior = None,
    prior_split: PriorSplit = None,
    json: Json = False,
    batch_size: BatchSize = 16,
    model: Model = "pocket",
    device: Device = None,
    dtype: DtypeOption = None,
    quantize: Quantize = None,
    *,
    generation: dict,
) -> None:
    """Short answers (VQAv2, OK-VQA, GQA, your own): VQA accuracy, or exact where one person answered."""
    _evaluate("vqa", locals())


@app.command()
@decoding
def vsr(
    annotations: Annotations,
    images: Images = None,
    split: Split = None,
    limit: Limit = None,
    predictions: Predictions = None,
    blind: Blind = False,
    json: Json = False,
    batch_size: BatchSize = 16,
    model: Model = "pocket",
    device: Device = None,
    dtype: DtypeOption = None,
    quantize: Quantize = None,
    *,
    generation: dict,
) -> None:
    """Statements about where things are (Visual Spatial Reasoning): true or false?"""
    _evaluate("vsr", locals())


@app.command()
@decoding
def captions(
    references: Annotated[Path, typer.Option(help="JSON Lines of image and captions, or COCO's captions.", show_default=False)],
    images: Images = None,
    split: Split = None,
    limit: Limit = None,
    predictions: Predictions = None,
    blind: Blind = False,
    tokens: Annotated[Tokens, typer.Option(help="ptb: as the COCO tools do it.")] = Tokens.plain,
    json: Json = False,
    batch_size: BatchSize = 16,
    model: Model = "pocket",
    device: Device = None,
    dtype: DtypeOption = None,
    quantize: Quantize = None,
    *,
    generation: dict,
) -> None:
    """Captions against those of people: CIDEr, BLEU-4, ROUGE-L."""
    _evaluate("captions", {"annotations": references, **locals()})


@app.command()
def score(
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS", show_default=False)],
    blind: Annotated[Path | None, typer.Option(help="Answers about grey pictures, to set beside.")] = None,
    grid: Grid = None,
    json: Json = False,
) -> None:
    """Score answers that an earlier evaluation kept, without the system and the pictures."""
    import_quickly()
    from .evaluate.benchmark import Against
    from .evaluate.benchmarks import BENCHMARKS
    from .evaluate.predict import aligned, answered

    rows = answered(predictions)
    names = {row["benchmark"] for row in rows}
    if len(names) > 1 or not names <= set(BENCHMARKS):
        raise UserError(f"{predictions}: answers to {', '.join(sorted(names))}; give those of one benchmark")
    sightless = None
    if blind is not None:
        rows, sightless = aligned(rows, answered(blind))
        if not rows:
            raise UserError(f"{blind}: has no question in common with {predictions}")
    _print(BENCHMARKS[names.pop()].report(rows, Against(blind=sightless, grid=grid)), json)


def _evaluate(name: str, given: dict[str, Any]) -> None:
    """Read, ask what has not been answered yet, score, print."""
    import_quickly()
    from .evaluate.benchmark import Against, Choice
    from .evaluate.benchmarks import BENCHMARKS
    from .evaluate.predict import aligned, answered, predict, signature

    benchmark = BENCHMARKS[name]
    annotations: Path = given["annotations"]
    if not annotations.exists():
        raise UserError(f"{annotations}: no such file")
    things = tuple(word.strip() for word in (given.get("things") or "").split(",") if word.strip())
    choice = Choice(split=given["split"], single_box=given.get("single_box", False), things=things)
    rows = benchmark.read(annotations, choice)
    if not rows:
        raise UserError(f"{annotations}: nothing to ask for in it")
    if given["limit"] and given["limit"] < len(rows):
        kept = sorted(random.Random(0).sample(range(len(rows)), given["limit"]))
        rows = [rows[i] for i in kept]
    if given.get("prior_split") and not given.get("prior"):
        raise UserError("--prior-split goes with --prior FILE")
    prior = None
    if given.get("prior"):
        prior = benchmark.read(given["prior"], Choice(split=given["prior_split"], single_box=choice.single_box, things=things))
    images = given["images"] or (annotations if annotations.is_dir() else annotations.parent)
    if not images.is_dir():
        raise UserError(f"{images}: no such folder")

    @cache
    def system() -> Any:
        return load(given["model"], given["device"], given["dtype"], given["quantize"])

    def ask_many(batch: list) -> Any:
        return system().ask_many(batch, batch_size=given["batch_size"], **given["generation"])

    def run(file: Path, blind: bool) -> tuple[list[Any], int]:
        by = signature(given["model"], given["generation"], _folder(given["model"]), blind)
        status = predict(benchmark, rows, images, file, by, ask_many, given["batch_size"], blind, system)
        return answered(file, rows), status

    file = given["predictions"] or Path(f"{name}-{annotations.stem}{'-' + choice.split if choice.split else ''}.jsonl")
    done, status = run(file, blind=False)
    sightless, notes = None, []
    if given["blind"]:
        sightless, blind_status = run(file.with_name(f"{file.stem}.blind{file.suffix}"), blind=True)
        done, sightless = aligned(done, sightless)
        status = max(status, blind_status)
    if missing := len(rows) - len(done):
        notes.append(f"{missing:,} of {len(rows):,} questions could not be asked and are not scored")
    options = {"tokens": given["tokens"].value} if "tokens" in given else {}
    against = Against(blind=sightless, prior=prior, grid=given.get("grid"))
    _print(benchmark.report(done, against, **options), json=given["json"], notes=notes)
    print(f"answers are kept in {file}", file=sys.stderr)
    raise typer.Exit(status)


def _folder(model: str) -> Path | None:
    """Where a system's files lie, if they lie here."""
    if model == "pocket":
        from .model import pocket

        return pocket.FOLDER
    return Path(model) if Path(model).is_dir() else None


def _print(report: Any, json: bool, notes: list[str] | tuple[str, ...] = ()) -> None:
    if json:
        row = report.as_dict()
        print(jsonlib.dumps(row | {"notes": [*row["notes"], *notes]}, ensure_ascii=False, indent=1))
    else:
        print("\n".join([report.as_text(), *notes]))
