"""Samples become examples, examples become batches.

A batch is what `MiniGPT4ForConditionalGeneration.forward` takes, and nothing else. With packing, rows hold several
examples (see `model.packing`); without, one each, padded on the right to the longest.
"""

import logging
import random
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.utils.data import Dataset

from ..errors import UserError
from ..model.feature_cache import FeatureCache, pixels_of
from ..model.processing import MiniGPT4Processor
from ..prompt.templates import IMAGE, PLACEHOLDER
from .augment import crop, mirror, on_lines, zoomed
from .examples import IGNORE, Branch, Example, build_example, side_by_side
from .mixture import Part, Pick
from .sample import Sample
from .source import StreamSource

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """An example with its pictures, ready to be put into a batch."""

    example: Example
    images: torch.Tensor | None
    """(P, ...): pixels, or features of the cache's stage."""
    sample: Sample
    reward: str | None = None
    """The score by which the model learns from its own answers; none if it learns the sample's (`train.self_critical`)."""


class Formatter:
    """Writes samples down as the language model reads them.

    Args:
        plain: no chat format and no question: the answer follows the picture (the published first stage).
        end: what closes an answer; the chat template's own when None.
        max_answer_tokens, max_prompt_tokens: see `examples.build_example`.
        positions: how many the language model has, where there are no others: it learnt each by itself.
    """

    def __init__(
        self,
        processor: MiniGPT4Processor,
        *,
        plain: bool = False,
        end: str | None = None,
        max_answer_tokens: int | None = None,
        max_prompt_tokens: int | None = None,
        positions: int | None = None,
    ):
        self.processor, self.plain, self.end, self.positions = processor, plain, end, positions
        self.max_answer_tokens, self.max_prompt_tokens = max_answer_tokens, max_prompt_tokens

    def __call__(self, sample: Sample) -> Example:
        """Raises UserError, naming the sample, where its text and pictures do not fit together, or it is too long."""
        if sample.apart:
            alone = [replace(sample, turns=(turn,), apart=False) for turn in sample.turns]
            return self._fitting(side_by_side([self(one) for one in alone]), sample)
        chat = self.processor.chat
        first, *later = sample.turns
        question, plain = self._plain(first.question, sample.placed), self.processor.plain
        if sample.placed:
            written = sum(turn.question.count(PLACEHOLDER) for turn in sample.turns)
            if written != len(sample.images):
                raise UserError(f"{sample.id}: {written} placeholder(s) {PLACEHOLDER}, but {len(sample.images)} picture(s)")
        elif sample.images:
            question = " ".join([IMAGE] * len(sample.images) + [question]).rstrip()
        prompt = PLACEHOLDER * len(sample.images) if self.plain else chat.training_prompt(question)
        try:
            example = build_example(
                self.processor,
                prompt,
                [plain(answer) for answer in first.answers],
                [
                    (chat.training_prompt(self._plain(turn.question, sample.placed), first=False), plain(turn.answers[0]))
                    for turn in later
                ],
                end=self.end,
                max_txt_len=self.max_answer_tokens,
                max_context_len=self.max_prompt_tokens,
            )
        except UserError as error:
            raise UserError(f"{sample.id}: {error}") from None
        return self._fitting(example, sample)

    def _fitting(self, example: Example, sample: Sample) -> Example:
        longest = len(example.prefix_ids) + max(len(branch.ids) for branch in example.branches)
        if self.positions is not None and longest > self.positions:
            raise UserError(
                f"{sample.id}: takes {longest} tokens, but this language model has {self.positions} positions; shorten it, or "
                "set data.max_answer_tokens"
            )
        return example

    def _plain(self, question: str, placed: bool) -> str:
        """A question in which nothing is special but the places that it has for images."""
        if not placed:
            return self.processor.plain(question)
        return PLACEHOLDER.join(map(self.processor.plain, question.split(PLACEHOLDER)))


