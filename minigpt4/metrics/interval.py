"""How far a score could be another by chance."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Score:
    """A value, and the interval that a repetition with other pictures of the same kind would likely fall in."""

    value: float
    low: float
    high: float


def bootstrap(
    right: Sequence[float],
    of: Sequence[float] | None = None,
    groups: Sequence[Hashable] | None = None,
    *,
    samples: int = 1000,
    level: float = 0.95,
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
    rng = np.random.default_rng(seed)
    ratios = []
    for _ in range(samples):
        drawn = np.bincount(rng.integers(len(hits), size=len(hits)), minlength=len(hits))
        if total := drawn @ counts:
            ratios.append(drawn @ hits / total)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Score(float(hits.sum() / counts.sum()), float(low), float(high))
