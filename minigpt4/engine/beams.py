"""Beam search of one request: which beams go on, and which answers are the best. The rules are those of `transformers`.

The likeliest tokens behind each beam come from who has the logits: `sampling.behind_beams`, with torch, or that of
`inference.quick_engine`, with numpy.
"""

from collections.abc import Callable, Sequence

from .params import SamplingParams


class BeamSearch:
    """The beams of one request, which all have the same number of tokens, and the answers that have ended.

    Args:
        params: with a limit of new tokens; `num_beams`, `length_penalty` and the penalties of tokens.
        end_ids: tokens that end an answer.
        ends_at_text: whether ids end with a stop text, where there are any.
        early_stopping: as in `transformers`: true ends with the first `num_beams` answers; false when no beam at its present
            length would be better than these; ``"never"`` when none could become better.
    """

    def __init__(
        self,
        params: SamplingParams,
        end_ids: frozenset[int],
        ends_at_text: Callable[[list[int]], bool] | None = None,
        early_stopping: bool | str | None = False,
    ):
        self.params, self.end_ids, self._ends_at_text, self._early = params, end_ids, ends_at_text, early_stopping
        self.wide = max(2, 1 + len(end_ids)) * params.num_beams
        """How many continuations are looked at: should all of the best end, so many are left to go on with."""
        self.ids: list[list[int]] = [[]]
        """Of each beam, the best one first. One alone at first: what all of them begin with."""
        self.scores = [0.0]
        """Their log-probabilities."""
        self._ended: list[tuple[float, list[int]]] = []  # (score, ids), the best first

    def take(self, best: Sequence[tuple[float, int, int]]) -> list[int]:
        """Go one token further.

        Args:
            best: the `wide` best continuations: log-probability of the whole, the beam, its next token.

        Returns:
            For each new beam, from which of the former it comes; none when the search is over.
        """
        few = self.params.num_beams
        found = [  # but for tokens that may not come
            (score, beam, [*self.ids[beam], token]) for score, beam, token in best if score > float("-inf")
        ]
        ends = [self._is_end(ids) for _, _, ids in found]
        self._ended += [
            (score / len(ids) ** self.params.length_penalty, ids)
            for (score, _, ids), end in list(zip(found, ends, strict=True))[:few]
            if end
        ]
        self._ended = sorted(self._ended, key=lambda one: one[0], reverse=True)[:few]
        going = [one for one, end in zip(found, ends, strict=True) if not end][:few]
        if not going or self._is_over(going[0][0], len(going[0][2])):
            return []
        self.scores, self.ids = [score for score, _, _ in going], [ids for _, _, ids in going]
        return [beam for _, beam, _ in going]

    def _is_end(self, ids: list[int]) -> bool:
        assert self.params.max_new_tokens is not None
        if ids[-1] in self.end_ids or len(ids) >= self.params.max_new_tokens:
            return True
        return self._ends_at_text is not None and self._ends_at_text(ids)

    def _is_over(self, best: float, length: int) -> bool:
        """Whether the best of the beams that go on, of this score and length, cannot get in among the answers that are kept."""
        if len(self._ended) < self.params.num_beams:
            return False
        if self._early is True:
            return True
        penalty = self.params.length_penalty
        if self._early == "never" and penalty > 0:
            assert self.params.max_new_tokens is not None
            length = self.params.max_new_tokens
        return best / length**penalty <= self._ended[-1][0]

    def answers(self) -> list[list[int]]:
        """The `n` best answers; of a search that was broken off, beams as far as they are."""
        some = [ids for _, ids in self._ended] + self.ids
        return [some[min(index, len(some) - 1)] for index in range(self.params.n)]
