"""Commands for the published systems: their files in, what was trained out again."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import Dtype
from .terminal import console, say_line


class KindName(StrEnum):
    """Published families of systems."""

    vicuna = "minigpt4-vicuna"
    llama2 = "minigpt4-llama2"
    v2 = "minigptv2"


UNUSUAL = "For files that are not of the released sizes"
Vit = Annotated[Path, typer.Option(metavar="FILE", help="The vision encoder, eva_vit_g.pth.", show_default=False)]
Llm = Annotated[
    str, typer.Option(metavar="FOLDER|HUB_ID", help="The language model: Vicuna v0 or Llama-2-7b-chat-hf.", show_default=False)
]
Checkpoint = Annotated[
    Path, typer.Option(metavar="FILE", help="What was trained: pretrained_minigpt4*.pth, checkpoint_stage3.pth, ...")
]


def import_official(
    vit: Vit,
    llm: Llm,
    checkpoint: Checkpoint,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to write.", show_default=False)],
    qformer: Annotated[
        Path | None, typer.Option(metavar="FILE", help="BLIP-2's file, blip2_pretrained_flant5xxl.pth; with Vicuna only.")
    ] = None,
    kind: Annotated[KindName | None, typer.Option(help="Found out from the files when not given.")] = None,
    dtype: Annotated[
        Dtype | None, typer.Option(help="Of vision encoder and language model; as in their files when not given.")
    ] = None,
    refer_llm: Annotated[
        bool, typer.Option("--refer-llm", help="Do not copy the language model's weights; remember where they are.")
    ] = False,
    extra_bos: Annotated[
        bool, typer.Option("--extra-bos", help="MiniGPT-v2: begin prompts with two BOS tokens, as its published inference.")
    ] = False,
    image_size: Annotated[int | None, typer.Option(min=1, rich_help_panel=UNUSUAL)] = None,
    vit_heads: Annotated[int | None, typer.Option(min=1, rich_help_panel=UNUSUAL)] = None,
    qformer_config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The Q-Former's BERT config.json.", rich_help_panel=UNUSUAL)
    ] = None,
) -> None:
    """Turn the published files of a system into a folder for --model, with an account of every tensor."""
    _quietly()
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from ..checkpoints.official.importing import import_official as run

    columns = (TextColumn("writing"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("writing", total=None, visible=False)
        account = run(
            vit,
            llm,
            checkpoint,
            output,
            qformer=qformer,
            kind=kind.value if kind else None,
            dtype=dtype.torch if dtype else None,
            refer=refer_llm,
            extra_bos=extra_bos,
            image_size=image_size,
            vit_heads=vit_heads,
            qformer_bert=qformer_config,
            progress=lambda done, total: bar.update(task, completed=done, total=total, visible=True),
        )
    for line in account.lines():
        say_line(line)
    say_line(f"{output}: ready; try: minigpt4 chat PHOTO --model {output}")


def export_official(
    model: Annotated[str, typer.Option(metavar="FOLDER|HUB_ID", help="The system.", show_default=False)],
    output: Annotated[Path, typer.Option(metavar="FILE.pth", help="The file to write.", show_default=False)],
    qformer: Annotated[bool, typer.Option("--qformer", help="The Q-Former as well, if it was trained further.")] = False,
) -> None:
    """Write what was trained as a checkpoint that the published code loads."""
    _quietly()
    from ..checkpoints.official.exporting import export_official as run

    say_line(f"{output}: {len(run(model, output, qformer=qformer))} tensors")


def _quietly() -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
