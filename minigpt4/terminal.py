"""A conversation in the terminal."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .assistant import Assistant
from .errors import UserError


def talk(assistant: Assistant, photos: Sequence[Path], as_json: bool, generation: dict) -> None:
    """Read questions until the end of input; stream answers, or print one JSON line each with `as_json`."""
    chat = assistant.chat(list(photos))
    asking = sys.stdin.isatty() and not as_json
    if asking:
        import readline  # noqa: F401  (line editing and history for input())

        print("Ask about the photo. /image FILE adds one, /reset forgets, /quit leaves.")
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
            elif command == "/image":
                chat.show(rest.strip())
            elif command.startswith("/"):
                raise UserError(f"unknown command {command}; there are /image FILE, /reset and /quit")
            elif not line:
                continue
            elif as_json:
                answer = chat.ask(line, **generation)
                print(json.dumps({"question": line, "answer": answer}, ensure_ascii=False), flush=True)
            else:
                for piece in chat.stream(line, **generation):
                    print(piece, end="", flush=True)
                print()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
        except KeyboardInterrupt:  # stops the answer, not the conversation
            print()
