"""Whether probabilities mean what they say: of what is said with 0.8, four fifths should be true."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError


@dataclass(frozen=True)
class Bin:
    """Cases of similar probability: how many, their mean probability, and the share that is true."""

    cases: int
    said: float
    true: float


def bins(probabilities: Sequence[float], true: Sequence[bool], number: int = 10) -> list[Bin]:
    """Cases by probability, in parts of [0, 1] of equal width; parts without a case are left out.

    Raises:
        UserError: no cases, or a probability that is none.
    """
    if not probabilities or len(probabilities) != len(true) or not all(0 <= p <= 1 for p in probabilities):
        raise UserError("calibration needs as many probabilities, between 0 and 1, as truths, and one at least")
    parts: list[list[tuple[float, bool]]] = [[] for _ in range(number)]
    for p, is_true in zip(probabilities, true, strict=True):
        parts[min(int(p * number), number - 1)].append((p, is_true))
    return [Bin(len(part), sum(p for p, _ in part) / len(part), sum(t for _, t in part) / len(part)) for part in parts if part]


def calibration_error(probabilities: Sequence[float], true: Sequence[bool], number: int = 10) -> float:
    """Expected calibration error: the mean distance between what is said and what is true, over `bins`; 0 is best.

    Source: Naeini et al. 2015, AAAI; with bins of the probability of the event, as for a forecast of rain.
    """
    found = bins(probabilities, true, number)
    return sum(part.cases * abs(part.said - part.true) for part in found) / len(probabilities)


def brier(probabilities: Sequence[float], true: Sequence[bool]) -> float:
    """Mean squared distance between probability and truth; 0 is best, and 0.25 what saying 0.5 each time gives.

    Source: Brier 1950, Monthly Weather Review 78.
    """
    bins(probabilities, true)
    return sum((p - t) ** 2 for p, t in zip(probabilities, true, strict=True)) / len(probabilities)
