"""The command line: each command is a typed function that calls one function of the house."""

import json as jsonlib
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Ask about pictures, and align eyes with minds.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Dtype(StrEnum):
    """Precision of the weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


# Options that several commands share. Names of decoding options are those of transformers.
DECODING = "Decoding (named as in transformers)"
Model = Annotated[str, typer.Option(help="The pocket model, a folder, or a hub id.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best there is when not given.")]
DtypeOption = Annotated[Dtype | None, typer.Option(help="Precision of the weights; the best for the device when not given.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Pictures at a time.")]
MaxNewTokens = Annotated[int | None, typer.Option(min=1, rich_help_panel=DECODING)]
MinNewTokens = Annotated[int | None, typer.Option(min=0, rich_help_panel=DECODING)]
NumBeams = Annotated[int | None, typer.Option(min=1, rich_help_panel=DECODING)]
DoSample = Annotated[bool | None, typer.Option("--do-sample/--no-do-sample", rich_help_panel=DECODING)]
Temperature = Annotated[float | None, typer.Option(min=0.01, rich_help_panel=DECODING)]
TopP = Annotated[float | None, typer.Option(min=0.0, max=1.0, rich_help_panel=DECODING)]
TopK = Annotated[int | None, typer.Option(min=1, rich_help_panel=DECODING)]
RepetitionPenalty = Annotated[float | None, typer.Option(min=0.01, rich_help_panel=DECODING)]
LengthPenalty = Annotated[float | None, typer.Option(rich_help_panel=DECODING)]
NoRepeatNgramSize = Annotated[int | None, typer.Option(min=0, rich_help_panel=DECODING)]
Seed = Annotated[int | None, typer.Option(help="For sampling.", rich_help_panel=DECODING)]


@app.command()
def ask(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="PHOTO... QUESTION", show_default=False)] = None,
    input: Annotated[Path | None, typer.Option(help='JSON Lines of {"image", "question"}.')] = None,
    output: Annotated[Path | None, typer.Option(help='The same rows with "answer"; continued if it exists.')] = None,
    json: Json = False,
    batch_size: BatchSize = 16,
    model: Model = "pocket",
    device: Device = None,
    dtype: DtypeOption = None,
    max_new_tokens: MaxNewTokens = None,
    min_new_tokens: MinNewTokens = None,
    num_beams: NumBeams = None,
    do_sample: DoSample = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    repetition_penalty: RepetitionPenalty = None,
    length_penalty: LengthPenalty = None,
    no_repeat_ngram_size: NoRepeatNgramSize = None,
    seed: Seed = None,
) -> None:
    """Ask a question about one photo or several, or many questions from a file."""
    generation = _generation(locals())
    if input is not None:
        if arguments:
            raise UserError("give photos and a question, or --input FILE, not both")
        if output is None:
            raise UserError("--input needs --output FILE for the answers")
        from .batch import ask_file

        raise typer.Exit(ask_file(_load(model, device, dtype), input, output, batch_size, generation))
    if output is not None:
        raise UserError("--output goes with --input FILE")
    if not arguments or len(arguments) < 2:
        raise UserError('ask needs a photo and a question: minigpt4 ask photo.jpg "What is in this picture?"')
    *photos, question = arguments
    _open_all(photos)
    assistant = _load(model, device, dtype)
    if json or assistant.beams(generation) > 1:
        answer = assistant.ask(photos, question, **generation)
        print(
            _json({"image": photos if len(photos) > 1 else photos[0], "question": question, "answer": answer})
            if json
            else answer
        )
        return
    for piece in assistant.stream(photos, question, **generation):
        print(piece, end="", flush=True)
    print()


@app.command()
def caption(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO... | FOLDER", show_default=False)],
    output: Annotated[Path | None, typer.Option(help='JSON Lines of {"image", "caption"}; continued if it exists.')] = None,
    json: Json = False,
    batch_size: BatchSize = 16,
    model: Model = "pocket",
    device: Device = None,
    dtype: DtypeOption = None,
    max_new_tokens: MaxNewTokens = None,
    min_new_tokens: MinNewTokens = None,
    num_beams: NumBeams = None,
    do_sample: DoSample = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    repetition_penalty: RepetitionPenalty = None,
    length_penalty: LengthPenalty = None,
    no_repeat_ngram_size: NoRepeatNgramSize = None,
    seed: Seed = None,
) -> None:
    """Caption photos, or every photo in a folder."""
    from .batch import caption_files, pictures_in

    generation = _generation(locals())
    pictures = pictures_in(photos)
    if output is None:
        _open_all(pictures[:1])
    status = caption_files(_load(model, device, dtype), pictures, output, json, batch_size, generation)
    raise typer.Exit(status)


@app.command()
def chat(
    photos: Annotated[list[Path] | None, typer.Argument(metavar="[PHOTO]...", show_default=False)] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Read questions from standard input, print a JSON line per answer.")
    ] = False,
    model: Model = "pocket",
    device: Device = None,
    dtype: DtypeOption = None,
    max_new_tokens: MaxNewTokens = None,
    min_new_tokens: MinNewTokens = None,
    do_sample: DoSample = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    repetition_penalty: RepetitionPenalty = None,
    no_repeat_ngram_size: NoRepeatNgramSize = None,
    seed: Seed = None,
) -> None:
    """Talk about photos in the terminal. /image FILE adds a picture, /reset forgets, /quit leaves."""
    from .terminal import talk

    generation = _generation(locals())
    _open_all(photos or [])
    talk(_load(model, device, dtype), photos or [], json, generation)


def _register_train() -> None:
    from . import cli_train

    app.command()(cli_train.train)
    app.add_typer(cli_train.data, name="data")


_register_train()


def _generation(given: dict[str, Any]) -> dict[str, Any]:
    """The decoding options among a command's arguments, those that were given."""
    names = [
        "max_new_tokens",
        "min_new_tokens",
        "num_beams",
        "do_sample",
        "temperature",
        "top_p",
        "top_k",
        "repetition_penalty",
        "length_penalty",
        "no_repeat_ngram_size",
        "seed",
    ]
    return {name: given[name] for name in names if given.get(name) is not None}


def _open_all(photos: list[str] | list[Path]) -> None:
    """Look at the pictures before the model is loaded, so that a wrong name is said at once."""
    from .model.pictures import open_picture

    for photo in photos:
        open_picture(photo)


def _load(model: str, device: str | None, dtype: Dtype | None) -> Any:
    """The system, loaded; `transformers` is told to keep its remarks to itself."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from .startup import import_transformers_quickly

    import_transformers_quickly()
    from .assistant import load

    return load(model, device=device, dtype=dtype.value if dtype else None)


def _json(row: dict[str, Any]) -> str:
    return jsonlib.dumps(row, ensure_ascii=False)


def main() -> None:
    """Entry point: mistakes of the user are one line on standard error and status 2."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
