"""Looking at a recipe's data before training on it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Group
from rich.markup import escape as rich_escape
from rich.progress import Progress as Bars
from rich.progress import TaskID
from rich.table import Table
from rich.text import Text

from ..checkpoints.folders import find_folder, load_processor, read_config, tokenizer_source
from ..data.check import KEPT, Progress, Report, check
from ..data.collate import Reader
from ..data.examples import IGNORE
from ..data.mixture import Mixture
from ..model.processing import MiniGPT4Processor
from ..train.loop import build_formatter, build_parts
from ..train.recipe import Recipe
from .terminal import console, harmless, say, styled

SHOWN = 10  # problems of one kind in one dataset that the table tells one by one


def show_examples(recipe: Recipe, number: int) -> None:
    """Print the first samples of a recipe's mixture: what is learnt in green (or between « » where there are no colours),
    pictures in brackets."""
    parts = build_parts(recipe, recipe.data.datasets)
    processor = _processor(recipe)
    reader = Reader(parts, build_formatter(recipe, processor))
    shown_on = console()
    shown = 0
    for draws in Mixture(parts, recipe.data.batch, recipe.data.mixing, recipe.seed):
        for draw in draws:
            sample = reader.sample(draw)
            example = reader.formatter(sample)
            name = styled(harmless(sample.id), "bold").append(f"  {harmless(parts[draw.dataset].source.name)}", "not bold")
            shown_on.print("\n", name, sep="", soft_wrap=True)
            for image in sample.images:
                shown_on.print(f"  {harmless(image)}", style="dim", soft_wrap=True)
            plain = not shown_on.is_terminal
            text = _marked(processor, example.prefix_ids, [IGNORE] * len(example.prefix_ids), plain)
            for branch in example.branches:
                shown_on.print(text + _marked(processor, branch.ids, branch.labels, plain), soft_wrap=True)
            tokens = len(example.prefix_ids) + sum(len(branch.ids) for branch in example.branches)
            shown_on.print(f"  {tokens} tokens, {example.supervised} of them learnt", style="dim", soft_wrap=True)
            shown += 1
            if shown == number:
                return


def check_data(recipe: Recipe, open_images: int | Literal["all"], as_json: bool) -> int:
    """Print a report on a recipe's datasets; the exit status says whether anything is wrong."""
    trained, held_out = (
        [(dataset.format, dataset.options) for dataset in datasets]
        for datasets in (recipe.data.datasets, recipe.validation.datasets)
    )
    every = [*recipe.data.datasets, *recipe.validation.datasets]
    together = [number for number, dataset in enumerate(every) if dataset.together > 1]
    with _bars() as progress:
        report = check(trained, open_images, held_out, together, progress)
    if as_json:
        say(report.to_json())
    else:
        console().print(table_of(report))
    return int(not report.ok)


def table_of(report: Report) -> Group:
    """For `rich` to print: a table of the datasets, and under it the problems with their places."""
    kinds = sorted({kind for one in report.datasets for kind in one.counts})
    table = Table()
    for heading in ("dataset", "format"):
        table.add_column(heading)
    for heading in ("samples", "pictures", "opened", *kinds):
        table.add_column(heading, justify="right")
    for one in report.datasets:
        numbers = (one.samples, one.images, one.opened, *(one.counts[kind] for kind in kinds))
        table.add_row(harmless(one.name), one.format, *(f"{number:,}" for number in numbers))
    lines: list[Table | Text] = [table]
    for one in report.datasets:
        for kind, count in one.counts.items():
            told = [problem for problem in one.problems if problem.kind == kind][:SHOWN]
            lines.append(styled(f"{harmless(one.name)}: {count:,} x {kind}", "bold"))
            lines += [Text(f"  {harmless(problem.message)}", overflow="fold") for problem in told]
            if count > len(told):
                lines.append(Text(f"  ... and {count - len(told):,} more (with --json: the first {KEPT:,})"))
    if report.ok:
        lines.append(Text("Nothing is missing or broken."))
    return Group(*lines)


@contextmanager
def _bars() -> Iterator[Progress]:
    """A bar for each thing that is looked at, on a terminal's standard error."""
    with Bars(console=console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bars:
        tasks: dict[tuple[str, int | None], TaskID] = {}

        def progress(name: str, done: int, total: int | None) -> None:
            key = (name, total)
            if key not in tasks:
                tasks[key] = bars.add_task(rich_escape(harmless(name)), total=total)
            bars.update(tasks[key], completed=done)

        yield progress


def _marked(processor: MiniGPT4Processor, ids: list[int], labels: list[int], plain: bool) -> Text:
    """Tokens as text, learnt ones marked; the image tokens of a picture as their number."""
    text = Text()
    learnt = [label != IGNORE for label in labels]
    place = 0
    while place < len(ids):
        end = place + 1
        if ids[place] == processor.image_token_id:
            end = place + processor.num_image_tokens
            text.append(f"[{end - place} image tokens]", style="magenta")
        else:
            while end < len(ids) and learnt[end] == learnt[place] and ids[end] != processor.image_token_id:
                end += 1
            said = harmless(processor.tokenizer.decode(ids[place:end]), lines=True)
            if learnt[place]:
                text.append(f"«{said}»" if plain else said, style="green underline")
            else:
                text.append(said)
        place = end
    return text


def _processor(recipe: Recipe) -> MiniGPT4Processor:
    """The processor that the recipe's system will have, without loading its weights."""
    if recipe.model.vision:
        from ..train.setup import new_processor

        return new_processor(recipe.model)
    folder = find_folder(recipe.model.base)
    config = read_config(folder)
    trained = (folder / "trained.safetensors").exists()
    return load_processor(folder, tokenizer_source(config) if trained else folder)
