"""Datasets mixed by ratio: a plan of picks that is the same however it is executed.

The plan is made in one place, ahead of the reading: for every step, which items of which datasets, and with which seed
each is worded. It depends on the recipe's seed and on nothing else (not on worker processes, not on timing), so it can be
continued from a small state, and several processes share it: process r of w takes items r, r + w, r + 2 w, ... of each
step, so that two processes see together what one would see with the doubled batch. (Streamed shards are divided among
processes instead, since each reads only its own files.)
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import UserError
from .source import Source, StreamSource

SHUFFLE_BLOCK = 1000  # records of a shard that are shuffled together; the published loader's buffer has this size


@dataclass(frozen=True, slots=True)
class Pick:
    """One item to be read: of dataset number `dataset` the item `key` (a number, or a streamed record)."""

    dataset: int
    key: Any
    seed: int
    """For wording, mirroring and cropping."""


@dataclass(frozen=True)
class Part:
    """One dataset's place in the mixture."""

    source: Source | StreamSource
    ratio: float
    batch: int
    mirror: bool = False
    crop: float | None = None
    reward: str | None = None
    grid: int | None = None
    zoomed: float = 0.0


class Mixture:
    """An endless plan: iterating gives, step by step, the picks of this process.

    Args:
        parts: the datasets.
        batch: samples of a step on each process, where steps mix datasets.
        mixing: ``"step"``: a step's samples come from one dataset, as many as its own batch; ``"example"``: each sample's
            dataset is drawn by itself.
    """

    def __init__(self, parts: list[Part], batch: int, mixing: str, seed: int, rank: int = 0, world: int = 1):
        self.parts, self.batch, self.mixing, self.seed, self.rank, self.world = parts, batch, mixing, seed, rank, world
        self._orders: list[_Order | _Stream] = [
            _Stream(part.source, f"{seed}/{i}", rank, world)
            if isinstance(part.source, StreamSource)
            else _Order(len(part.source), f"{seed}/{i}")
            for i, part in enumerate(parts)
        ]
        self.step = 0

    def state_dict(self) -> dict[str, Any]:
        """Where the plan stands, as plain data."""
        return {"step": self.step, "world": self.world, "orders": [order.state_dict() for order in self._orders]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        if len(state["orders"]) != len(self._orders) or state["world"] != self.world:
            raise ValueError("the state belongs to other datasets, or to another number of processes")
        self.step = state["step"]
        for order, saved in zip(self._orders, state["orders"], strict=True):
            order.load_state_dict(saved)

    def __iter__(self) -> Iterator[list[Pick]]:
        while True:
            yield self._plan()

    def _plan(self) -> list[Pick]:
        rng = random.Random(f"{self.seed}/{self.step}")
        self.step += 1
        ratios = [part.ratio for part in self.parts]
        if self.mixing == "step":
            chosen = rng.choices(range(len(self.parts)), ratios)[0]
            datasets = [chosen] * (self.parts[chosen].batch * self.world)
        else:
            datasets = rng.choices(range(len(self.parts)), ratios, k=self.batch * self.world)
        picks = []
        for place, dataset in enumerate(datasets):
            seed = rng.getrandbits(63)
            mine = place % self.world == self.rank
            key = self._orders[dataset].next(mine)
            if mine:
                picks.append(Pick(dataset, key, seed))
        return picks


class _Order:
    """The items of a map-style dataset, shuffled anew for every pass."""

    def __init__(self, length: int, seed: str):
        if length == 0:
            raise ValueError("an empty dataset cannot be drawn from")
        self.length, self.seed, self.position = length, seed, 0
        self._shuffled: tuple[int, list[int]] = (-1, [])

    def next(self, mine: bool) -> int:
        """The next item; all processes count all items."""
        number, within = divmod(self.position, self.length)
        if self._shuffled[0] != number:
            generator = torch.Generator().manual_seed(random.Random(f"{self.seed}/{number}").getrandbits(63))
            self._shuffled = (number, torch.randperm(self.length, generator=generator).tolist())
        self.position += 1
        return self._shuffled[1][within]

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class _Stream:
    """The records of streamed shards: shards shuffled for every pass, records shuffled in blocks within a shard.

    With fewer shards than processes, every process reads all of them and keeps its share of the records.
    """

    def __init__(self, source: StreamSource, seed: str, rank: int, world: int):
        if not source.shards:
            raise ValueError("a streamed dataset without shards cannot be drawn from")
        self.source, self.seed, self.rank, self.world = source, seed, rank, world
        self.by_shard = len(source.shards) >= world
        # Pass, place in the pass' order of shards, records of the shard before this block, records of the block used.
        self.position = [0, 0, 0, 0]
        self._reader: Iterator[Any] | None = None
        self._block: list[Any] | None = None

    def next(self, mine: bool) -> Any:
        """The next record; a process that streams its own shards moves on only for its own picks."""
        if not mine:
            return None
        empty = 0
        while True:
            block = self._current_block()
            if self.position[3] < len(block):
                self.position[3] += 1
                return block[self.position[3] - 1]
            if block:
                empty = 0
                self.position[2] += self._block_read
                self.position[3] = 0
            else:
                empty += 1
                if empty > len(self._shards()) + 1:
                    whose = f" for process {self.rank}" if self.rank else ""
                    raise UserError(
                        f"{self.source.name}: no usable record in any of its {len(self.source.shards)} shards{whose}; "
                        "minigpt4 data check says what is wrong with them"
                    )
                self._next_shard()
            self._block = None

    def state_dict(self) -> dict[str, Any]:
        return {"position": list(self.position)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = list(state["position"])
        self._reader = self._block = None

    def _shards(self) -> list[str]:
        shards = list(self.source.shards)
        random.Random(f"{self.seed}/{self.position[0]}").shuffle(shards)
        return shards[self.rank :: self.world] if self.by_shard else shards

    def _current_block(self) -> list[Any]:
        """The shuffled block at the position; empty at the end of a shard."""
        if self._block is not None:
            return self._block
        number, place, skip, _ = self.position
        shard = self._shards()[place]
        if self._reader is None:
            self._reader = iter(self.source.records(shard, skip=skip))
        block = [record for _, record in zip(range(SHUFFLE_BLOCK), self._reader, strict=False)]
        self._block_read = len(block)
        random.Random(f"{self.seed}/{number}/{shard}/{skip}").shuffle(block)
        if block and not self.by_shard:
            block = block[self.rank :: self.world]
        self._block = block
        return block

    def _next_shard(self) -> None:
        number, place, *_ = self.position
        self._reader = None
        last = place + 1 >= len(self._shards())
        self.position = [number + 1, 0, 0, 0] if last else [number, place + 1, 0, 0]
