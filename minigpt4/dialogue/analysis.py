"""What dialogues brought: how varied the questions were, how sure the answers, and what the captions say more, true and false.

Coverage alone rewards a caption that names everything there is; so it is never given without CHAIR (arXiv 1809.02156) and the
number of words.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from ..metrics.objects import Named, chair
from .nouns import nouns
from .trimming import key

Truth = Mapping[str, Iterable[str]]
"""Image name -> what is in it: names of things, or captions that people wrote."""


def said_of(caption: str, there: frozenset[str], vocabulary: frozenset[str]) -> Named:
    """Compare a caption with what is there, each thing counted once; words outside the vocabulary count neither way."""
    found = frozenset(nouns(caption)) & (vocabulary | there)
    return Named(len(found), len(found - there), len(found & there), len(there), len(caption.split()))


def objects_of(texts: Iterable[str]) -> frozenset[str]:
    """The things that names or captions speak of."""
    return frozenset(noun for text in texts for noun in nouns(text))


def coverage(said: Sequence[Named]) -> dict[str, float]:
    """CHAIR_i (false things of those named), CHAIR_s (captions with a false thing), recall of what is there, and words, as
    `metrics.objects.chair`; 0 where nothing counts."""
    return {name.lower(): 0.0 if math.isnan(value) else value for name, value in chair(said).items()}


def analyse(transcripts: Sequence[Mapping[str, Any]], truth: Truth | None = None) -> dict[str, Any]:
    """Figures over transcripts (`Transcript.row`).

    Returns:
        ``dialogues``, ``rounds`` (mean), ``unique_questions`` (share of different questions in a dialogue without its first,
        mean), ``unsure`` and ``empty`` (shares of answers), ``new_nouns`` (mean a round, by round). With `truth`: ``images``
        that it knows, ``plain`` and ``enriched`` (as `coverage`), ``new_true_nouns`` (mean a round, by round), and ``verdict``.
    """
    rounds = [one["rounds"] for one in transcripts]
    every = [round for some in rounds for round in some]
    asked = [[key(round["question"]) for round in some[1:]] for some in rounds if len(some) > 1]
    found: dict[str, Any] = {
        "dialogues": len(transcripts),
        "rounds": mean(map(len, rounds)) if rounds else 0.0,
        "unique_questions": mean(len(set(questions)) / len(questions) for questions in asked) if asked else 1.0,
        "unsure": mean("unsure" in round["flaws"] for round in every) if every else 0.0,
        "empty": mean("empty" in round["flaws"] for round in every) if every else 0.0,
        "new_nouns": _by_round([[len(round["new_nouns"]) for round in some] for some in rounds]),
    }
    known = [(one, objects_of(truth[one["image"]])) for one in transcripts if one["image"] in truth] if truth else []
    if known:
        vocabulary = frozenset[str]().union(*(there for _, there in known))
        plain, enriched = (
            coverage([said_of(one[name], there, vocabulary) for one, there in known]) for name in ("plain", "caption")
        )
        true = [[len(set(round["new_nouns"]) & there) for round in one["rounds"]] for one, there in known]
        found |= {"images": len(known), "plain": plain, "enriched": enriched, "new_true_nouns": _by_round(true)}
        found["verdict"] = verdict(plain, enriched)
    return found


def verdict(plain: Mapping[str, float], enriched: Mapping[str, float]) -> str:
    """In a sentence whether the dialogue was worth it."""
    recall, false = (enriched[name] - plain[name] for name in ("recall", "chair_i"))
    figures = (
        f"recall {100 * recall:+.1f} points, CHAIR_i {100 * false:+.1f} points, words {enriched['words'] - plain['words']:+.1f}"
    )
    if false > 0 and false > recall:
        return f"Hallucination rises faster than recall: {figures}. The longer captions are not better ones."
    if recall > 0:
        return f"The dialogue finds more of what is there: {figures}."
    return f"The dialogue finds no more of what is there: {figures}."


def _by_round(counts: Sequence[Sequence[int]]) -> list[float]:
    longest = max(map(len, counts), default=0)
    return [round(mean(some[i] for some in counts if len(some) > i), 4) for i in range(longest)]
