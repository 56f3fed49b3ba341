"""Commands that measure how good a system is."""

import json as jsonlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ..errors import UserError
from .endpoints import ACCOUNT, Account, Who
from .options import DECODING, SYSTEM, BatchSize, Group, Json, System, import_quickly, options
from .terminal import remark, say, say_line

app = typer.Typer(no_args_is_help=True, help="Measure a system on benchmarks; answers are kept, and runs can be continued.")

Annotations = Annotated[Path, typer.Argument(metavar="ANNOTATIONS", show_default=False, help="See docs/pointing.md.")]
Images = Annotated[Path | None, typer.Option(help="Folder of the pictures; that of the annotations when not given.")]
Split = Annotated[str | None, typer.Option(help="Only this part of the annotations, as they name it.")]
Limit = Annotated[int | None, typer.Option(min=1, help="So many questions, drawn at random (the same each time).")]
Predictions = Annotated[
    Path | None,
    typer.Option(help="Where answers are kept; BENCHMARK-ANNOTATIONS.jsonl here when not given. Continued if it exists."),
]
BlankImage = Annotated[
    bool, typer.Option("--blank-image", help="Also ask about a grey picture: what the system says without seeing.")
]
Prior = Annotated[Path | None, typer.Option(help="Annotations that fixed boxes and phrases are fitted to.")]
PriorSplit = Annotated[str | None, typer.Option(help="Only this part of --prior.")]
Grid = Annotated[
    int | None,
    typer.Option(min=1, help="Cells a side of the vision encoder, to see the best that it can do; 10 for the pocket model."),
]


_TOLD = 10  # mistakes of a kind that are told one by one


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
    identifier: bool = True


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
        "blank_image": (BlankImage, False),
        "json": (Json, False),
        "batch_size": (BatchSize, 16),
    },
    Measuring,
)
FITTING = Group({"prior": (Prior, None), "prior_split": (PriorSplit, None)}, Fitting)
ASKED = {"measuring": MEASURING, "system": SYSTEM, "generation": DECODING, "account": ACCOUNT}


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
def flaws(
    answers: Annotated[
        Path, typer.Argument(metavar="ANSWERS", show_default=False, help="What `failures` kept, or its folder.")
    ],
) -> None:
    """Print what is wrong with each answer and what the rule found; and beside labels by hand, how well both agree."""
    import_quickly()
    from ..evaluate.benchmarks.failures import agreement, parse
    from ..evaluate.run import kept

    benchmark, rows = kept(answers)
    if benchmark.name != "failures":
        raise UserError(f"{answers}: has answers to {benchmark.name}, not to failures")
    for i, row in enumerate(rows, 1):
        told = "; ".join(f"{kind}: {why}" for kind, why in parse(row).items()) or "nothing wrong"
        say_line(f"{i} {row['image']}, {row['asked']}: {told}")
    if any("label" in row for row in rows):
        say(f"\n{'of ' + str(len(rows)):16}  rule  hand  same  kappa")
        for one in agreement(rows):
            say(f"{one.kind:16}  {one.rule:4}  {one.hand:4}  {one.same:4}  {one.kappa:5.2f}")


@app.command()
def prepare(
    benchmark: Annotated[str, typer.Argument(metavar="BENCHMARK", show_default=False)],
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="Where its official files are.", show_default=False)],
) -> None:
    """Look through a benchmark's official data: what is there, what is missing, and where that comes from."""
    import_quickly()
    from ..evaluate.prepare import prepare as look_through

    found = look_through(benchmark, data)
    for place in found.there:
        say_line(f"there: {place}")
    for told in found.missing:
        say_line(f"missing: {told}")
    for told in found.optional:
        say_line(f"not there, and not needed: {told}")
    for told in found.remarks:
        say_line(f"note: {told}")
    for kind, some in (("cannot be used", found.problems), ("image", found.gone)):
        for message in some[:_TOLD]:
            say_line(f"{kind}: {message}")
        if len(some) > _TOLD:
            say_line(f"{kind}: {len(some) - _TOLD:,} more like these")
    say_line(f"{found.questions:,} questions about {found.images:,} images, {len(found.gone):,} of which are not there")
    raise typer.Exit(int(not found.ready))


