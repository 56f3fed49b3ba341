"""Learning from a score: the model's own captions, the better ones made likelier and the worse ones less so.

Source: Rennie et al. 2017, self-critical sequence training (arXiv 1612.00563), with the mean of the other samples of the
same picture as the baseline (Luo 2020, arXiv 2003.09971). The score is CIDEr against the sample's own answers, with word
frequencies counted over all answers of the dataset. That a caption ends is a word of it for this purpose: without it, "a man
in a" scores as well as a whole sentence, and captions come to break off.

With ``cider_objects``, each of COCO's 80 kinds of things that a caption names adds half a point if one of the answers names it,
and costs half a point if none does. A wrong noun costs little in CIDEr, and is what people notice (arXiv 1809.02156).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ..data.collate import Batch, Collator, Item, inputs_to
from ..data.examples import Branch, Example
from ..data.sample import Sample
from ..engine.sampling import sample
from ..errors import UserError
from ..metrics.caption import Cider
from ..metrics.objects import objects_in
from ..model.adapters import merged_for_use
from ..model.modeling import MiniGPT4ForConditionalGeneration
from ..model.processing import MiniGPT4Processor

_ENDED = " endofcaption"
_OBJECT = 0.5  # what a kind of thing counts; a whole caption has a CIDEr of 0.5 to 1


class SelfCritic:
    """Replaces the answers of samples by the model's own, weighed by how much better than its others they score.

    Args:
        samples: captions sampled of each picture.
        longest: most tokens of a caption.
        end: what closes a caption; the chat template's own when not given.
    """

    def __init__(
        self,
        model: MiniGPT4ForConditionalGeneration,
        processor: MiniGPT4Processor,
        collator: Collator,
        references: Sequence[Sequence[str]],
        samples: int = 5,
        longest: int = 24,
        end: str | None = None,
    ):
        self.model, self.processor, self.collator = model, processor, collator
        self.score: Callable[[Sequence[str], str], float] = Cider([[text + _ENDED for text in texts] for texts in references])
        self.samples, self.longest = samples, longest
        self.end = processor.tokenizer(processor.chat.end if end is None else end, add_special_tokens=False)["input_ids"]

    def __call__(self, items: Sequence[Item], device: torch.device) -> tuple[Batch, dict[str, float]]:
        """A batch of sampled captions with a factor for each label, and what to log of it."""
        for item in items:
            answers_to_score(item.sample, item.sample.id)  # of streams nobody has looked at them before
        items, collator = self._looked_at(items, device)
        drawn = self._sample(items, collator.stage, device)
        advantages, total, best = [], 0.0, 0.0
        for item, captions in zip(items, drawn, strict=True):
            answers = [text + _ENDED for text in answers_to_score(item.sample, item.sample.id)]
            texts = [self._text(ids) for ids in captions]
            scores = torch.tensor([self.score(answers, text) for text in texts])
            if item.reward == "cider_objects":
                scores += _OBJECT * torch.tensor(_objects(answers, texts))
            others = (scores.sum() - scores) / max(len(scores) - 1, 1)
            advantages.append(scores - others)
            total, best = total + scores.mean().item(), best + scores.max().item()
        # In units of their own spread, so that a step weighs what a step of ordinary learning does, whatever the score.
        spread = torch.cat(advantages).square().mean().sqrt().clamp(min=1e-3)
        factors = [
            replace(item, example=Example(item.example.prefix_ids, _weighed(captions, (advantage / spread).tolist())))
            for item, captions, advantage in zip(items, drawn, advantages, strict=True)
        ]
        return collator(factors), {"reward": total / len(items), "reward_best": best / len(items)}

    def _text(self, ids: list[int]) -> str:
        ended = ids[-1:] == self.end[:1] != []
        text = self.processor.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True)
        return text + _ENDED if ended else text

    def _looked_at(self, items: Sequence[Item], device: torch.device) -> tuple[Sequence[Item], Collator]:
        """The items with what a frozen vision encoder sees in place of pixels, which sampling and learning then share."""
        if self.collator.stage != "pixel_values" or any(p.requires_grad for p in self.model.vision_tower.parameters()):
            return items, self.collator
        counts = [0 if item.images is None else len(item.images) for item in items]
        pixels = torch.cat([item.images for item in items if item.images is not None])
        seen = self.model.get_vision_tokens(pixels.to(device)).split(counts)
        looked = [replace(item, images=tokens if len(tokens) else None) for item, tokens in zip(items, seen, strict=True)]
        return looked, self.collator.at_stage("vision_tokens")

    @torch.no_grad()
    def _sample(self, items: Sequence[Item], stage: str, device: torch.device) -> list[list[list[int]]]:
        """`samples` captions of each item as ids, their end included. The prompt is read once an item, not once a caption."""
        was_training = self.model.training
        self.model.eval()
        with merged_for_use(self.model.language_model):
            said = self._sample_ids(items, stage, device)
        self.model.train(was_training)
        return [said[i : i + self.samples] for i in range(0, len(said), self.samples)]

    def _sample_ids(self, items: Sequence[Item], stage: str, device: torch.device) -> list[list[int]]:
        rows = self.processor.pad([item.example.prefix_ids for item in items])
        images = torch.cat([item.images for item in items if item.images is not None])
        embeds = self.model.get_image_features(**inputs_to({stage: images}, device))
        return sample(
            self.model,
            rows["input_ids"].to(device),
            rows["attention_mask"].to(device),
            embeds,
            samples=self.samples,
            longest=self.longest,
            ends=set(self.end[:1]),
        )


def answers_to_score(sample: Sample, where: str) -> tuple[str, ...]:
    """The answers that captions of a sample's image are scored by.

    Raises:
        UserError: it has no image, or several questions.
    """
    if len(sample.turns) != 1:
        raise UserError(
            f"{where}: a reward is for one question or description of an image; this has {len(sample.turns)} questions"
        )
    if not sample.images:
        raise UserError(f"{where}: a reward is for what is said of an image; this has none")
    return sample.turns[0].answers


def _objects(answers: Sequence[str], captions: Sequence[str]) -> list[float]:
    """For each caption, the number of kinds of things it names that an answer names too, less the number that none does."""
    there = {kind for answer in answers for kind in objects_in(answer)}
    named = [set(objects_in(caption)) for caption in captions]
    return [float(len(kinds & there) - len(kinds - there)) for kinds in named]


def _weighed(captions: Sequence[list[int]], factors: Sequence[float]) -> tuple[Branch, ...]:
    return tuple(Branch(ids, ids, factors=(factor,) * len(ids)) for ids, factor in zip(captions, factors, strict=True))
