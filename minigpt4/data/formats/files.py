"""Finding and reading the files of a dataset: lists and patterns of names, JSON, folders of pictures."""

import glob
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from ...errors import UserError

PathLike: TypeAlias = str | os.PathLike
Paths: TypeAlias = PathLike | list[PathLike]

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def files(given: Paths, option: str, expected: str) -> list[str]:
    """The files that an option names: one or several, with ``*`` and ``{00000..01255}`` written out.

    Args:
        option: the option's name, for messages.
        expected: what the file should be, for messages.

    Raises:
        UserError: nothing is given, a file is missing, or a pattern matches nothing.
    """
    names = given if isinstance(given, list | tuple) else [given]
    if not names:
        raise UserError(f"{option}: names no file; expected {expected}")
    found: list[str] = []
    for name in names:
        if not isinstance(name, str | os.PathLike):
            raise UserError(f"{option}: expected a file name or a list of them, found {name!r}")
        for one in _ranges(os.fspath(name)):
            if "://" in one or os.path.exists(one):
                found.append(one)
            elif glob.has_magic(one):
                matches = sorted(glob.glob(one, recursive=True))
                if not matches:
                    raise UserError(f"{option}: {one} matches no file; expected {expected}")
                found += matches
            else:
                raise UserError(f"{one}: no such file; expected {expected} ({option})")
    return found


def _ranges(name: str) -> Iterator[str]:
    """``{000..002}.tar`` -> ``000.tar``, ``001.tar``, ``002.tar``; several ranges are nested."""
    match = _RANGE.search(name)
    if match is None:
        yield name
        return
    first, last = match.groups()
    if int(last) < int(first):
        raise UserError(f"{name}: the range {match[0]} is empty")
    for number in range(int(first), int(last) + 1):
        yield from _ranges(f"{name[: match.start()]}{number:0{len(first)}d}{name[match.end() :]}")


def load_json(path: str) -> Any:
    """The contents of a JSON file.

    Raises:
        UserError: it cannot be read, or is not JSON; with line and column.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}:{error.colno}: not JSON ({error.msg}); is the file whole?") from None
    except RecursionError:
        raise UserError(f"{path}: not JSON that can be read (nested too deeply)") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


class Folders:
    """Pictures by name in one or several folders. Each folder is listed once, so looking up a name asks no disk."""

    def __init__(self, given: Paths, option: str = "images"):
        self.folders = [os.fspath(folder) for folder in (given if isinstance(given, list | tuple) else [given])]
        if not self.folders:
            raise UserError(f"{option}: names no folder; expected where the pictures are")
        for folder in self.folders:
            if not os.path.isdir(folder):
                raise UserError(f"{folder}: no such folder; expected where the pictures are ({option})")
        self._listed: dict[str, frozenset[str]] = {}

    def find(self, names: Iterable[str]) -> Path | None:
        """The first of several possible names that exists, in the first folder that has it."""
        for name in names:
            for folder in self.folders:
                path = os.path.normpath(os.path.join(folder, name))
                parent, base = os.path.split(path)
                if base in self._names(parent):
                    return Path(path)
        return None

    def _names(self, folder: str) -> frozenset[str]:
        names = self._listed.get(folder)
        if names is None:
            try:
                names = frozenset(entry.name for entry in os.scandir(folder or "."))
            except OSError:
                names = frozenset()
            self._listed[folder] = names
        return names
