"""Commands that make second-stage data with a first-stage model."""

import sys
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from .terminal import console, remark, say_line

curate = typer.Typer(
    no_args_is_help=True, help="Make descriptions for the second stage: draw, describe, repair, review, export."
)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE.yaml", show_default=False)]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe.")]


@curate.command()
def run(
    recipe: RecipeFile,
    set: Set = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="local|auto|HOST:PORT", help="Ask models on a Ray cluster; local starts one."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes on the cluster.")] = 2,
) -> None:
    """Run a recipe's steps; started again, it goes on where it stopped."""
    from ..curate.export import exported
    from ..curate.pipeline import Pipeline
    from ..curate.recipe import load_recipe
    from ..jobs.spread import Cluster
    from .options import import_quickly

    cluster = Cluster(ray, workers) if ray is not None else None
    wanted = load_recipe(recipe, set)
    import_quickly()
    with _bar() as progress, closing(cluster) if cluster is not None else nullcontext():
        done = Pipeline(wanted, progress=progress, cluster=cluster).run()
    kept = exported(wanted, done)
    total, failed = len(done.steps["draw"]), sum("error" in row for rows in done.steps.values() for row in rows)
    say_line(
        f"{wanted.output / 'export'}: {len(kept):,} descriptions of {total:,} images; look at {wanted.output / 'report.html'}"
    )
    if failed:
        remark(f"error: {failed:,} images failed; the report says why, and the next run tries them again")
        raise typer.Exit(1)


@curate.command()
def review(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", show_default=False, help="The output of a recipe.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 7861,
) -> None:
    """Open the page on which people accept, edit and reject; then run the recipe again to export."""
    from ..curate.review_server import serve_review

    serve_review(folder, port, lambda address: say_line(f"{address} (Ctrl-C ends)", flush=True))


def _bar() -> Any:
    """A progress bar for each step, on standard error."""
    from contextlib import contextmanager

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    @contextmanager
    def bar() -> Any:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console(stderr=True), disable=not sys.stderr.isatty()) as shown:
            tasks: dict[str, Any] = {}

            def progress(name: str, done: int, total: int) -> None:
                if name not in tasks:
                    tasks[name] = shown.add_task(name, total=total)
                shown.update(tasks[name], completed=done)

            yield progress

    return bar()
