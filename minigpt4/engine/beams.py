"""Beam search of one request: which beams go on, and which answers are the best. The rules are those of `transformers`.

Shapes: B beams, V vocabulary.
"""

from collections.abc import Callable, Sequence

import torch

from .params import SamplingParams
from .sampling import penalised

EndsAtText = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Ids (N, length) and scores, which nobody looks at -> which of the rows end with a stop text, (N)."""


class BeamSearch:
    """The beams of one request, which all have the same number of tokens, and the answers that have ended.

    Args:
        params: with a limit of new tokens; `num_beams`, `length_penalty` and the penalties of tokens.
        end_ids: tokens that end an answer.
        ends_at_text: `engine.stopping.StopAtText`, where there are stop texts.
        early_stopping: as in `transformers`: true ends with the first `num_beams` answers; false when no beam at its present
            length would be better than these; ``"never"`` when none could become better.
    """

    def __init__(
        self,
        params: SamplingParams,
        end_ids: frozenset[int],
        ends_at_text: EndsAtText | None = None,
        early_stopping: bool | str | None = False,
    ):
        self.params, self._end_ids, self._ends_at_text, self._early = params, end_ids, ends_at_text, early_stopping
        self.ids: list[list[int]] = [[]]
        """Of each beam, the best one first. One alone at first: what all of them begin with."""
        self._scores = [0.0]
        self._ended: list[tuple[float, list[int]]] = []  # (score, ids), the best first

    def take(self, logits: torch.Tensor) -> list[int]:
        """The next token of every beam by its logits (B, V) -> for each new beam, from which of the former it comes; none when
        the search is over."""
        few = self.params.num_beams
        wide = max(2, 1 + len(self._end_ids)) * few  # should all of the best end, so many are left to go on with
        logp = logits.float().log_softmax(-1)
        for beam, ids in enumerate(self.ids):
            other = penalised(self.params, logp[beam], ids, self._end_ids)
            if other is not None:
                logp[beam] = other
        each = logp.topk(min(wide, logp.shape[1]))
        total = each.values + torch.tensor(self._scores, device=logp.device)[:, None]
        best = total.flatten().topk(min(wide, total.numel()))
        found: list[tuple[float, int, list[int]]] = []
        for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            if score > float("-inf"):  # a token that may not come
                beam, rank = divmod(place, total.shape[1])
                found.append((score, beam, [*self.ids[beam], int(each.indices[beam, rank])]))
        ends = self._ends([ids for _, _, ids in found])
        self._ended += [
            (score / len(ids) ** self.params.length_penalty, ids)
            for (score, _, ids), end in list(zip(found, ends, strict=True))[:few]
            if end
        ]
        self._ended = sorted(self._ended, key=lambda one: one[0], reverse=True)[:few]
        going = [one for one, end in zip(found, ends, strict=True) if not end][:few]
        if not going or self._is_over(going[0][0], len(going[0][2])):
            return []
        self._scores, self.ids = [score for score, _, _ in going], [ids for _, _, ids in going]
        return [beam for _, beam, _ in going]

    def _ends(self, some: Sequence[list[int]]) -> list[bool]:
        """Which of some answers of one length are at their end."""
        assert self.params.max_new_tokens is not None
        ends = [ids[-1] in self._end_ids or len(ids) >= self.params.max_new_tokens for ids in some]
        if self._ends_at_text is None or not some:
            return ends
        ids = torch.tensor(some)
        return [end or bool(text) for end, text in zip(ends, self._ends_at_text(ids, ids), strict=True)]

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
