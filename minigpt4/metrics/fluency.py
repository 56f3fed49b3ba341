"""What is wrong with a long answer, as far as it shows without a look at the image.

Source: the MiniGPT-4 paper's table of failure rates, for which its authors counted repetition, fragments and what is incomplete
by hand; here rules count them, so that two systems are counted alike, and each says in words what it found.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

LEAST_WORDS = 8
"""An answer of fewer words is a fragment of what was asked for."""
_RUN, _TIMES = 4, 3
"""So many words said so many times in one answer are a repetition."""
_LOOP = 3
"""So are one to three words that come so many times in a row."""
_LEAST_AGAIN = 4
"""So is a sentence of so many words, articles aside, that another one has in it."""
_FOREIGN, _COMMON = 0.1, 0.15
"""Letters of other scripts, of all letters; and the least share of the commonest words of English, of all words."""
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")
_BOUNDARY = re.compile(r"(?<=[.!?])\s+|\n+")
_FINISHED = re.compile(r"[.!?\u2026][\"'\u201d\u2019)\]*_]*$")
_MARKUP = re.compile(r"</?\w+>|\{?<\d+>|\[/?[A-Z]+\]|#{3,}")
_SPECIAL = re.compile(r"\{?<\d+>|\[/?(?:INST|SYS)\]|#{3,}")
"""What of it is no code either: boxes, and marks of a chat format."""
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_UNSHOWN = re.compile(
    r"(?is)<(script|style)\b.*?(?:</\1>|\Z)|```(?:js|javascript|css)\b.*?(?:```|\Z)|<!--.*?(?:-->|\Z)|<[^<>]*>"
)
"""What a page of HTML does not show: scripts, styles, remarks and tags."""
_CLOSED = ("html", "body", "script", "style")
"""Tags that a whole page closes again."""
_LATIN = 0x24F
_ARTICLES = frozenset(("a", "an", "the"))
_ENGLISH = frozenset(
    "a an the this that these those i you he she it we they his her its their my your our me him them us is are was were be "
    "been being has have had do does did will would can could may and or but if as of in on at to with by from for into over "
    "under up down out there here who which what when where how not no so than then very one two all some".split()
)


class Flaw(NamedTuple):
    """Something that is wrong with an answer.

    Args:
        kind: ``repeats``, ``unfinished``, ``fragment`` or ``off language``.
        why: what the rule found.
    """

    kind: str
    why: str


def flaws(text: str, verse: bool = False, code: bool = False) -> list[Flaw]:
    """What is wrong with an answer that should be several sentences in English, one flaw of each kind at most.

    Args:
        verse: lines need not end like sentences unless those before did, and one may return as a refrain; the same words three
            times may not, nor half of all lines.
        code: a page of HTML was asked for. Its tags are no fault, repetition is sought in what it shows, it ends where its tags
            are closed, and its words need not be English. An answer without tags is judged like any other.
    """
    words = _words(text)
    page = code and _TAG.search(text) is not None
    shown = _UNSHOWN.sub("\n", text) if page else text
    found = {
        "repeats": repetition(shown, verse),
        "unfinished": (_unclosed(text) if page else _ending(text, verse)) if words else None,
        "fragment": f"{len(words)} words, of at least {LEAST_WORDS}" if len(words) < LEAST_WORDS else None,
        "off language": _off_language(text, [] if page else words, _SPECIAL if page else _MARKUP),
    }
    return [Flaw(kind, why) for kind, why in found.items() if why is not None]


def repetition(text: str, verse: bool = False) -> str | None:
    """What a text says again, or None."""
    words = _words(text)
    return _sentence_again(text, verse) or _run_again(words) or _loop(words)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _sentence_again(text: str, verse: bool) -> str | None:
    """A sentence that comes twice (in verse three times), or that another sentence has in it; articles do not count."""
    sentences = [tuple(word for word in _words(sentence) if word not in _ARTICLES) for sentence in _BOUNDARY.split(text)]
    counts = Counter(sentence for sentence in sentences if len(sentence) > 1)
    again, count = max(counts.items(), key=lambda item: item[1], default=((), 0))
    if count > (2 if verse and 2 * _said_again(counts) < counts.total() else 1):
        return f"{_quoted(again)} is said {count} times"
    for sentence in counts if not verse else ():
        if len(sentence) >= _LEAST_AGAIN and any(_has(other, sentence) for other in counts if other != sentence):
            return f"{_quoted(sentence)} is said again in another sentence"
    return None


def _said_again(counts: Counter[tuple[str, ...]]) -> int:
    """Sentences that come more than once, each time."""
    return sum(count for count in counts.values() if count > 1)


def _has(whole: Sequence[str], part: Sequence[str]) -> bool:
    return any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))


def _run_again(words: Sequence[str]) -> str | None:
    counts = Counter(tuple(words[i : i + _RUN]) for i in range(len(words) - _RUN + 1))
    run, count = max(counts.items(), key=lambda item: item[1], default=((), 0))
    return f"{_quoted(run)} is said {count} times" if count >= _TIMES else None


def _loop(words: Sequence[str]) -> str | None:
    for length in range(1, _RUN):
        for i in range(len(words) - _LOOP * length + 1):
            if all(words[i : i + length] == words[i + k * length : i + (k + 1) * length] for k in range(1, _LOOP)):
                return f"{_quoted(words[i : i + length])} comes {_LOOP} times in a row"
    return None


def _ending(text: str, verse: bool) -> str | None:
    if _FINISHED.search(text.strip()):
        return None
    if verse and not _BOUNDARY.search(text.strip()):
        return None
    lines = [line for line in _BOUNDARY.split(text.strip())[:-1] if line.strip()]
    if verse and 2 * sum(bool(_FINISHED.search(line)) for line in lines) < len(lines):
        return None  # its lines end without marks
    return f"ends with {_quoted(text.split()[-4:])}"


def _unclosed(text: str) -> str | None:
    """A tag that a page of HTML opens and does not close."""
    for name in _CLOSED:
        if len(re.findall(rf"(?i)<{name}\b", text)) > len(re.findall(rf"(?i)</{name}\s*>", text)):
            return f"<{name}> is not closed"
    return f"ends with {_quoted(text.split()[-4:])}" if re.search(r"<[/!a-zA-Z][^<>]*\Z", text) else None


def _off_language(text: str, words: Sequence[str], marks: re.Pattern[str]) -> str | None:
    """Markup, letters of another script, or words of which hardly any is among the commonest of English."""
    if markup := marks.search(text):
        return f"markup: {_quoted([markup[0]])}"
    letters = [letter for letter in text if letter.isalpha()]
    foreign = [letter for letter in letters if ord(letter) > _LATIN]
    if len(foreign) > _FOREIGN * len(letters):
        return f"letters of another script: {_quoted([''.join(foreign[:12])])}"
    common = sum(word in _ENGLISH for word in words)
    if len(words) >= LEAST_WORDS and common < _COMMON * len(words):
        return f"{common} of {len(words)} words are among the commonest of English"
    return None


def _quoted(words: Sequence[str]) -> str:
    said = " ".join(words)
    return f'"{said if len(said) <= 60 else said[:57] + "..."}"'
