"""A conversation in the terminal."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .assistant import Assistant, about
from .cli_options import found_in
from .errors import UserError
from .prompt.answer import Answer


def talk(assistant: Assistant, photos: Sequence[Path], as_json: bool, generation: dict) -> None:
    """Read questions until the end of input; stream answers, or print one JSON line each with `as_json`."""
    chat = assistant.chat(list(photos))
    asking = sys.stdin.isatty() and not as_json
    if asking:
        import readline  # noqa: F401  (line editing and history for input())

        print(
            "Ask about the photo. /image FILE adds one, /draw FILE draws the last answer's boxes, /reset forgets, /quit leaves."
        )
    last: Answer | None = None
    while True:
        try:
            line = input("> " if asking else "").strip()
        except (EOFError, KeyboardInterrupt):
            break
        command, _, rest = line.partition(" ")
        try:
            if command == "/quit":
                break
            if command == "/reset":
                chat.forget()
                last = None
            elif command == "/image":
                chat.show(rest.strip())
            elif command == "/draw":
                if last is None:
                    raise UserError("there is no answer yet to draw")
                last.draw(rest.strip())
            elif command.startswith("/"):
                raise UserError(f"unknown command {command}; there are /image FILE, /draw FILE, /reset and /quit")
            elif not line:
                continue
            elif as_json:
                last = chat.ask(line, **generation)
                print(json.dumps({"question": line, "answer": last} | found_in(last), ensure_ascii=False), flush=True)
            else:
                pieces = []
                for piece in chat.stream(line, **generation):
                    pieces.append(piece)
                    print(piece, end="", flush=True)
                print()
                last = about("".join(pieces), chat.pictures[-1:], line)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
        except KeyboardInterrupt:  # stops the answer, not the conversation
            print()
