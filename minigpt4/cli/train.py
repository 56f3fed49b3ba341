"""Commands about training and its data."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from .fast_import import without_collector
from .terminal import hear_the_log, remark, say_line

Recipe = Annotated[Path, typer.Argument(metavar="RECIPE.yaml", show_default=False)]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe.")]

data = typer.Typer(no_args_is_help=True, help="Look at the data of a recipe.")


def train(recipe: Recipe, set: Set = None) -> None:
    """Run a training stage, or a pipeline of them; started again, it goes on where it stopped."""
    hear_the_log()
    with without_collector():
        from ..train.loop import Interrupted
        from ..train.loop import train as run
        from ..train.pipeline import is_pipeline, load_pipeline, run_pipeline
        from ..train.recipe import load_recipe

    try:
        if is_pipeline(recipe):
            told = run_pipeline(load_pipeline(recipe, set or ()))
            say_line(f"{recipe}: {told.count('done')} steps done, {told.count('skipped')} were there already")
            return
        output = run(load_recipe(recipe, set or ()))
    except Interrupted as stopped:
        remark(stopped)
        raise typer.Exit(130) from None
    say_line(f"{output}: trained; look at {output / 'report.html'}")


@data.command()
def show(
    recipe: Recipe,
    set: Set = None,
    number: Annotated[int, typer.Option("-n", min=1, help="How many samples.")] = 5,
) -> None:
    """Print samples as the language model reads them, with what is learnt marked."""
    from ..train.recipe import load_recipe
    from .preview import show_examples

    show_examples(load_recipe(recipe, set or ()), number)


@data.command()
def check(
    recipe: Recipe,
    set: Set = None,
    open: Annotated[str, typer.Option(help="How many pictures of each dataset to open, or 'all'.")] = "100",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count samples and pictures, and list what is missing or broken."""
    from ..train.recipe import load_recipe
    from .preview import check_data

    if open != "all" and not open.isdecimal():
        raise UserError(f"--open {open}: expected a number, or all")
    raise typer.Exit(check_data(load_recipe(recipe, set or ()), "all" if open == "all" else int(open), json))


@data.command()
def conversations(
    rows: Annotated[Path, typer.Argument(metavar="ROWS.jsonl", show_default=False)],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT.jsonl", show_default=False)],
    seed: Annotated[int, typer.Option(help="For the choice of questions and their order.")] = 0,
    per_image: Annotated[int, typer.Option(min=1, help="Conversations to make of each picture.")] = 1,
) -> None:
    """Make conversations of several tasks out of what rows of our schema say about the same picture."""
    from ..curate.conversations import conversations_file

    say_line(f"{output}: {conversations_file(rows, output, seed, per_image):,} conversations")


@data.command()
def describe(
    captions: Annotated[Path, typer.Argument(metavar="CAPTIONS.jsonl", show_default=False)],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT.jsonl", show_default=False)],
    sentences: Annotated[int, typer.Option(min=2, help="The most sentences of a description.")] = 4,
) -> None:
    """Make descriptions of several sentences out of several people's captions, where these agree."""
    from ..curate.describe import descriptions_file

    made, images = descriptions_file(captions, output, sentences)
    say_line(f"{output}: descriptions of {made:,} of {images:,} pictures")
