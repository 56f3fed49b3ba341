"""Keys and values of the running answers: rows of one block of memory per layer, which join and leave between two tokens.

Shapes: R rows, S positions, N heads of keys and values, D their width, V the vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

_GROW = 64  # positions by which the block grows at the least


def has_plain_cache(language_model: Any) -> bool:
    """Whether every layer keeps a key and a value for each position and nothing else (no window, no recurrent state)."""
    if getattr(language_model, "_is_stateful", False):
        return False
    try:
        layers = DynamicCache(config=language_model.config).layers
    except (AttributeError, TypeError, ValueError):
        return False
    return all(type(layer) is DynamicLayer for layer in layers)


class _Layer(CacheLayerMixin):
    """One layer's part of the block; new positions are written where each row ends."""

    is_sliding = False

    def __init__(self, rows: "Rows"):
        super().__init__()
        self.rows = rows

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys = key_states.new_zeros(0, key_states.shape[1], 0, key_states.shape[3])
        self.values = value_states.new_zeros(0, value_states.shape[1], 0, value_states.shape[3])
        self.is_initialized = True

    def grow(self, rows: int, positions: int) -> None:
        """Room for so many rows and positions; what is there stays."""
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(max(rows, old.shape[0]), old.shape[1], max(positions, old.shape[2]), old.shape[3])
            new[: old.shape[0], :, : old.shape[2]] = old
            setattr(self, name, new)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The new token of every row (R, N, 1, D) -> keys and values of all positions so far (R, N, S, D)."""
        assert self.keys is not None
        assert self.values is not None
        count, places = len(key_states), self.rows.places
        here = torch.arange(count, device=key_states.device)
        self.keys[here, :, places] = key_states[:, :, 0]
        self.values[here, :, places] = value_states[:, :, 0]
        return self.keys[:count, :, : self.rows.longest], self.values[:count, :, : self.rows.longest]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.rows.longest, 0

    def get_seq_length(self) -> int:
        return self.rows.longest

    def get_max_length(self) -> int:
        return -1


class Rows:
    """The rows that are being decoded: 0 to `len(rows)`, without gaps.

    Each holds its own number of positions. A step feeds one token to every row; rows of unequal length see their own positions
    alone, so that an answer does not depend on its neighbours.
    """

    def __init__(self, model: Any):
        self.model = model
        self.lengths: list[int] = []
        self.places = torch.zeros(0, dtype=torch.long)
        self.longest = 0
        self._layers: list[_Layer] = []

    def __len__(self) -> int:
        return len(self.lengths)

    def add(self, cache: DynamicCache, row: int, length: int) -> int:
        """Take over the first `length` positions of a row of another cache; returns the new row's number."""
        if not self._layers:
            self._layers = [_Layer(self) for _ in cache.layers]
        number = len(self.lengths)
        for mine, other in zip(self._layers, cache.layers, strict=True):
            if not mine.is_initialized:
                mine.lazy_initialization(other.keys, other.values)
            self._room(mine, number + 1, length + 1)
            mine.keys[number, :, :length] = other.keys[row, :, :length]
            mine.values[number, :, :length] = other.values[row, :, :length]
        self.lengths.append(length)
        return number

    def copy(self, row: int) -> int:
        """A second row with the same positions; returns its number."""
        number, length = len(self.lengths), self.lengths[row]
        for layer in self._layers:
            self._room(layer, number + 1, length + 1)
            layer.keys[number, :, :length] = layer.keys[row, :, :length]
            layer.values[number, :, :length] = layer.values[row, :, :length]
        self.lengths.append(length)
        return number

    def drop(self, row: int) -> int | None:
        """Let a row go. The last row takes its place: returns that one's former number, if it is another one."""
        last = len(self.lengths) - 1
        length = self.lengths.pop()
        if not self.lengths:  # an idle engine keeps no memory
            self._layers = []
        if row == last:
            return None
        for layer in self._layers:
            layer.keys[row, :, :length] = layer.keys[last, :, :length]
            layer.values[row, :, :length] = layer.values[last, :, :length]
        self.lengths[row] = length
        return last

    def prefix(self, row: int, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """A copy of a row's first positions: keys and values (N, length, D) of each layer."""
        return [(layer.keys[row, :, :length].clone(), layer.values[row, :, :length].clone()) for layer in self._layers]

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """One token for every row -> logits of the next one, (R, V)."""
        device = self.model.device
        self.places = torch.tensor(self.lengths, device=device)
        self.longest = max(self.lengths) + 1
        for layer in self._layers:
            self._room(layer, len(self.lengths), self.longest)
        seen = torch.arange(self.longest, device=device) <= self.places[:, None]
        feed = self.model.get_input_embeddings()(torch.tensor(tokens, device=device)[:, None])
        mask = None
        if not bool(seen.all()):
            mask = torch.zeros(len(tokens), 1, 1, self.longest, dtype=feed.dtype, device=device)
            mask.masked_fill_(~seen[:, None, None], torch.finfo(feed.dtype).min)
        out = self.model.language_model(
            inputs_embeds=feed,
            attention_mask=mask,
            position_ids=self.places[:, None],
            past_key_values=Cache(layers=self._layers),
            use_cache=True,
        )
        self.lengths = [length + 1 for length in self.lengths]
        return out.logits[:, -1]

    def _room(self, layer: _Layer, rows: int, positions: int) -> None:
        """Grow by steps, so that most rows and tokens find room without copying."""
        have = layer.keys.shape
        if rows > have[0] or positions > have[2]:
            wide = positions if positions <= have[2] else max(positions + _GROW, have[2] * 3 // 2)
            layer.grow(rows if rows <= have[0] else max(rows, have[0] * 3 // 2), max(wide, have[2]))


def prefix_of(cache: DynamicCache, row: int, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A copy of the first positions of a row of a cache: keys and values (N, length, D) of each layer."""
    return [(layer.keys[row, :, :length].clone(), layer.values[row, :, :length].clone()) for layer in cache.layers]


def cache_of(prefix: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> DynamicCache:
    """A cache of one row that begins with what `Rows.prefix` gave."""
    cache = DynamicCache()
    for number, (keys, values) in enumerate(prefix):
        cache.update(keys[None], values[None], number)
    return cache
