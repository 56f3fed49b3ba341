"""Choosing the next token: greedy, or sampled with random numbers that belong to the request.

`sample` is the plain loop by which training samples captions of a batch; answers go through the scheduler.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import torch
from transformers import (
    DynamicCache,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ..model.modeling import MiniGPT4ForConditionalGeneration
from .beams import BeamSearch
from .completion import TokenLogprob
from .params import SamplingParams
from .streaming import token_text


@contextmanager
def random_numbers(seed: int | None) -> Iterator[None]:
    """Within, torch draws from this seed, or from a fresh one if it is None. The process's random state is then as before."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(secrets.randbits(62) if seed is None else seed)
        yield


class Chances:
    """The random numbers of one request: for each step and answer one between 0 and 1, whatever runs beside it.

    With ``stratified``, the numbers of one step lie evenly in as many parts of that range as there are answers.
    """

    def __init__(self, params: SamplingParams):
        self.params = params
        seed = secrets.randbits(62) if params.seed is None else params.seed
        self._generator = torch.Generator().manual_seed(seed)
        self._steps: list[torch.Tensor] = []

    def at(self, step: int, answers: Sequence[int]) -> torch.Tensor:
        """The numbers of some of the answers at one step, float64."""
        while len(self._steps) <= step:
            n = self.params.n
            if self.params.stratified:
                order = torch.randperm(n, generator=self._generator)
                self._steps.append((order + torch.rand(n, generator=self._generator)) / n)
            else:
                self._steps.append(torch.rand(n, generator=self._generator))
        return self._steps[step][list(answers)].double()


class Asking(Protocol):
    """What choosing a token must know of a request."""

    params: SamplingParams
    chances: Chances | None
    tokenizer: object


Chosen = list[tuple[int, TokenLogprob | None]]


def next_tokens(
    logits: torch.Tensor, rows: Sequence[tuple[Asking, Sequence[int], Sequence[int]]], end_ids: frozenset[int]
) -> list[Chosen]:
    """The next token of each answer of each row, with its log-probability where asked for.

    Args:
        logits: (R, V).
        rows: for each row its request, the ids of its answers so far, and the numbers of these answers.
        end_ids: tokens that end an answer.
    """
    changed = [penalised(params_of(row), scores, row[1], end_ids) for row, scores in zip(rows, logits, strict=True)]
    if any(one is not None for one in changed):
        scores = torch.stack([own if new is None else new for own, new in zip(logits, changed, strict=True)])
    else:
        scores = logits
    likeliest = scores.argmax(-1).tolist()
    chosen: list[list[int]] = [[likeliest[r]] * len(answers) for r, (_, _, answers) in enumerate(rows)]
    alike: dict[tuple, list[int]] = {}
    for r, row in enumerate(rows):
        params = params_of(row)
        if params.samples:
            alike.setdefault((params.temperature, params.top_k, params.top_p), []).append(r)
    for (temperature, top_k, top_p), some in alike.items():
        warp = _warpers(temperature, top_k, top_p)
        upto = warp(torch.empty(0), scores[some].float()).softmax(-1).double().cumsum(-1)
        for place, r in enumerate(some):
            asking, ids, answers = rows[r]
            assert asking.chances is not None
            chances = asking.chances.at(len(ids), answers).to(upto.device)
            tokens = torch.searchsorted(upto[place], chances * upto[place, -1], right=True)
            chosen[r] = tokens.clamp(max=scores.shape[-1] - 1).tolist()
    return [[(token, _logprob(asking, logits[r], token)) for token in chosen[r]] for r, (asking, _, _) in enumerate(rows)]


def params_of(row: tuple[Asking, Sequence[int], Sequence[int]]) -> SamplingParams:
    return row[0].params


def penalised(params: SamplingParams, logits: torch.Tensor, ids: Sequence[int], end_ids: frozenset[int]) -> torch.Tensor | None:
    """A row's logits after its penalties, or nothing where there are none. The prompt is not penalised, as it is not where
    prompts come as embeddings in `transformers`."""
    changes = LogitsProcessorList()
    if params.repetition_penalty != 1.0:
        changes.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.no_repeat_ngram_size:
        changes.append(NoRepeatNGramLogitsProcessor(params.no_repeat_ngram_size))
    early = len(ids) < params.min_new_tokens
    if not (early or (changes and ids)):
        return None
    scores = logits.clone()[None]
    if changes and ids:
        scores = changes(torch.tensor([list(ids)], device=logits.device), scores)
    if early:
        scores[0, list(end_ids)] = -torch.inf
    return scores[0]


