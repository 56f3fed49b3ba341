"""Values of a row: taken out where they are what they must be, named in a message where they are not."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from ..errors import UserError


def text_of(row: Mapping, key: str, where: str) -> str:
    """The text under a key, which must be there and not be blank."""
    if key not in row:
        raise UserError(f'{where}: no "{key}"')
    text = row[key]
    if not isinstance(text, str):
        raise UserError(f'{where}: "{key}" must be text, found {kind_of(text)}')
    if not text.strip():
        raise UserError(f'{where}: "{key}" is empty')
    _must_be_whole(text, key, where)
    return text


def texts_of(row: Mapping, key: str, where: str, blank: bool = False) -> tuple[str, ...]:
    """The list of texts under a key, which must be there and hold at least one; `blank` allows empty ones."""
    if key not in row:
        raise UserError(f'{where}: no "{key}"')
    texts = row[key]
    if not isinstance(texts, Sequence) or isinstance(texts, str) or not texts:
        raise UserError(f'{where}: "{key}" must be a list of texts, found {kind_of(texts)}')
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not (text.strip() or blank):
            found = "an empty one" if isinstance(text, str) else kind_of(text)
            raise UserError(f'{where}: "{key}"[{i}] must be text, found {found}')
        _must_be_whole(text, f"{key}[{i}]", where)
    return tuple(texts)


def _must_be_whole(text: str, key: str, where: str) -> None:
    """Raises UserError if there is half of a surrogate pair in a text, which no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise UserError(f'{where}: "{key}" has half of a surrogate pair in it ({half} at character {error.start})') from None


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def kind_of(value: Any) -> str:
    """What a JSON value is, in words for a message."""
    if isinstance(value, Mapping):
        return "an object with " + (", ".join(map(quoted, value)) if value else "nothing in it")
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"text {value!r}" if len(value) <= 40 else f"text {value[:37]!r}..."
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return f"a list of {len(value)}"
    return type(value).__name__


def nearest(word: str, known: Iterable[str]) -> str:
    """``did you mean ...?``, or the whole list."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f'did you mean "{close[0]}"?' if close else f"known: {', '.join(known)}"


def quoted(word: Any) -> str:
    return f'"{word}"'
