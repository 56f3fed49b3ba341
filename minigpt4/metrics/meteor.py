"""METEOR with exact and stemmed matches (Banerjee and Lavie 2005, with the weights of Lavie and Agarwal 2007).

What it lacks of the full measure: matches of synonyms (WordNet) and of paraphrases, weights by kind of match, and the lower
weight of function words (METEOR 1.5). Its numbers are lower than those of METEOR 1.5, which is a Java program, and are to be
compared among themselves alone. SPICE is not here at all: it needs a parser that is a Java program too.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import pairwise

from ..errors import UserError
from .caption import Tokenizer, plain_tokens

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5
"""How much recall weighs against precision; how steeply, and how much, a wrong order of words is punished."""


def meteor(references: Sequence[Sequence[str]], candidates: Sequence[str], tokens: Tokenizer = plain_tokens) -> list[float]:
    """METEOR of each candidate, 0..1, against the reference that it agrees with most.

    Raises:
        UserError: the stemmer is not installed.
    """
    stem = _stemmer()
    return [
        max(_score(tokens(candidate), tokens(text), stem) for text in texts)
        for texts, candidate in zip(references, candidates, strict=True)
    ]


def _score(own: Sequence[str], ref: Sequence[str], stem: Callable[[str], str]) -> float:
    pairs = aligned(own, ref, stem)
    if not pairs:
        return 0.0
    precision, recall = len(pairs) / len(own), len(pairs) / len(ref)
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    return mean * (1 - GAMMA * (chunks(pairs) / len(pairs)) ** BETA)


def aligned(own: Sequence[str], ref: Sequence[str], stem: Callable[[str], str]) -> list[tuple[int, int]]:
    """Which word is which: pairs of places, each used once, words that are the same before those whose stem is.

    Of several places for a word, the one that goes on where its neighbour's ends is taken, else the first.
    """
    found: dict[int, int] = {}
    for form in (str, stem):
        free: dict[str, list[int]] = {}
        for j, word in enumerate(ref):
            if j not in found.values():
                free.setdefault(form(word), []).append(j)
        for i, word in enumerate(own):
            places = free.get(form(word))
            if i in found or not places:
                continue
            wanted = found.get(i - 1, -2) + 1
            found[i] = wanted if wanted in places else places[0]
            places.remove(found[i])
    return sorted(found.items())


def chunks(pairs: Sequence[tuple[int, int]]) -> int:
    """Into how many runs, in both sentences without a gap, the pairs fall."""
    joined = sum(b == (a[0] + 1, a[1] + 1) for a, b in pairwise(pairs))
    return len(pairs) - joined


def has_stemmer() -> bool:
    """Whether `meteor` can be worked out here."""
    return find_spec("snowballstemmer") is not None


@cache
def _stemmer() -> Callable[[str], str]:
    try:
        import snowballstemmer
    except ImportError:
        raise UserError("METEOR needs a stemmer: pip install 'minigpt4[evaluate]'") from None
    return cache(snowballstemmer.stemmer("english").stemWord)
