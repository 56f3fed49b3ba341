"""The page that shows plain and enriched captions side by side."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..io.atomic import saying, write_text
from ..media.images import open_image
from ..reports.page import page, thumbnail
from .analysis import Truth, analyse, objects_of
from .nouns import nouns

_WORD = re.compile(r"([A-Za-z]+(?:['\u2019-][a-z]+)*)")


def comparison_page(
    path: str | os.PathLike,
    transcripts: Sequence[Mapping[str, Any]],
    truth: Truth | None = None,
    carried: Mapping[str, float] | None = None,
) -> None:
    """Write the page. Images are shown where they are still found.

    Args:
        carried: shares of questions answered from captions alone (`from_caption.answered_from_captions`).
    """
    figures = analyse(transcripts, truth) | ({"carried": carried} if carried else {})
    known = truth or {}
    vocabulary = frozenset[str]().union(*(objects_of(known[t["image"]]) for t in transcripts if t["image"] in known))
    shown = []
    for one in transcripts:
        there = objects_of(known[one["image"]]) if one["image"] in known else None
        marked = marked_words(one["caption"], set(nouns(one["plain"])), there, vocabulary)
        name = os.path.basename(one["image"])
        shown.append(dict(one) | {"marked": marked, "name": name, "thumbnail": _thumbnail(one["image"])})
    with saying(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page("converse.html", figures=figures, dialogues=shown))


def marked_words(
    caption: str, plain: set[str], there: frozenset[str] | None, vocabulary: frozenset[str]
) -> list[tuple[str, str]]:
    """The caption in pieces: (``""``, ``new``, ``true`` or ``false``; text). Nouns of the plain caption are not marked."""
    pieces = []
    for text in _WORD.split(caption):
        [noun] = nouns(text) or [""]
        kind = ""
        if noun and noun not in plain:
            kind = "new" if there is None else "true" if noun in there else "false" if noun in vocabulary else ""
        pieces.append((kind, text))
    return pieces


def _thumbnail(image: str) -> str:
    try:
        return thumbnail(open_image(image))
    except UserError:  # a video, or a file that has gone
        return ""
