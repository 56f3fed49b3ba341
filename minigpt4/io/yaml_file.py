"""YAML that people write: read safely, within bounds; what is wrong with it is one line."""

import contextlib
import math
import os
from typing import Any

import yaml

from ..errors import UserError

_MOST_BYTES = 16 << 20
_MOST_VALUES = 1_000_000  # a few lines of YAML can stand for more than any memory holds
_MOST_DEPTH = 100


def read_yaml(path: str | os.PathLike) -> Any:
    """What a YAML file says.

    Raises:
        UserError: no such file, no YAML, or one that no program of ours could mean: endless, or nested without end.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValueError:  # a name that no file can have
        raise UserError(f"{path}: no such file") from None
    if len(data) > _MOST_BYTES:
        raise UserError(f"{path}: is larger than the {_MOST_BYTES >> 20} MB that are read of a file of settings")
    try:
        return parse_yaml(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not YAML (not UTF-8 text: {error.reason})") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def parse_yaml(text: str) -> Any:
    """What a text in YAML says; raises as `read_yaml` does."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"not YAML ({' '.join(str(error).split())[:300]})") from None
    except (ValueError, TypeError) as error:  # a date that is none, a key that is a list
        raise UserError(f"cannot be read ({' '.join(str(error).split())[:300]})") from None
    except RecursionError:
        raise UserError("nested too deeply") from None
    size = _size(value, {}, 0)
    if size == math.inf:
        raise UserError("holds itself (an alias within its own anchor)")
    if size > _MOST_VALUES:
        raise UserError(f"has more values than the {_MOST_VALUES:,} that are read of a file of settings")
    return value


def _size(value: Any, known: dict[int, float], depth: int) -> float:
    """How many values a value holds, aliases followed; infinitely many where one is within its own anchor."""
    if not isinstance(value, dict | list):
        return 1
    if depth > _MOST_DEPTH:
        raise UserError("nested too deeply")
    if id(value) not in known:
        known[id(value)] = math.inf  # as long as it is being counted
        inside = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(each, known, depth + 1) for each in inside)
    return known[id(value)]


def value_of(text: str) -> Any:
    """A value from a command line, as YAML reads it; text that is no YAML is text. Raises UserError for what has no end."""
    try:
        value = parse_yaml(text)
    except UserError as error:
        if str(error).startswith(("not YAML", "cannot be read")):
            return text
        raise
    if isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        with contextlib.suppress(ValueError):
            return float(value)
    return value