def behind_beams(search: BeamSearch, logits: torch.Tensor) -> list[tuple[float, int, int]]:
    """The best continuations of beams by their logits (beams, V), as `BeamSearch.take` wants them."""
    logp = logits.float().log_softmax(-1)
    for beam, ids in enumerate(search.ids):
        other = penalised(search.params, logp[beam], ids, search.end_ids)
        if other is not None:
            logp[beam] = other
    each = logp.topk(min(search.wide, logp.shape[1]))
    total = each.values + torch.tensor(search.scores, device=logp.device)[:, None]
    best = total.flatten().topk(min(search.wide, total.numel()))
    found = []
    for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        beam, rank = divmod(place, total.shape[1])
        found.append((score, beam, int(each.indices[beam, rank])))
    return found


def _warpers(temperature: float, top_k: int, top_p: float) -> LogitsProcessorList:
    warp = LogitsProcessorList()
    if temperature != 1.0:
        warp.append(TemperatureLogitsWarper(float(temperature)))
    if top_k:
        warp.append(TopKLogitsWarper(top_k))
    if top_p < 1.0:
        warp.append(TopPLogitsWarper(float(top_p)))
    return warp


def _logprob(asking: Asking, logits: torch.Tensor, token: int) -> TokenLogprob | None:
    if asking.params.logprobs is None:
        return None
    logp = logits.float().log_softmax(-1)
    best = logp.topk(asking.params.logprobs)
    text = partial(token_text, asking.tokenizer)
    top = tuple((i, text(i, special=True), v) for v, i in zip(best.values.tolist(), best.indices.tolist(), strict=True))
    return TokenLogprob(token, text(token), logp[token].item(), top)


# sampling in training -------------------------------------------------------------------------------------------------

Choose = Callable[[torch.Tensor, Sequence[int], Sequence[int], int], torch.Tensor]
"""(logits, (R, vocabulary); of N answers, which row of these each goes by and which answer it is; how many tokens they have)
-> the next token of each, (N,)."""


def at_random(logits: torch.Tensor, rows: Sequence[int], answers: Sequence[int], step: int) -> torch.Tensor:
    """The next tokens, drawn as likely as the model has them."""
    upto = logits.float().softmax(-1).cumsum(-1)[list(rows)]
    whole = upto[:, -1:].contiguous()
    chances = torch.rand_like(whole) * whole  # one an answer, where `multinomial` draws one a word
    last = torch.searchsorted(upto, whole)  # that can be said at all, should a chance have been rounded up to the whole
    return torch.minimum(torch.searchsorted(upto, chances, right=True), last)[:, 0]


@torch.no_grad()
def sample(
    model: MiniGPT4ForConditionalGeneration,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    image_embeds: torch.Tensor | None,
    *,
    samples: int,
    longest: int,
    ends: set[int],
    choose: Choose = at_random,
) -> list[list[int]]:
    """`samples` answers to each of B prompts as ids, the end included where one was reached.

    Args:
        input_ids, attention_mask: (B, S), padded on the left.
        image_embeds: (P, K, H), in order of the placeholders.
        longest: most tokens of an answer.
        ends: tokens that end an answer.

    Returns:
        B * samples answers, those of a prompt next to each other.
    """
    cache, llm, mask = DynamicCache(), model.language_model, attention_mask
    out = llm(
        inputs_embeds=model.embed(input_ids, image_embeds),
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        logits_to_keep=1,
    )
    logits = out.logits[:, -1]
    said: list[list[int]] = [[] for _ in range(len(logits) * samples)]
    going = list(range(len(said)))
    row_of = {answer: answer // samples for answer in going}  # answers that are the same so far share a row of the cache
    for step in range(longest):
        tokens = choose(logits, [row_of[answer] for answer in going], going, step).tolist()
        for answer, token in zip(going, tokens, strict=True):
            said[answer].append(token)
        left = [(answer, token) for answer, token in zip(going, tokens, strict=True) if token not in ends]
        going = [answer for answer, _ in left]
        if not left or step + 1 == longest:
            break
        branches = dict.fromkeys((row_of[answer], token) for answer, token in left)
        rows = [row for row, _ in branches]
        parted, few = len(set(rows)) < len(rows), len(rows) < 0.7 * len(logits)
        if parted or few:  # rows whose answers have ended cost as much as others
            chosen = torch.tensor(rows, device=mask.device)
            cache.batch_select_indices(chosen)
            mask, place = mask[chosen], {branch: i for i, branch in enumerate(branches)}
        else:
            place = {branch: branch[0] for branch in branches}
        row_of = {answer: place[row_of[answer], token] for answer, token in left}
        feed = torch.zeros(len(mask), 1, dtype=torch.long, device=mask.device)
        for (_, token), row in place.items():
            feed[row] = token
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        out = llm(
            input_ids=feed,
            attention_mask=mask,
            position_ids=mask.sum(-1, keepdim=True) - 1,
            past_key_values=cache,
        )
        logits = out.logits[:, -1]
    return said