class Reader(Dataset):
    """Turns picks of a mixture into items; runs in the loader's worker processes.

    Args:
        features: look up what the frozen vision encoder made of each picture instead of reading it.
    """

    def __init__(self, parts: Sequence[Part], formatter: Formatter, features: FeatureCache | None = None):
        self.parts, self.formatter, self.features = parts, formatter, features

    def __getitem__(self, pick: Pick) -> Item | None:
        """The item of a pick; None for a streamed record that cannot be read where its dataset may leave such out."""
        source = self.parts[pick.dataset].source
        try:
            sample = self.sample(pick)
            try:
                item = self.item(sample)
            except UserError as error:
                if isinstance(source, StreamSource):
                    raise
                raise UserError(f"{source.where(pick.key)}: {str(error).removeprefix(f'{sample.id}: ')}") from None
            return replace(item, reward=self.parts[pick.dataset].reward)
        except UserError as error:
            if isinstance(source, StreamSource) and getattr(source, "missing", "error") == "skip":
                log.warning("%s: a record is left out: %s", source.name, error)
                return None
            raise

    def sample(self, pick: Pick) -> Sample:
        """The sample that a pick stands for."""
        part, rng = self.parts[pick.dataset], random.Random(pick.seed)
        sample = part.source.sample(pick.key, rng)
        if part.zoomed and rng.random() < part.zoomed:
            sample = zoomed(sample, rng)
        elif part.crop is not None:
            sample = crop(sample, part.crop, rng)
        if part.mirror and rng.random() < 0.5:
            sample = mirror(sample)
        return sample if part.grid is None else on_lines(sample, part.grid)

    def item(self, sample: Sample) -> Item:
        """A sample with its pictures."""
        return Item(self.formatter(sample), self._images(sample), sample)

    def _images(self, sample: Sample) -> torch.Tensor | None:
        if not sample.images:
            return None
        image_processor = self.formatter.processor.image_processor
        found = []
        for image in sample.images:
            if self.features is not None:
                found.append(self.features.get(image, sample.mirrored))
            else:
                found.append(pixels_of(image_processor, image, sample.mirrored, sample.crop))
        return torch.stack(found)


@dataclass
class Batch:
    """Inputs of the model, and what the loop wants to know about them."""

    inputs: dict[str, torch.Tensor]
    samples: int
    supervised: int
    """Tokens that carry loss."""
    tokens: int
    """Tokens that are no padding."""
    images: int
    ids: list[str]
    """Where the samples come from, for messages."""
    rewarded: list[Item] = field(default_factory=list)
    """The items, where the model's own answers to them are to be scored."""

    def pin_memory(self) -> "Batch":
        """Called by the loader; makes copies to a GPU asynchronous."""
        self.inputs = {k: v.pin_memory() for k, v in self.inputs.items()}
        return self


