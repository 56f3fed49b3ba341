"""What is wrong with a long answer, as far as it shows without a look at the picture.

Source: the MiniGPT-4 paper's table of failure rates, for which its authors counted repetition, fragments and what is incomplete
by hand; here rules count them, so that two systems are counted alike.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

LEAST_WORDS = 8
"""An answer of fewer words is a fragment of what was asked for."""
_RUN, _TIMES = 4, 3
"""So many words said so many times in one answer are a repetition."""
_LOOP = 3
"""So are one to three words that come so many times in a row."""
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")
_BOUNDARY = re.compile(r"(?<=[.!?])\s+|\n+")
_FINISHED = re.compile(r"[.!?\u2026][\"'\u201d\u2019)\]*_]*$")


def flaws(text: str, verse: bool = False) -> list[str]:
    """Any of ``"repeats"``, ``"unfinished"`` and ``"fragment"``.

    Args:
        verse: lines need not end like sentences, and one may return as a refrain; the same words three times may not.
    """
    words = _words(text)
    found = []
    if _repeats(text, words, verse):
        found.append("repeats")
    if words and not verse and not _FINISHED.search(text.strip()):
        found.append("unfinished")
    if len(words) < LEAST_WORDS:
        found.append("fragment")
    return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _repeats(text: str, words: Sequence[str], verse: bool) -> bool:
    sentences = Counter(tuple(said) for sentence in _BOUNDARY.split(text) if len(said := _words(sentence)) > 1)
    if any(count > (2 if verse else 1) for count in sentences.values()):
        return True
    if any(count >= _TIMES for count in Counter(_runs(words, _RUN)).values()):
        return True
    return any(
        all(words[i : i + length] == words[i + k * length : i + (k + 1) * length] for k in range(1, _LOOP))
        for length in range(1, _RUN)
        for i in range(len(words) - _LOOP * length + 1)
    )


def _runs(words: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    return (tuple(words[i : i + length]) for i in range(len(words) - length + 1))
