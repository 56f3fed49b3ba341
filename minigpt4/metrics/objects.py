"""Which of COCO's 80 kinds of things a text names, and CHAIR: how many of those are not there (Rohrbach et al. 2018).

The words for each kind are ours (``coco_objects.json``), so numbers are near those of other lists, not equal to them. The
longest phrase counts: a hot dog is no dog, a home plate no plate, an orange shirt no orange.
"""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..prompt.boxes import without_boxes
from .words import singular

_WORD = re.compile(r"[a-z]+(?:'(?!s\b)[a-z]+)?")
"""A dog's tail names a dog, as it does for the tokeniser that CHAIR came with."""


@dataclass(frozen=True)
class Named:
    """What a text names of what is there.

    Args:
        mentions: how many times it names a thing of any kind, and `false` how many of these are not there.
        found: how many kinds that are there it names, of `there`.
        words: how many it has, boxes and markup aside.
    """

    mentions: int
    false: int
    found: int
    there: int
    words: int

    @property
    def hallucinates(self) -> bool:
        return self.false > 0


def objects_in(text: str) -> list[str]:
    """COCO's name for each thing that a text mentions, in order, as often as it does."""
    phrases, longest = _phrases()
    words = _words(text)
    found: list[str] = []
    place = 0
    while place < len(words):
        for length in range(min(longest, len(words) - place), 0, -1):
            phrase = tuple(words[place : place + length])
            if phrase in phrases:
                if kind := phrases[phrase]:
                    found.append(kind)
                place += length
                break
        else:
            place += 1
    return found


def named(text: str, there: Collection[str]) -> Named:
    """What a text names.

    Args:
        there: COCO's names of what is in the image, by its boxes and, as in CHAIR, by people's captions.
    """
    mentions = objects_in(text)
    false = sum(kind not in there for kind in mentions)
    found = len(set(mentions) & set(there))
    return Named(len(mentions), false, found, len(set(there)), len(without_boxes(text).split()))


def chair(texts: Sequence[Named]) -> dict[str, float]:
    """CHAIR_i: mentions of what is not there, of all mentions. CHAIR_s: texts with one, of all texts. Recall: kinds that are
    there and named, of all that are there. Words a text. nan where nothing counts."""

    def share(part: int, whole: int) -> float:
        return part / whole if whole else float("nan")

    return {
        "CHAIR_i": share(sum(t.false for t in texts), sum(t.mentions for t in texts)),
        "CHAIR_s": share(sum(t.hallucinates for t in texts), len(texts)),
        "recall": share(sum(t.found for t in texts), sum(t.there for t in texts)),
        "words": share(sum(t.words for t in texts), len(texts)),
    }


def _words(text: str) -> list[str]:
    return [singular(word) for word in _WORD.findall(text.lower().replace("\u2019", "'"))]


def kinds() -> tuple[str, ...]:
    """COCO's 80 names."""
    return tuple(_listed()["classes"])


@cache
def _listed() -> dict:
    return json.loads(Path(__file__).with_name("coco_objects.json").read_text(encoding="utf-8"))


@cache
def _phrases() -> tuple[dict[tuple[str, ...], str | None], int]:
    """Words in their singular -> what they name, or None for what is none of the 80; and the length of the longest phrase."""
    listed = _listed()
    named = {text: kind for kind, texts in listed["classes"].items() for text in (kind, *texts)} | listed["phrases"]
    phrases = {tuple(_words(text)): kind for text, kind in named.items()}
    return phrases, max(map(len, phrases))
