"""What the fields of a row are, so that a row which lacks one is named before anything is asked or counted."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """What a field may be: in words, and as a test."""

    what: str
    fits: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _are(test: Callable[[Any], bool], least: int = 1) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(test, value))


def _is_phrase(value: Any) -> bool:
    return isinstance(value, dict) and _is_text(value.get("phrase")) and _are(_is_box)(value.get("boxes"))


TEXT = Kind("text", _is_text)
TEXTS = Kind("a list of texts", _are(_is_text))
ANY_TEXTS = Kind("a list of texts, which may be empty", _are(_is_text, 0))
LABEL = Kind("true or false", lambda value: isinstance(value, bool))
BOX = Kind("a box of four numbers", _is_box)
BOXES = Kind("a list of boxes of four numbers each", _are(_is_box))
PHRASES = Kind("a list of phrases with their boxes", _are(_is_phrase))
SIDE = Kind("a number above 0", lambda value: _is_number(value) and value > 0)


def one_of(names: Mapping[str, Any]) -> Kind:
    """A text that is one of these."""
    return Kind(f"one of {', '.join(names)}", lambda value: _is_text(value) and value in names)


_ALWAYS = {"image": TEXT}
_WHERE_THERE = {"prompt": TEXT, "kind": TEXT, "width": SIDE, "height": SIDE, "largest": BOX}


def fault(row: Mapping[str, Any], needs: Mapping[str, Kind]) -> str | None:
    """What is wrong with the first field of a row that is not as it should be; None where all are.

    Args:
        needs: the fields that the row's benchmark counts by.
    """
    for name, kind in (_ALWAYS | dict(needs)).items():
        if name not in row:
            return f'has no "{name}" ({kind.what})'
        if not kind.fits(row[name]):
            return f'its "{name}" must be {kind.what}'
    for name, kind in _WHERE_THERE.items():
        if name in row and not kind.fits(row[name]):
            return f'its "{name}" must be {kind.what}'
    if ("width" in row) != ("height" in row):
        return 'has only one of "width" and "height"'
    return None