class Collator:
    """Items -> a batch.

    Args:
        pack: put several examples into a row of up to `row_tokens`; else one example a row.
        stage: the name under which `forward` takes the pictures.
    """

    def __init__(self, processor: MiniGPT4Processor, *, pack: bool, row_tokens: int, stage: str = "pixel_values"):
        self.pad = processor.tokenizer.pad_token_id or 0
        self.image_token_id = processor.image_token_id
        self.pack, self.row_tokens, self.stage = pack, row_tokens, stage

    def at_stage(self, stage: str) -> "Collator":
        """The same for items whose pictures are at another stage of their way to the language model."""
        other = copy(self)
        other.stage = stage
        return other

    def __call__(self, given: Sequence[Item | None]) -> Batch:
        """Raises UserError where not one of a batch's records could be read."""
        items = [item for item in given if item is not None]
        if not items:
            raise UserError("not one record of a whole batch could be read; look at the data with `minigpt4 data check`")
        items = [one for item in items for one in ([item] if self._shares(item.example) else _apart(item))]
        rows = self._rows(items)
        laid = [[_lay(item.example, number) for number, item in enumerate(row)] for row in rows]
        longest = max(sum(len(one.ids) for one in row) for row in laid)
        fill = {"ids": self.pad, "labels": IGNORE, "positions": 0, "examples": -1, "branches": 0}
        if any(branch.factors for item in items for branch in item.example.branches):
            fill["factors"] = 1.0
        grid = {name: torch.full((len(laid), longest), value) for name, value in fill.items()}
        for r, row in enumerate(laid):
            start = 0
            for one in row:
                for name in fill:
                    grid[name][r, start : start + len(one.ids)] = torch.tensor(getattr(one, name))
                start += len(one.ids)
        inputs = {"input_ids": grid["ids"], "labels": grid["labels"]}
        if self.pack:
            inputs |= {"position_ids": grid["positions"], "example_ids": grid["examples"], "branch_ids": grid["branches"]}
        else:
            inputs["attention_mask"] = (grid["examples"] >= 0).long()
        if "factors" in grid:
            inputs["label_factors"] = grid["factors"]
        images = [item.images for row in rows for item in row if item.images is not None]
        if images:
            inputs[self.stage] = torch.cat(images)
        return Batch(
            inputs=inputs,
            samples=len({id(item.sample) for item in items}),
            supervised=int((grid["labels"] != IGNORE).sum()),
            tokens=int((grid["examples"] >= 0).sum()),
            images=sum(map(len, images)),
            ids=[item.sample.id for item in items],
            rewarded=[item for item in given if item is not None] if items[0].reward else [],
        )

    def _shares(self, example: Example) -> bool:
        """Whether an example's answers may stand behind one prefix: the prefix' last token must be one that can be said
        again, which an image token is not."""
        return self.pack and example.prefix_ids[-1] != self.image_token_id

    def _rows(self, items: Sequence[Item]) -> list[list[Item]]:
        """Which items share a row: first-fit over falling lengths, for the row length that leaves the least padding."""
        if not self.pack:
            return [[item] for item in items]
        lengths = [len(_lay(item.example, 0).ids) for item in items]
        order = sorted(range(len(items)), key=lambda i: -lengths[i])
        longest = lengths[order[0]]
        capacities = {*range(longest, self.row_tokens, 8), max(longest, self.row_tokens)}
        rows = min((_first_fit(order, lengths, c) for c in sorted(capacities)), key=lambda rows: _area(rows, lengths))
        return [[items[i] for i in row] for row in rows]


def _first_fit(order: Sequence[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Items, in the given order, each put into the first row that has room for it."""
    rows: list[list[int]] = []
    room: list[int] = []
    for i in order:
        place = next((r for r, free in enumerate(room) if free >= lengths[i]), None)
        if place is None:
            rows.append([i])
            room.append(capacity - lengths[i])
        else:
            rows[place].append(i)
            room[place] -= lengths[i]
    return rows


def _area(rows: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """Positions of a batch of these rows, padding included."""
    return len(rows) * max(sum(lengths[i] for i in row) for row in rows)


@dataclass(frozen=True)
class _Laid:
    """An example as columns of a row."""

    ids: list[int]
    labels: list[int]
    positions: list[int]
    examples: list[int]
    branches: list[int]
    factors: list[float]


def _lay(example: Example, number: int) -> _Laid:
    """Lay an example down: what its branches share, then each branch led by the last shared token (see `model.packing`)."""
    prefix = example.prefix_ids
    if len(example.branches) == 1:
        (only,) = example.branches
        ids, labels = prefix + only.ids, [IGNORE] * len(prefix) + only.labels
        factors = [1.0] * len(prefix) + _factors(only)
        return _Laid(ids, labels, list(range(len(ids))), [number] * len(ids), [0] * len(ids), factors)
    ids, labels = list(prefix[:-1]), [IGNORE] * (len(prefix) - 1)
    positions, branches, factors = list(range(len(ids))), [0] * len(ids), [1.0] * len(ids)
    for b, branch in enumerate(example.branches, 1):
        ids += [prefix[-1], *branch.ids]
        labels += [IGNORE, *branch.labels]
        positions += range(len(prefix) - 1, len(prefix) + len(branch.ids))
        branches += [b] * (len(branch.ids) + 1)
        factors += [1.0, *_factors(branch)]
    return _Laid(ids, labels, positions, [number] * len(ids), branches, factors)


def _factors(branch: Branch) -> list[float]:
    return list(branch.factors) or [1.0] * len(branch.ids)


def _apart(item: Item) -> list[Item]:
    """An item with several answers as items of one answer each."""
    examples = [Example(item.example.prefix_ids, (branch,)) for branch in item.example.branches]
    return [replace(item, example=example) for example in examples]


def inputs_to(inputs: dict[str, torch.Tensor], device: torch.device | str) -> dict[str, Any]:
    """A batch's tensors on a device."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()}
