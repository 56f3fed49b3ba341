"""The command line: each command is a typed function that calls one function of the house."""

import io
import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from .cli_options import (
    BatchSize,
    Device,
    DoSample,
    Draw,
    DtypeOption,
    Json,
    MaxNewTokens,
    MinNewTokens,
    Model,
    NoRepeatNgramSize,
    Quantize,
    RepetitionPenalty,
    Seed,
    Temperature,
    TopK,
    TopP,
    decoding,
    found_in,
    generation_of,
    is_picture_file,
    load,
    open_all,
    ready_to_draw,
)
from .errors import UserError
from .jsonl import to_json

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Ask about pictures, and align eyes with minds.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
@decoding
def ask(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="PHOTO... QUESTION", show_default=False)] = None,
    input: Annotated[Path | None, typer.Option(help='JSON Lines of {"image", "question"}.')] = None,
    output: Annotated[Path | None, typer.Option(help='The same rows with "answer"; continued if it exists.')] = None,
    draw: Draw = None,
    json: Json = False,
    batch_size: BatchSize = 16,
    model: Model = "pocket",
    device: Device = None,
    dtype: DtypeOption = None,
    quantize: Quantize = None,
    *,
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
        from .batch import ask_file

        system = partial(load, model, device, dtype, quantize)
        raise typer.Exit(ask_file(system, input, output, batch_size, generation))
    if output is not None:
        raise UserError("--output goes with --input FILE")
    if not arguments or len(arguments) < 2 or not arguments[-1].strip() or is_picture_file(arguments[-1]):
        raise UserError('ask needs a photo and then a question: minigpt4 ask photo.jpg "What is in this picture?"')
    from .prompt.tasks import split_identifier

    *photos, question = arguments
    if draw is not None and len(photos) > 1:
        raise UserError("--draw needs a question about one photo")
    pictures = open_all(photos)
    split_identifier(question)  # an unknown one is said before the model is loaded
    ready_to_draw(draw)
    assistant = load(model, device, dtype, quantize)
    if json or draw or assistant.beams(assistant.question_settings(question) | generation) > 1:
        answer = assistant.ask(pictures, question, **generation)
        if draw is not None:
            answer.draw(draw)
        row = {"image": photos if len(photos) > 1 else photos[0], "question": question, "answer": answer}
        print(to_json(row | found_in(answer)) if json else answer)
        return
    for piece in assistant.stream(pictures, question, **generation):
        print(piece, end="", flush=True)
    print()


@app.command()
@decoding
def caption(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO... | FOLDER", show_default=False)],
    output: Annotated[Path | None, typer.Option(help='JSON Lines of {"image", "caption"}; continued if it exists.')] = None,
    json: Json = False,
    batch_size: BatchSize = 16,
    model: Model = "pocket",
    device: Device = None,
    dtype: DtypeOption = None,
    quantize: Quantize = None,
    *,
    generation: dict,
) -> None:
    """Caption photos, or every photo in a folder."""
    from .batch import caption_files, pictures_in

    system = partial(load, model, device, dtype, quantize)
    raise typer.Exit(caption_files(system, pictures_in(photos), output, json, batch_size, generation))


@app.command()
def chat(
    photos: Annotated[list[Path] | None, typer.Argument(metavar="[PHOTO]...", show_default=False)] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Read questions from standard input, print a JSON line per answer.")
    ] = False,
    model: Model = "pocket",
    device: Device = None,
    dtype: DtypeOption = None,
    quantize: Quantize = None,
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
    """Talk about photos in the terminal.

    /image FILE adds a picture, /draw FILE draws the last answer's boxes, /reset forgets, /quit leaves.
    """
    from .terminal import talk

    generation = generation_of(locals())
    pictures = open_all(photos or [])
    raise typer.Exit(talk(load(model, device, dtype, quantize), pictures, json, generation))


def _register_train() -> None:
    from . import cli_train

    app.command()(cli_train.train)
    app.add_typer(cli_train.data, name="data")


_register_train()


def _register_pointing() -> None:
    from . import cli_evaluate, cli_pointing

    app.add_typer(cli_evaluate.app, name="evaluate")
    for command in (cli_pointing.refer, cli_pointing.detect, cli_pointing.ground, cli_pointing.identify, cli_pointing.vqa):
        app.command()(command)


_register_pointing()


def _register_official() -> None:
    from . import cli_official

    for command in (cli_official.import_official, cli_official.export_official):
        app.command()(command)


_register_official()


def _version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Ask about pictures, and align eyes with minds."""


def main() -> None:
    """Entry point: mistakes of the user are one line on standard error and status 2."""
    for stream in (sys.stdout, sys.stdin):  # names of files need not be text, nor what is typed
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    try:
        status = app(prog_name="minigpt4", standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        _leave(str(error))
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which need not have been imported
            _leave("not enough memory on the device; try a smaller --batch-size, --quantize 4bit, or --device cpu")
        if not hasattr(error, "format_message"):  # typer's way to say that a command line makes no sense
            raise
        if type(error).__name__ == "NoArgsIsHelpError":  # the help has been printed
            sys.exit(2)
        where = getattr(getattr(error, "ctx", None), "command_path", "minigpt4")
        _leave(f"{error.format_message().rstrip('.')} (see: {where} --help)")
    sys.exit(status)


def _leave(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
