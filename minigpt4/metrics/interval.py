"""How far a score could be another by chance."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Score:
    """A value, and the interval that a repetition with other pictures of the same kind would likely fall in."""

    value: float
    low: float
    high: float
    draws: np.ndarray | None = field(default=None, repr=False, compare=False)
    """What each repetition had; those of two scores of the same questions are of the same questions drawn again."""

    def __sub__(self, other: "Score") -> "Score":
        """How far ahead of another score of the same questions this one is. Questions that are hard for both are hard for both
        in each repetition, so that the interval is narrower than two side by side suggest; what a difference is, it says.

        Without an interval (nan) where one of them has none.
        """
        value = self.value - other.value
        if self.draws is None or other.draws is None or len(self.draws) != len(other.draws):
            return Score(value, float("nan"), float("nan"))
        return _between(value, self.draws - other.draws, _LEVEL)


_LEVEL = 0.95


def bootstrap(
    right: Sequence[float],
    of: Sequence[float] | None = None,
    groups: Sequence[Hashable] | None = None,
    *,
    samples: int = 1000,
    level: float = _LEVEL,
    seed: int = 0,
) -> Score:
    """The ratio sum(right) / sum(of), with a percentile bootstrap interval (Efron 1979).

    Args:
        right: for each item, what it scores: 0 or 1, a number of hits, a CIDEr.
        of: for each item, what it counts: 1 where not given, a number of predictions for a precision.
        groups: what belongs together, such as the picture of each item; whole groups are drawn, since the questions about
            one picture are no independent evidence. Each item is its own group when not given.

    Returns:
        The value is nan where nothing counts.
    """
    hits = np.asarray(right, dtype=float)
    counts = np.ones_like(hits) if of is None else np.asarray(of, dtype=float)
    if groups is not None:
        places = {group: i for i, group in enumerate(dict.fromkeys(groups))}
        of_item = np.fromiter((places[group] for group in groups), dtype=int, count=len(hits))
        hits = np.bincount(of_item, hits, minlength=len(places))
        counts = np.bincount(of_item, counts, minlength=len(places))
    if not counts.sum():
        return Score(float("nan"), float("nan"), float("nan"))
    rng, n = np.random.default_rng(seed), len(hits)
    ratios = np.full(samples, np.nan)
    for first in range(0, samples, most := max(1, 100_000 // n)):  # many at once, and no more than memory holds easily
        drawn = rng.integers(n, size=(min(most, samples - first), n))
        totals = counts[drawn].sum(1)
        np.divide(hits[drawn].sum(1), totals, out=ratios[first : first + len(drawn)], where=totals != 0)
    return _between(float(hits.sum() / counts.sum()), ratios, level)


def _between(value: float, draws: np.ndarray, level: float) -> Score:
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Score(value, float(low), float(high), draws)
