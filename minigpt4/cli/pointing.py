"""Commands that point: the tasks of MiniGPT-v2 that take or give boxes, and short answers."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UserError
from ..io.jsonl import to_json
from .options import DECODING, SYSTEM, Draw, Json, System, box_row, found_in, options, ready_to_draw
from .terminal import remark, say, say_line

Photo = Annotated[Path, typer.Argument(metavar="PHOTO", show_default=False)]
Phrase = Annotated[str, typer.Argument(metavar="PHRASE", show_default=False)]


@options(system=SYSTEM, generation=DECODING)
def refer(
    photo: Photo,
    phrase: Phrase,
    draw: Draw = None,
    json: Json = False,
    *,
    system: System,
    generation: dict,
) -> None:
    """Find the one thing that a phrase means: prints left,top,right,bottom in pixels."""
    size = _ready(photo, draw, f"[refer] {phrase}")
    answer = system.load().refer(photo, phrase, **generation)
    _show(answer, {"image": str(photo), "phrase": phrase}, size, draw, json)


@options(system=SYSTEM, generation=DECODING)
def detect(
    photo: Photo,
    phrase: Phrase,
    draw: Draw = None,
    json: Json = False,
    *,
    system: System,
    generation: dict,
) -> None:
    """Find all things that a phrase means, or all those that a sentence names: a box a line."""
    size = _ready(photo, draw, f"[detection] {phrase}")
    answer = system.load().detect(photo, phrase, **generation)
    _show(answer, {"image": str(photo), "phrase": phrase}, size, draw, json)


@options(system=SYSTEM, generation=DECODING)
def ground(
    photo: Photo,
    draw: Draw = None,
    json: Json = False,
    *,
    system: System,
    generation: dict,
) -> None:
    """Describe a photo, and say where each thing is that the description names."""
    size = _ready(photo, draw)
    answer = system.load().ground(photo, **generation)
    if not json:
        say(answer.plain_text)
    _show(answer, {"image": str(photo)}, size, draw, json)


@options(system=SYSTEM, generation=DECODING)
def identify(
    photo: Photo,
    box: Annotated[
        str | None,
        typer.Argument(
            metavar="[BOX]",
            show_default=False,
            help="left,top,right,bottom in pixels, or as shares between 0 and 1, or {<x1><y1><x2><y2>} from 0 to 100.",
        ),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="In place of BOX: a picture in which something is drawn over the thing, on black.")
    ] = None,
    draw: Draw = None,
    json: Json = False,
    *,
    system: System,
    generation: dict,
) -> None:
    """Say what is in a box."""
    from ..prompt.boxes import Box

    size = _ready(photo, draw)
    if (box is None) == (mask is None):
        raise UserError("identify needs a box after the photo, like 20,30,180,240, or --mask FILE")
    chosen = _drawn_in(mask) if mask else Box.from_user(box or "", *size)
    answer = system.load().identify(photo, chosen, **generation)
    if draw is not None:
        answer.draw(draw)
    row = {"image": str(photo), "width": size[0], "height": size[1], "box": box_row(chosen, size), "answer": answer}
    say(to_json(row) if json else answer)


@options(system=SYSTEM, generation=DECODING)
def vqa(
    photo: Photo,
    question: Annotated[str, typer.Argument(metavar="QUESTION", show_default=False)],
    json: Json = False,
    *,
    system: System,
    generation: dict,
) -> None:
    """Answer a question about a photo in a word or two."""
    _ready(photo, None, f"[vqa] {question}")
    answer = system.load().vqa(photo, question, **generation)
    say(to_json({"image": str(photo), "question": question, "answer": answer}) if json else answer)


def _ready(photo: Path, draw: Path | None, question: str = "") -> tuple[int, int]:
    """The photo's size. What is wrong with the arguments is said here, before a model is loaded."""
    from ..media.images import open_image
    from ..prompt.tasks import split_identifier

    size = open_image(photo).size
    split_identifier(question)
    ready_to_draw(draw)
    return size


def _show(answer: Any, asked: dict[str, Any], size: tuple[int, int], draw: Path | None, json: bool) -> None:
    if draw is not None:
        answer.draw(draw)
    if json:
        empty = {"text": answer.plain_text, "width": size[0], "height": size[1], "phrases": []}
        say(to_json(asked | {"answer": answer} | empty | found_in(answer)))
        return
    if not answer.phrases:
        remark(f"no box in the answer: {answer}")
    named = len(answer.phrases) > 1 or "phrase" not in asked
    for phrase, boxes in answer.phrases:
        for box in boxes:
            place = ",".join(str(round(v)) for v in box.pixels(*size))
            say_line(f"{phrase}: {place}" if named and phrase else place)


def _drawn_in(mask: Path) -> Any:
    """The box around what is drawn in a file."""
    from PIL import Image, ImageOps

    from ..media.images import open_image
    from ..prompt.boxes import Box

    open_image(mask)  # for its messages: what it returns has lost a transparent ground
    with Image.open(mask) as image:
        box = Box.from_mask(ImageOps.exif_transpose(image))  # turned as its photo is
    if box is None or not box.area:
        raise UserError(f"{mask}: nothing is drawn in it that could be boxed")
    return box