@app.command()
@options(system=SYSTEM, generation=DECODING, account=ACCOUNT)
def run(
    benchmark: Annotated[str, typer.Argument(metavar="BENCHMARK", show_default=False)],
    data: Annotated[Path, typer.Option(help="Its official data, or annotations as its own command takes.", show_default=False)],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="For answers and report; continued.", show_default=False)],
    images: Images = None,
    split: Split = None,
    limit: Limit = None,
    blank_image: BlankImage = False,
    identifier: Annotated[
        bool, typer.Option("--identifier/--no-identifier", help="Begin questions with their task's identifier, like \\[vqa].")
    ] = True,
    json: Json = False,
    batch_size: BatchSize = 16,
    *,
    system: System,
    generation: dict[str, Any],
    account: Account,
) -> None:
    """Measure a system on any benchmark by its name; answers and report are kept in a folder, to be scored and compared."""
    import_quickly()
    from ..evaluate.benchmarks.registry import BENCHMARKS
    from ..io.atomic import saying, write_text

    if benchmark not in BENCHMARKS:
        raise UserError(f"{benchmark}: no such benchmark; there are {', '.join(BENCHMARKS)}")
    with saying(output):
        output.mkdir(parents=True, exist_ok=True)
    measuring = Measuring(images, split, limit, output, blank_image, json, batch_size, identifier)
    measured = _measured(benchmark, data, measuring=measuring, system=system, generation=generation, account=account)
    kept = measured.report.as_dict()
    kept["notes"] = [*kept["notes"], *measured.notes]
    write_text(output / "report.json", jsonlib.dumps(kept, ensure_ascii=False, indent=1) + "\n")
    _say(measured, json)


@app.command("all")
@options(system=SYSTEM, generation=DECODING, account=ACCOUNT)
def everything(
    data: Annotated[
        Path, typer.Option(help="A folder, or a YAML file that names benchmarks and their data.", show_default=False)
    ],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="For answers and the report; continued.", show_default=False)],
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each benchmark, the same each time.")] = None,
    blank_image: BlankImage = False,
    batch_size: BatchSize = 16,
    *,
    system: System,
    generation: dict[str, Any],
    account: Account,
) -> None:
    """Measure a system on every benchmark whose data is there; one report of all, in HTML and Markdown."""
    import_quickly()
    from ..evaluate.suite import find, run_suite
    from ..evaluate.summary import HTML, MARKDOWN, write_reports
    from ..reports.page import check_pages
    from .batch import Bar

    wanted = find(data)
    check_pages()
    who = Who(system, account, generation)

    def watch(name: str) -> Bar:
        remark(f"{name} ({[one.name for one in wanted].index(name) + 1} of {len(wanted)})")
        return Bar()

    parts = run_suite(
        wanted,
        output,
        who.load,
        who.by,
        limit=limit,
        blank_image=blank_image,
        batch_size=batch_size,
        settings=generation,
        watch=watch,
    )
    write_reports(parts, who.by, output)
    for part in parts:
        if part.failed is not None:
            remark(f"error: {part.wanted.name}: {part.failed}")
    who.tell_cost()
    say_line(f"{output / HTML} and {MARKDOWN} beside it: {sum(p.failed is None for p in parts)} of {len(parts)} benchmarks")
    raise typer.Exit(int(any(part.failed is not None or part.problems for part in parts)))


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", show_default=False, help="Answers, or the folder of a run.")],
    b: Annotated[Path, typer.Argument(metavar="B", show_default=False)],
    json: Json = False,
) -> None:
    """Compare two runs question by question (paired bootstrap over images)."""
    import_quickly()
    from ..evaluate.run import compare as compared

    _print(compared(a, b), json)


@app.command()
def score(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", show_default=False, help="The file, or the folder of a run.")
    ],
    blank_image: Annotated[Path | None, typer.Option(help="Answers about grey pictures, to set beside.")] = None,
    grid: Grid = None,
    json: Json = False,
) -> None:
    """Score answers that an earlier evaluation kept, without the system and the pictures."""
    import_quickly()
    from ..evaluate.run import score_answers

    _print(score_answers(predictions, blank_image, grid), json)


def _evaluate(name: str, annotations: Path, *, measuring: Measuring, **given: Any) -> None:
    """Measure, and print what came of it."""
    _say(_measured(name, annotations, measuring=measuring, **given), measuring.json)


def _measured(
    name: str,
    annotations: Path,
    *,
    measuring: Measuring,
    system: System,
    generation: dict[str, Any],
    account: Account = Account(),
    fitting: Fitting = Fitting(),
    single_box: bool = False,
    things: tuple[str, ...] = (),
    grid: int | None = None,
    report: dict[str, Any] | None = None,
) -> Any:
    import_quickly()
    from ..evaluate.run import Asked, run_benchmark
    from .batch import Bar

    who = Who(system, account, generation)
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
        identifier=measuring.identifier,
    )
    measured = run_benchmark(
        name,
        annotations,
        who.load,
        who.by,
        asked,
        batch_size=measuring.batch_size,
        settings=generation,
        report=report,
        watch=Bar(),
    )
    who.tell_cost()
    return measured


def _say(measured: Any, json: bool) -> NoReturn:
    _print(measured.report, json=json, notes=measured.notes)
    remark(f"answers are kept in {measured.file}")
    raise typer.Exit(int(bool(measured.problems)))


def _print(report: Any, json: bool, notes: list[str] | tuple[str, ...] = ()) -> None:
    if json:
        row = report.as_dict()
        say(jsonlib.dumps(row | {"notes": [*row["notes"], *notes]}, ensure_ascii=False, indent=1))
    else:
        say("\n".join([report.as_text(), *notes]))
