"""Rules about a description, each with a name and the evidence that it found; and repairs by rule, each with a name.

Source: section 3.2 of the MiniGPT-4 paper tells what its authors removed with ChatGPT, by rule and by hand: repetition,
apologies, fragments, stray characters, text that is not English.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..metrics.fluency import repetition

_CLOSING = r"[\"'\u201d\u2019)]"
_SENTENCE = re.compile(rf"(?:(?<=[.!?])|(?<=[.!?]{_CLOSING})|(?<=[.!?]{_CLOSING}{_CLOSING}))\s+|\n+")
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")
_END = re.compile(rf"[.!?\u2026]{_CLOSING}*$")
_APOLOGY = re.compile(
    r"\b(?:i(?:'m| am) sorry|i apologi[sz]e|my apologies|sorry for|i made a mistake|as an ai|language model|"
    r"i can(?:not|'t) see|please (?:let me know|provide)|is there anything else)\b",
    re.I,
)
_STRAY = re.compile(r"#{2,}|={3,}|[*_~`|\\^<>{}\[\]]{1,}|\ufffd|[\u0000-\u0008\u000b-\u001f\u007f]|([!?.,;:-])\1{3,}")
_FOREIGN = re.compile(r"[^\W\d_]")
_RUN, _TIMES, _LOOP = 4, 3, 3


def sentences(text: str) -> list[str]:
    """A text in sentences."""
    return [part.strip() for part in _SENTENCE.split(text) if part and part.strip()]


def words(text: str) -> list[str]:
    """Its words, in small letters."""
    return _WORD.findall(text.lower())


# what rules look for: the evidence, or None -----------------------------------------------------------------------------


def _repeated_sentence(text: str) -> str | None:
    counts = Counter(tuple(words(sentence)) for sentence in sentences(text))
    said, count = max(counts.items(), key=lambda item: item[1], default=((), 0))
    return " ".join(said) if count > 1 and len(said) > 1 else None


def _repeated_ngram(text: str) -> str | None:
    said = words(text)
    counts = Counter(tuple(said[i : i + _RUN]) for i in range(len(said) - _RUN + 1))
    run, count = max(counts.items(), key=lambda item: item[1], default=((), 0))
    return " ".join(run) if count >= _TIMES else None


def _loop(text: str) -> str | None:
    said = words(text)
    for length in range(1, _RUN):
        for i in range(len(said) - _LOOP * length + 1):
            if all(said[i : i + length] == said[i + k * length : i + (k + 1) * length] for k in range(1, _LOOP)):
                return " ".join(said[i : i + _LOOP * length])
    return None


def _apology(text: str) -> str | None:
    return _found(_APOLOGY, text)


def _foreign_script(text: str) -> str | None:
    other = [letter for letter in _FOREIGN.findall(text) if ord(letter) > 0x24F]
    return "".join(other[:20]) if other else None


def _stray_symbols(text: str) -> str | None:
    return _found(_STRAY, text)


def _cut_ending(text: str) -> str | None:
    return None if not text.strip() or _END.search(text.strip()) else text.strip()[-40:]


def _other_repetition(text: str) -> str | None:
    """What `metrics.fluency` counts as repetition, so that kept texts and measured answers are judged alike."""
    return repetition(text)


def _found(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match[0] if match else None


@dataclass(frozen=True)
class Rule:
    """A rule that reads the text alone."""

    says: str
    find: Callable[[str], str | None]


RULES: dict[str, Rule] = {
    "empty": Rule("There is no text.", lambda text: None if words(text) else "nothing"),
    "repeated_sentence": Rule("A sentence comes twice.", _repeated_sentence),
    "repeated_ngram": Rule("The same four words come three times.", _repeated_ngram),
    "loop": Rule("One to three words come three times in a row.", _loop),
    "repetition": Rule("It repeats itself, as answers are measured.", _other_repetition),
    "apology": Rule("It apologises, or speaks of itself.", _apology),
    "foreign_script": Rule("Letters of another script.", _foreign_script),
    "stray_symbols": Rule("Symbols that belong to no sentence.", _stray_symbols),
    "cut_ending": Rule("It does not end like a sentence.", _cut_ending),
}
BY_LENGTH = {"fragment": "Too few words.", "too_long": "Too many words."}
BY_SET = {"near_duplicate": "Nearly the same text as another image's."}
BY_MODEL = {
    "not_found": "Too many of the things that it names are found nowhere in the image by [detection].",
    "no_gain": "Too many of its sentences are no likelier with the image than without it.",
}
SAYS: dict[str, str] = {name: rule.says for name, rule in RULES.items()} | BY_LENGTH | BY_SET | BY_MODEL
SAYS["repair_refused"] = "The agent that repairs found it incomplete, or had no text to give."
"""Every rule by name, and what it says."""

Flaw = dict[str, str]
"""``{"rule": name, "evidence": text}``."""


def flaws_of(text: str, min_words: int, max_words: int, off: Iterable[str] = ()) -> list[Flaw]:
    """What the rules about one text find; a text with any flaw is rejected."""
    found = {name: rule.find(text) for name, rule in RULES.items()}
    count = len(words(text))
    found["fragment"] = f"{count} words" if 0 < count < min_words else None
    found["too_long"] = f"{count} words" if count > max_words else None
    if any(found[name] for name in ("repeated_sentence", "repeated_ngram", "loop")):
        found["repetition"] = None  # it has been said more exactly
    out = set(off)
    return [{"rule": name, "evidence": what} for name, what in found.items() if what is not None and name not in out]


def seen_flaws(row: Mapping[str, Any], not_found: float, no_gain: float, least: float, off: Iterable[str] = ()) -> list[Flaw]:
    """What models have seen of a text in its image (`check.Check`), where they have looked.

    Args:
        not_found: share of its things, and `no_gain` of its sentences, from which on it is rejected.
        least: nats a token that a sentence must gain by the image.
    """
    found, out = [], set(off)
    unfound, gains = row.get("unfound", ()), row.get("gains", ())
    if unfound and len(unfound) >= not_found * row["things"] and "not_found" not in out:
        found.append({"rule": "not_found", "evidence": ", ".join(unfound)})
    said = sentences(row["text"])
    if len(gains) != len(said):  # edited by hand since it was checked
        gains = ()
    unmoved = [text for text, gain in zip(said, gains, strict=False) if gain <= least]
    if unmoved and len(unmoved) >= no_gain * len(gains) and "no_gain" not in out:
        found.append({"rule": "no_gain", "evidence": " ".join(unmoved)})
    return found


def near_duplicates(texts: Sequence[tuple[str, str]], share: float) -> dict[str, str]:
    """Texts that are nearly the same as an earlier one: id -> the earlier id.

    Args:
        texts: (id, text).
        share: Jaccard similarity of their runs of three words from which on they are.
    """
    runs: dict[str, frozenset[tuple[str, ...]]] = {}
    index: dict[tuple[str, ...], list[str]] = {}
    found: dict[str, str] = {}
    for name, text in texts:
        said = words(text)
        own = frozenset(tuple(said[i : i + 3]) for i in range(len(said) - 2)) or frozenset([tuple(said)])
        common: Counter[str] = Counter()
        for run in own:
            common.update(index.get(run, ()))
        twin = next((o for o, n in common.most_common() if n / (len(own) + len(runs[o]) - n) >= share), None)
        if twin is not None:
            found[name] = twin
            continue
        runs[name] = own
        for run in own:
            index.setdefault(run, []).append(name)
    return found


# repairs by rule --------------------------------------------------------------------------------------------------------


def repaired(text: str) -> tuple[str, list[str]]:
    """A text after all repairs, and the names of those that changed it."""
    changes: dict[str, None] = {}
    before = None
    while text != before:  # one repair may lay open what another one is for; none makes a text longer
        before = text
        for name, repair in REPAIRS.items():
            if (better := repair(text)) != text:
                changes[name] = None
                text = better
    return text, list(changes)


def _without_symbols(text: str) -> str:
    return re.sub(r"\s+([.,;!?])", r"\1", " ".join(_STRAY.sub(lambda match: match[1] or " ", text).split()))


def _keep(test: Callable[[str], bool]) -> Callable[[str], str]:
    def repair(text: str) -> str:
        kept = [sentence for sentence in sentences(text) if test(sentence)]
        return text if len(kept) == len(sentences(text)) else " ".join(kept)

    return repair


def _once(text: str) -> str:
    """Each sentence once, and none that says three times what was said."""
    kept: list[str] = []
    said: set[tuple[str, ...]] = set()
    for sentence in sentences(text):
        own = tuple(words(sentence))
        if own and own not in said and _loop(sentence) is None:
            said.add(own)
            kept.append(sentence)
    return text if len(kept) == len(sentences(text)) else " ".join(kept)


def _other_words(text: str) -> str:
    """Without sentences that are made of the same words as an earlier one, but for one or two: lists that go round."""
    kept: list[str] = []
    seen: list[frozenset[str]] = []
    for sentence in sentences(text):
        own = frozenset(words(sentence))
        if all(len(own & other) < 0.8 * len(own | other) for other in seen):
            kept.append(sentence)
            seen.append(own)
    return text if len(kept) == len(sentences(text)) else " ".join(kept)


def _without_cut(text: str) -> str:
    """Without its last sentence, if that has no end and there are others."""
    parts = sentences(text)
    if len(parts) < 2 or _END.search(parts[-1]):
        return text
    return " ".join(parts[:-1])


REPAIRS: dict[str, Callable[[str], str]] = {
    "stray_symbols": _without_symbols,
    "foreign_script": _keep(lambda sentence: _foreign_script(sentence) is None),
    "apology": _keep(lambda sentence: _apology(sentence) is None),
    "repeated_sentence": _once,
    "near_repeat": _other_words,
    "cut_ending": _without_cut,
}


def changed_words(before: str, after: str) -> list[tuple[str, str]]:
    """A word diff: (``same``, ``gone`` or ``new``; text)."""
    from difflib import SequenceMatcher

    old, new = before.split(), after.split()
    pieces: list[tuple[str, str]] = []
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            pieces.append(("same", " ".join(old[a:b])))
            continue
        if b > a:
            pieces.append(("gone", " ".join(old[a:b])))
        if d > c:
            pieces.append(("new", " ".join(new[c:d])))
    assert all(one[0] != other[0] for one, other in pairwise(pieces))
    return pieces
