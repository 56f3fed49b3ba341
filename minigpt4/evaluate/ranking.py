"""Choosing among given answers: each is scored by how likely the language model finds it after the question."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch

from ..data.examples import build_example
from ..engine.engine import Engine
from ..inference.choice import Score
from ..media.images import ImageInput
from ..model.modeling import IGNORE, MiniGPT4ForConditionalGeneration
from ..model.processing import MiniGPT4Processor
from ..prompt.templates import with_images

NO_CANDIDATE = 9999.0


class Ranker(Protocol):
    """What of `inference.assistant.Assistant` is needed to choose among answers."""

    model: MiniGPT4ForConditionalGeneration
    processor: MiniGPT4Processor
    engine: Engine
    official: bool

    def score_many(self, items: Iterable[tuple[Any, str, Sequence[str]]]) -> list[list[Score]]:
        """Scores of each question's candidates."""


@torch.inference_mode()
def candidate_losses(
    model: MiniGPT4ForConditionalGeneration,
    processor: MiniGPT4Processor,
    prompts: Sequence[str],
    image_embeds: torch.Tensor | None,
    candidates: Sequence[Sequence[str]],
    *,
    end: str | None = None,
    official: bool = False,
) -> list[list[float]]:
    """Negative log likelihood of each candidate after its prompt, mean over the candidate's own tokens (its end included).

    Args:
        prompts: questions as training writes them (`ChatTemplate.training_prompt`), pictures as placeholders.
        image_embeds: (P, K, H), the pictures of all prompts in order.
        candidates: for each prompt its candidates.
        official: divide by the width of the batch instead (the longest prompt and the longest answer together), as the
            published ranking does, which makes long answers seem unlikely. A batch holds the first candidate of every
            prompt, then the second of every prompt.

    Returns:
        For each prompt the losses of its candidates; `rank` orders them.
    """
    images = _images_of(prompts, processor, image_embeds)
    losses: list[list[float]] = [[] for _ in prompts]
    for column in range(max(map(len, candidates), default=0)):
        rows = [i for i, own in enumerate(candidates) if column < len(own)]
        examples = [build_example(processor, prompts[i], [candidates[i][column]], end=end) for i in rows]
        ids = [example.prefix_ids + example.branches[0].ids for example in examples]
        labels = torch.full((len(rows), max(map(len, ids))), IGNORE)
        room = max(len(e.prefix_ids) for e in examples) + max(len(e.branches[0].ids) for e in examples)
        for row, example in enumerate(examples):
            start = len(example.prefix_ids)
            learnt = example.branches[0].labels
            labels[row, start : start + len(learnt)] = torch.tensor(learnt)
        batch = processor.pad(ids, "right")
        out = model(
            **{k: v.to(model.device) for k, v in batch.items()},
            labels=labels.to(model.device),
            image_embeds=None if image_embeds is None else torch.cat([images[i] for i in rows]),
        )
        targets = labels[labels != IGNORE].to(out.logits.device)
        logp = torch.log_softmax(out.logits.float(), -1).gather(1, targets[:, None])[:, 0]
        counts = (labels != IGNORE).sum(1).tolist()
        for i, own in zip(rows, logp.split(counts), strict=True):
            losses[i].append(-own.sum().item() / (room - 1 if official else len(own)))
    return losses


def choose(system: Ranker, items: Sequence[tuple[Sequence[ImageInput], str, Sequence[str]]]) -> list[str]:
    """The likeliest of the candidates for each (images, question, candidates), by the mean over a candidate's tokens.

    A system that answers as the official code does chooses by that code's measure.
    """
    if not system.official:
        scored = system.score_many(items)
        return [max(own, key=lambda score: score.logprob_per_token).text for own in scored]
    processor = system.processor
    prompts = [processor.chat.training_prompt(with_images(processor.plain(asked), len(shown))) for shown, asked, _ in items]
    encoded = system.engine.encode([image for shown, _, _ in items for image in shown])
    embeds = torch.stack([image.embeds for image in encoded]) if encoded else None
    candidates = [given for _, _, given in items]
    losses = candidate_losses(system.model, processor, prompts, embeds, candidates, official=True)
    return [given[rank(own)[0]] for given, own in zip(candidates, losses, strict=True)]


def rank(losses: Sequence[float], choices: int | None = None) -> list[int]:
    """Candidates from the likeliest to the least; those from number `choices` on are no candidates and come last."""
    counted = [loss if choices is None or i < choices else NO_CANDIDATE for i, loss in enumerate(losses)]
    return sorted(range(len(counted)), key=counted.__getitem__)


def _images_of(prompts: Sequence[str], processor: MiniGPT4Processor, image_embeds: torch.Tensor | None) -> list[torch.Tensor]:
    """The pictures of each prompt."""
    if image_embeds is None:
        return []
    counts = [processor.encode(p).count(processor.image_token_id) // processor.num_image_tokens for p in prompts]
    return list(image_embeds.split(counts))
