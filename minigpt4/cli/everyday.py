"""The everyday commands: ask about photos, caption them, talk about them."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UserError
from ..io.jsonl import to_json
from .options import (
    DECODING,
    SYSTEM,
    TALKING,
    BatchSize,
    Draw,
    Json,
    System,
    draw_boxes_of,
    found_in,
    is_image_file,
    open_all,
    options,
    ready_to_draw,
)
from .terminal import say

_FEW = 8
"""Photos that are captioned sooner one by one without torch than together with it."""


@options(system=SYSTEM, generation=DECODING)
def ask(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="PHOTO... QUESTION", help="One photo or several, then the question.", show_default=False),
    ] = None,
    input: Annotated[Path | None, typer.Option(help='JSON Lines of {"image", "question"}.')] = None,
    output: Annotated[Path | None, typer.Option(help='The same rows with "answer"; continued if it exists.')] = None,
    draw: Draw = None,
    json: Json = False,
    batch_size: BatchSize = 16,
    *,
    system: System,
    generation: dict,
) -> None:
    """Ask a question about one photo or several, or many questions from a file."""
    if input is not None:
        if arguments:
            raise UserError("give photos and a question, or --input FILE, not both")
        if draw is not None:
            raise UserError("--draw goes with one photo and a question, not with --input FILE")
        if output is None:
            raise UserError("--input needs --output FILE for the answers")
        from .batch import write_answers

        raise typer.Exit(write_answers(system, input, output, batch_size, generation))
    if output is not None:
        raise UserError("--output goes with --input FILE")
    if not arguments or len(arguments) < 2 or not arguments[-1].strip() or is_image_file(arguments[-1]):
        raise UserError('ask needs a photo and then a question: minigpt4 ask photo.jpg "What is in this picture?"')
    from ..prompt.tasks import split_identifier

    *photos, question = arguments
    for word in photos[1:]:
        if not os.path.exists(word) and not Path(word).suffix:
            raise UserError(
                f'{word}: no such file; a question goes into quotes: minigpt4 ask photo.jpg "What is in this picture?"'
            )
    if draw is not None and len(photos) > 1:
        raise UserError("--draw needs a question about one photo")
    images = open_all(photos)
    split_identifier(question)  # an unknown one is said before the model is loaded
    ready_to_draw(draw)
    assistant = system.quick(question, generation) or system.load()
    if json or draw is not None or not assistant.streams(question, generation):
        answer = assistant.ask(images, question, **generation)
        if draw is not None:
            draw_boxes_of(answer, draw)
        row = {"image": photos if len(photos) > 1 else photos[0], "question": question, "answer": answer}
        say(to_json(row | found_in(answer)) if json else answer)
        return
    for piece in assistant.stream(images, question, **generation):
        say(piece, end="", flush=True)
    say()


@options(system=SYSTEM, generation=DECODING)
def caption(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO... | FOLDER", show_default=False)],
    output: Annotated[Path | None, typer.Option(help='JSON Lines of {"image", "caption"}; continued if it exists.')] = None,
    json: Json = False,
    batch_size: BatchSize = 16,
    *,
    system: System,
    generation: dict,
) -> None:
    """Caption photos, or every photo in a folder."""
    from ..media.images import images_in
    from .batch import print_captions, write_captions

    images = images_in(photos)
    if output is not None:
        raise typer.Exit(write_captions(system, images, output, batch_size, generation))
    few = len(images) <= _FEW

    def load() -> Any:
        return (system.quick("", generation, task="caption") if few else None) or system.load()

    raise typer.Exit(print_captions(load, images, json, batch_size, generation))


@options(system=SYSTEM, generation=TALKING)
def chat(
    photos: Annotated[list[Path] | None, typer.Argument(metavar="[PHOTO]...", show_default=False)] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Read questions from standard input, print a JSON line per answer.")
    ] = False,
    *,
    system: System,
    generation: dict,
) -> None:
    """Talk about photos in the terminal.

    /image FILE adds a picture, /draw FILE draws the last answer's boxes, /reset forgets, /quit leaves.
    """
    from .chat_session import talk

    images = open_all(photos or [])
    raise typer.Exit(talk(system, images, json, generation))
