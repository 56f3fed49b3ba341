"""Choosing among given answers by how likely the language model finds each of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..engine.completion import Completion, Request
from ..errors import UserError
from .looks import Look


@dataclass(frozen=True)
class Score:
    """How likely an answer is.

    Args:
        text: the answer.
        logprob: log-probability of its tokens together, its end included.
        tokens: how many they are.
        probability: its share among the answers that it was given with.
    """

    text: str
    logprob: float
    tokens: int
    probability: float

    @property
    def logprob_per_token(self) -> float:
        """Does not favour short answers, as the whole does."""
        return self.logprob / self.tokens


def scoring(look: Look, candidates: Sequence[str]) -> Request:
    """The request that scores answers to a question.

    Raises:
        UserError: no answers, or one that says nothing.
    """
    texts = not isinstance(candidates, str) and all(isinstance(text, str) and text.strip() for text in candidates or ())
    if not texts or not candidates:
        raise UserError("candidates must be a list of one or more texts, none of them empty")
    return Request(messages=look.messages, images=look.images, candidates=[look.plain(text) for text in candidates])


def scores(completions: Sequence[Completion], candidates: Sequence[str]) -> list[Score]:
    """Scores of the candidates of one request, in order."""
    most = max(done.logprob for done in completions)
    shares = [math.exp(done.logprob - most) for done in completions]
    return [
        Score(text, done.logprob, done.generated_tokens, share / sum(shares))
        for text, done, share in zip(candidates, completions, shares, strict=True)
    ]
