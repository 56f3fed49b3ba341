"""Measuring on the way: loss on samples that are not learnt, and answers about fixed pictures."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

import torch

from ..data.collate import Collator, Reader, inputs_to
from ..data.mixture import Part, Pick
from ..data.source import StreamSource
from ..engine.streaming import cut_at
from ..errors import UserError
from ..model.modeling import MiniGPT4ForConditionalGeneration
from ..model.processing import MiniGPT4Processor
from ..prompt.templates import with_images
from .distributed import World
from .recipe import Recipe

_AT_ONCE = 8


class Validator:
    """Measures the model on the recipe's validation datasets and pictures, the same ones each time."""

    def __init__(
        self,
        recipe: Recipe,
        model: MiniGPT4ForConditionalGeneration,
        processor: MiniGPT4Processor,
        parts: list[Part],
        reader: Reader,
        collator: Collator,
    ):
        self.recipe, self.model, self.processor = recipe, model, processor
        self.parts, self.reader, self.collator = parts, reader, collator
        for part in parts:
            if isinstance(part.source, StreamSource):
                raise UserError(f"{part.source.name}: a streamed dataset cannot be one for validation")
        self.names = _told_apart([part.source.name for part in parts])

    @torch.no_grad()
    def __call__(self, world: World) -> dict[str, Any]:
        """Losses by dataset (``valid_loss/<name>``), over all (``valid_loss``), and answers (``answer/<image>``)."""
        was_training = self.model.training
        self.model.eval()
        try:
            return self._losses(world) | self._answers(world)
        finally:
            self.model.train(was_training)

    def _losses(self, world: World) -> dict[str, float]:
        values, all_loss, all_count = {}, 0.0, 0.0
        for number, part in enumerate(self.parts):
            source = part.source
            assert not isinstance(source, StreamSource)
            chosen = random.Random(0).sample(range(len(source)), min(self.recipe.validation.samples, len(source)))
            # Every process runs the same number of batches, or a divided language model would wait for ever: shares are filled
            # up with the first samples again, which count as nothing.
            share = -(-len(chosen) // world.size)
            mine = chosen[world.rank * share : (world.rank + 1) * share]
            loss = count = 0.0
            for start in range(0, share, _AT_ONCE):
                indices = mine[start : start + _AT_ONCE]
                weight = 1.0 if indices else 0.0
                items = [self.reader.item(self.reader.sample(Pick(number, i, seed=i))) for i in indices or chosen[:1]]
                batch = self.collator(items)
                out = self.model(**inputs_to(batch.inputs, world.device), num_items_in_batch=1, loss_only=True)
                loss += weight * out.loss.item()
                count += weight * batch.supervised
            loss, count = world.sum(loss, count)
            values[f"valid_loss/{self.names[number]}"] = loss / max(count, 1)
            all_loss, all_count = all_loss + loss, all_count + count
        if all_count:
            values["valid_loss"] = all_loss / all_count
        return values

    def _answers(self, world: World) -> dict[str, str]:
        values = {}
        chat = self.processor.chat
        for name in self.recipe.validation.images:
            messages = [{"role": "user", "content": with_images(self.processor.plain(self.recipe.validation.question), 1)}]
            ids = torch.tensor([self.processor.prompt_ids(messages)], device=world.device)
            if self.reader.features is not None:
                seen = {self.reader.features.stage: self.reader.features.get(name)[None].to(world.device)}
            else:
                seen = {"pixel_values": self.processor.image_processor(name)["pixel_values"]}
            embeds = self.model.get_image_features(**seen)
            said = self.model.generate(input_ids=ids, image_embeds=embeds, max_new_tokens=64, do_sample=False, num_beams=1)
            text = self.processor.tokenizer.decode(said[0], skip_special_tokens=True)
            values[f"answer/{name}"] = cut_at(text, chat.stop).strip()
        return values


def _told_apart(names: Sequence[str]) -> list[str]:
    """The names, with a number where one was taken: a dataset that has none is called by its format."""
    found: list[str] = []
    for name in names:
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        found.append(next(new for new in itertools.chain([name], numbered) if new not in found))
    return found
