"""The command that writes a system for others to read."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import Dtype, Model, import_quickly
from .terminal import say_line

DtypeOption = Annotated[Dtype | None, typer.Option(help="Of the weights; float32 for small systems, else bfloat16.")]


def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to write.", show_default=False)],
    model: Model = "pocket",
    dtype: DtypeOption = None,
) -> None:
    """Write a system as one plain folder that transformers and servers read: adapters merged, nothing elsewhere."""
    import_quickly()
    from transformers.utils import logging as library

    from ..checkpoints.export import export as run

    if not sys.stderr.isatty():
        library.disable_progress_bar()
    run(model, folder, dtype.torch if dtype else None)
    say_line(f'{folder}: ready; after "import minigpt4.model": pipeline("image-text-to-text", model="{folder}")')
