"""Looking at a recipe's data before training on it."""

import sys
from typing import Literal

from rich.console import Console
from rich.text import Text

from ..checkpoints.folders import find_folder, load_processor, read_config, tokenizer_source
from ..data.check import check
from ..data.collate import Reader
from ..data.examples import IGNORE
from ..data.mixture import Mixture
from ..model.processing import MiniGPT4Processor
from ..train.loop import build_formatter, build_parts
from ..train.recipe import Recipe


def show_examples(recipe: Recipe, number: int) -> None:
    """Print the first samples of a recipe's mixture: what is learnt in green (or between « » where there are no colours),
    pictures in brackets."""
    parts = build_parts(recipe, recipe.data.datasets)
    processor = _processor(recipe)
    reader = Reader(parts, build_formatter(recipe, processor))
    console = Console(soft_wrap=True)
    shown = 0
    for draws in Mixture(parts, recipe.data.batch, recipe.data.mixing, recipe.seed):
        for draw in draws:
            sample = reader.sample(draw)
            example = reader.formatter(sample)
            console.print(f"\n[bold]{sample.id}[/bold]  {parts[draw.dataset].source.name}", highlight=False)
            for image in sample.images:
                console.print(f"  {image}", style="dim", highlight=False)
            plain = not console.is_terminal
            text = _marked(processor, example.prefix_ids, [IGNORE] * len(example.prefix_ids), plain)
            for branch in example.branches:
                console.print(text + _marked(processor, branch.ids, branch.labels, plain))
            tokens = len(example.prefix_ids) + sum(len(branch.ids) for branch in example.branches)
            console.print(f"  {tokens} tokens, {example.supervised} of them learnt", style="dim", highlight=False)
            shown += 1
            if shown == number:
                return


def check_data(recipe: Recipe, open_images: int | Literal["all"], as_json: bool) -> int:
    """Print a report on a recipe's datasets; the exit status says whether anything is wrong."""
    trained, held_out = (
        [(dataset.format, dataset.options) for dataset in datasets]
        for datasets in (recipe.data.datasets, recipe.validation.datasets)
    )
    report = check(trained, open_images, held_out, progress=sys.stderr.isatty())
    if as_json:
        print(report.to_json())
    else:
        Console(file=sys.stdout).print(report.table())
    return int(not report.ok)


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
            said = processor.tokenizer.decode(ids[place:end])
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
