"""The command line: each command is a typed function that calls one function of the house."""

import sys
from typing import Annotated, NoReturn

import typer

from ..errors import UserError
from ..io.cores import wait_quietly
from .curate import curate
from .dialogue import converse
from .everyday import ask, caption, chat
from .export import export
from .judge import app as evaluate  # with its own commands added
from .official import export_official, import_official
from .pointing import detect, ground, identify, refer, vqa
from .serve import serve, web
from .terminal import remark, say, standard_streams, to_nowhere
from .train import data, train

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Ask about images, train, evaluate and serve MiniGPT-4 models.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS = (ask, caption, chat, refer, detect, ground, identify, vqa, converse, train, serve, web, import_official)
for _command in (*_COMMANDS, export_official, export):
    app.command()(_command)
app.add_typer(evaluate, name="evaluate")
app.add_typer(data, name="data")
app.add_typer(curate, name="curate")


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        say(__version__)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Ask about images, train, evaluate and serve MiniGPT-4 models."""


def main() -> None:
    """Entry point: mistakes of the user are one line on standard error and status 2."""
    wait_quietly()
    with standard_streams():
        _run()


def _run() -> NoReturn:
    try:
        status = app(prog_name="minigpt4", standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        _leave(str(error))
    except BrokenPipeError:  # the reader of our output has left
        to_nowhere(sys.stdout)
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
        said = error.format_message().rstrip(".").replace(": Value error, ", ": ")
        if said.startswith("Got unexpected extra argument"):
            said += "; words that belong together go into quotes"
        _leave(f"{said} (see: {where} --help)")
    sys.exit(status)


def _leave(message: str) -> NoReturn:
    remark(f"error: {message}")
    sys.exit(2)
