"""Descriptions of two to four sentences, made of what several people wrote about one picture.

Each caption is a sentence of its own. Those are put together that do not contradict each other (`facts.contradict`) and do
not say the same again. What is doubtful is left out: a picture has several captions, and a description needs two that agree.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..data.schema import Description, parse_row
from ..errors import UserError
from ..io.jsonl import read_rows, write_rows
from ..metrics.phrase import head_place
from ..metrics.words import PEOPLE, content_words, singular, stems, words
from ..prompt.text import join_tokens
from .facts import NUMBERS, Facts, contradict, facts_of

MOST = 4
SAME_WORDS = 0.5
"""Two sentences that have so much of their content words in common say the same."""
SAME_PAIRS = 0.4
"""And so do two of which one has so much of its pairs of neighbouring words from the other."""
NEW_WORDS, NEW_SHARE = 2, 0.45
"""How many of a further sentence's content words have to be new, and what share of them."""

_WITH = words(
    "wearing holding carrying having dressing covering using containing featuring including"
)  # describe, and do not tell


@dataclass(eq=False)
class Sentence:
    """A caption, and what is needed to compare it."""

    text: str
    facts: Facts = field(init=False)
    content: frozenset[str] = field(init=False)
    pairs: frozenset[tuple[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        self.facts = facts_of(self.text)
        self.content = content_words(self.text)
        self.pairs = frozenset(pairwise(stems(self.text)))


def describe(captions: Sequence[str], most: int = MOST) -> str | None:
    """A description of two to `most` sentences, or None if no two captions agree and differ enough.

    The caption that has most in common with the others comes first; then, one by one, the one that adds most.
    """
    said = [text for text in map(_joined, captions) if len(text.split()) > 2]
    single = {noun for text in said for noun, count in facts_of(text).counts.items() if count == (1, True)}
    sentences = [Sentence(text) for text in dict.fromkeys(_written(text, single) for text in said)]
    if len(sentences) < 2:
        return None
    chosen = [max(sentences, key=lambda s: sum(_agreement(s, other) for other in sentences) / (len(s.content) + 3))]
    while len(chosen) < most:
        known = frozenset[str]().union(*(s.content for s in chosen))
        fitting = [s for s in sentences if s not in chosen and _fits(s, chosen, known)]
        if not fitting:
            break
        chosen.append(max(fitting, key=lambda s: len(s.content - known)))
    if len(chosen) < 2:
        return None
    return " ".join(_told(sentence, chosen[:i]) for i, sentence in enumerate(chosen))


def repeats(a: Sentence, b: Sentence) -> bool:
    """Whether two sentences say much the same."""
    together, pairs = a.content | b.content, min(len(a.pairs), len(b.pairs))
    return len(a.content & b.content) >= SAME_WORDS * len(together) or len(a.pairs & b.pairs) >= SAME_PAIRS * pairs


def descriptions_file(source: str | Path, output: str | Path, most: int = MOST) -> tuple[int, int]:
    """Describe every picture of a JSON Lines file of captions (rows of our schema with several ``answers``).

    Returns:
        How many descriptions were written, and how many pictures there were.

    Raises:
        UserError: a row is malformed, or nothing could be described.
    """
    made: list[dict[str, Any]] = []
    images = 0
    for number, raw in read_rows(source):
        if isinstance(raw, UserError):
            raise raw
        row = parse_row(raw, f"{source}:{number}")
        if not isinstance(row, Description):
            continue
        images += 1
        if text := describe(row.answers, most):
            kept = {key: raw[key] for key in ("image", "images", "split") if key in raw}
            made.append(kept | {"answer": text})
    if not made:
        raise UserError(f"{source}: no picture has two captions that agree and differ enough to make a description of")
    write_rows(output, made)
    return len(made), images


def _agreement(a: Sentence, b: Sentence) -> int:
    """The words that two sentences share; those that contradict each other share less than nothing."""
    return len(a.content & b.content) * (-1 if contradict(a.facts, b.facts) else 1)


def _fits(sentence: Sentence, chosen: Sequence[Sentence], known: frozenset[str]) -> bool:
    if len(sentence.content - known) < max(NEW_WORDS, NEW_SHARE * len(sentence.content)):
        return False
    return not any(repeats(sentence, other) or contradict(sentence.facts, other.facts) for other in chosen)


def _joined(caption: str) -> str:
    """A caption as people write it, without the full stop."""
    text = " ".join(join_tokens(caption).split()).rstrip(" .,;")
    return re.sub(r"\b([Aa]) (?=[aeio](?!n[ec]e?\b|u))", r"\1n ", text)


def _written(caption: str, single: set[str]) -> str:
    """A caption as a sentence: with an article and a verb where they are left out, a large first letter and a full stop.

    Args:
        single: things of which there is one, as other captions say.
    """
    first = caption.split()[0].lower()
    if first in single | PEOPLE and singular(first) == first:
        caption = f"{'an' if first[0] in 'aeiou' else 'a'} {caption[0].lower()}{caption[1:]}"
    text = _with_verb(caption)
    return text[0].upper() + text[1:] + ("" if text[-1] in "!?" else ".")


def _with_verb(text: str) -> str:
    """``A girl going into a house`` -> ``A girl is going into a house``, where that is surely what is meant."""
    parts = text.split()
    tokens = [re.sub(r"\W+$", "", word).lower() for word in parts]
    if len(tokens) < 3 or NUMBERS.get(tokens[0]) is None or tokens[0] == "another":
        return text
    one = NUMBERS[tokens[0]] == 1
    head = head_place(tokens, 1, sentence=True, one=one)
    if head is None or head + 1 >= len(tokens) or not tokens[head + 1].endswith("ing") or parts[head].endswith(","):
        return text
    rest = tokens[head + 1 :]
    if {"is", "are", "was", "were", "has", "have", "that", "who", "which"} & set(rest):
        return text
    if rest[0] in _WITH or any(one and _may_be_verb(word) for word in rest[1:]):
        return text
    return " ".join([*parts[: head + 1], "is" if one else "are", *parts[head + 1 :]])


def _may_be_verb(word: str) -> bool:
    """Whether the real verb of the sentence may come later: ``a man standing there holds``."""
    return word.endswith("s") and not word.endswith(("ss", "us", "'s"))


def _told(sentence: Sentence, earlier: Sequence[Sentence]) -> str:
    """The sentence after others: what was spoken of before is ``the`` dog, not ``a`` dog."""
    text = sentence.text
    first, _, rest = text.partition(" ")
    number = NUMBERS.get(first.lower())
    tokens = [re.sub(r"\W+$", "", word).lower() for word in text.split()]
    head = head_place(tokens, 1, sentence=True, one=number == 1) if number and first.lower() != "another" else None
    if head is None:
        return text
    noun = singular(tokens[head])
    same = any(s.facts.counts.get(noun) == (number, True) for s in earlier)
    alone = noun in PEOPLE and any(s.facts.people() == (number, True) for s in earlier)
    if not (same or alone) or sentence.facts.counts.get(noun) != (number, True):
        return text
    return f"The {rest}" if number == 1 else f"The {first.lower()} {rest}"
