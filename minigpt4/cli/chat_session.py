"""A conversation in the terminal."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..inference.answer import Answer
from ..io.jsonl import to_json
from ..media.images import ImageInput
from .options import System, draw_boxes_of, found_in
from .terminal import remark, say, say_line

COMMANDS = "/image FILE, /draw FILE, /reset and /quit"


def talk(system: System, images: Sequence[ImageInput], as_json: bool, generation: dict) -> int:
    """Read questions until the end of input; stream answers, or print one JSON line each with `as_json`.

    Returns:
        The exit status: 1 if a line of a file or a pipe was in error, 0 otherwise and always where a person is asking.
    """
    from ..inference.chat import about

    asking = sys.stdin.isatty() and not as_json
    answering = _Answering(system, images, generation)
    if asking:
        import readline  # noqa: F401  (line editing and history for input())

        say(
            "Ask about the photo. /image FILE adds one, /draw FILE draws the last answer's boxes, /reset forgets, /quit leaves."
        )
    last: Answer | None = None
    failed = False
    while True:
        try:
            line = input("> " if asking else "").strip()
        except EOFError:
            if asking:
                say()
            break
        except KeyboardInterrupt:
            say()
            break
        command, _, rest = line.partition(" ")
        try:
            if command == "/quit":
                break
            if command == "/reset":
                answering.chat.forget()
                last = None
            elif command == "/image":
                answering.chat.show(_file(rest, command))
            elif command == "/draw":
                if last is None:
                    raise UserError("there is no answer yet to draw")
                draw_boxes_of(last, _file(rest, command))
            elif command.startswith("/"):
                raise UserError(f"unknown command {command}; there are {COMMANDS}")
            elif not line:
                continue
            elif not answering.streams(line) or as_json:
                last = answering.chat.ask(line, **generation)
                say_line(to_json({"question": line, "answer": last} | found_in(last)) if as_json else last, flush=True)
            else:
                pieces = []
                for piece in answering.chat.stream(line, **generation):
                    pieces.append(piece)
                    say(piece, end="", flush=True)
                say()
                last = about("".join(pieces), answering.chat.images[-1:], line)
        except UserError as error:
            failed = True
            remark(f"error: {error}")
        except KeyboardInterrupt:  # stops the answer, not the conversation
            if not asking:
                raise
            say()
    return int(failed and not asking)


class _Answering:
    """A conversation that is answered without torch as long as it can be, and by the whole system from then on."""

    def __init__(self, system: System, images: Sequence[ImageInput], generation: dict):
        self._system, self._generation = system, generation
        self._quick = system.quick("", generation)
        self._assistant = self._quick or system.load()
        self.chat = self._assistant.chat(images)

    def streams(self, question: str) -> bool:
        """Whether the answer comes piece by piece, as `chat` can give it after this."""
        if self._quick is None or self._quick.can_answer(question, self._generation):
            return self._assistant.streams(question, self._generation)
        remark("this question needs the whole system: loading it takes some seconds ...")
        whole = self._system.load()
        chat = whole.chat()
        chat.go_on(self.chat)
        self._quick, self._assistant, self.chat = None, whole, chat  # all at once: Ctrl-C before leaves it as it was
        return whole.streams(question, self._generation)


def _file(typed: str, command: str) -> Path:
    """A file's name as typed, as dragged into a terminal (quoted, or with blanks escaped), or from the home folder."""
    typed = typed.strip()
    if not typed:
        raise UserError(f"{command} needs a file: {command} FILE")
    path = Path(typed).expanduser()
    try:
        words = shlex.split(typed)
    except ValueError:  # a quotation mark that is part of the name
        return path
    return Path(words[0]).expanduser() if len(words) == 1 and not os.path.exists(path) else path
