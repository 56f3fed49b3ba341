"""What computes a language model for the scheduler: torch here, which takes every system; `onnx_backend` beside it.

Keys and values lie in blocks of memory that their owner makes, and are written in place. Shapes: R rows, Q new positions, S
positions a block has room for, N heads of keys and values, D their width, H the language model's width, V the vocabulary.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from .completion import EncodedImage

Block = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values (R, N, S, D) of each layer."""


class Backend(Protocol):
    """A language model, ready to read and to write."""

    name: str

    def complete(self) -> None:
        """See that the torch model has all its weights, because somebody wants to compute with it."""

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the language model receives for images: (P, 3, S, S) -> (P, K, H)."""

    def new_block(self, rows: int, positions: int) -> Block:
        """Room for so many rows and positions."""

    def embed(self, ids: Sequence[int], images: Sequence[EncodedImage] = ()) -> torch.Tensor:
        """(Q, H) of a prompt's ids; its images stand where the image token is."""

    def read(self, block: Block, embeds: torch.Tensor, past: int, lengths: Sequence[int]) -> torch.Tensor:
        """Pieces of prompts (R, Q, H), padded on the right to one length, behind `past` positions of every row -> logits at the
        end of each, (R, V). More than one row: from the beginning only."""

    def step(self, block: Block, tokens: Sequence[int], lengths: Sequence[int]) -> torch.Tensor:
        """One token more for every row of a block, behind so many positions of its own -> logits (R, V)."""

    def read_each(self, block: Block, known: int, candidates: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Several continuations of the one row of a block, each of them behind its first `known` positions -> logits at every
        position of each, (Q, V). What the block has behind them is lost."""


_BY_INDEX = frozenset(("bloom", "mpt", "gpt_neo"))
"""Language models whose attention goes by where a key stands in the cache (ALiBi, local layers of their own), not by the
position that it is said to have: rows of unequal lengths cannot share a block."""


def has_plain_cache(language_model: Any) -> bool:
    """Whether every layer keeps a key and a value for each position and nothing else (no window, no recurrent state), and sees
    them by their positions."""
    config = language_model.config
    by_index = getattr(config, "model_type", None) in _BY_INDEX or bool(getattr(config, "alibi", False))
    if by_index or getattr(language_model, "_is_stateful", False):
        return False
    try:
        layers = DynamicCache(config=config).layers
    except (AttributeError, TypeError, ValueError):
        return False
    return all(type(layer) is DynamicLayer for layer in layers)


class _Layer(CacheLayerMixin):
    """One layer of a block as `transformers` wants to see it: new positions are written behind those that are known.

    Args:
        places: for one new position a row, where each is written, (R); for several, where all rows' begin.
        longest: positions that are seen, the new ones included.
    """

    is_sliding = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, places: torch.Tensor | int, longest: int):
        super().__init__()
        self.keys, self.values, self.places, self.longest = keys, values, places, longest
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing is left to be done."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The new positions (R, N, Q, D) -> keys and values of all positions so far (R, N, longest, D)."""
        assert self.keys is not None
        assert self.values is not None
        if isinstance(self.places, int):
            self.keys[:, :, self.places : self.longest] = key_states
            self.values[:, :, self.places : self.longest] = value_states
        else:
            here = torch.arange(len(key_states), device=key_states.device)
            self.keys[here, :, self.places] = key_states[:, :, 0]
            self.values[here, :, self.places] = value_states[:, :, 0]
        return self.keys[:, :, : self.longest], self.values[:, :, : self.longest]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.longest, 0

    def get_seq_length(self) -> int:
        return self.places if isinstance(self.places, int) else self.longest

    def get_max_length(self) -> int:
        return -1


class TorchBackend:
    """Any language model of `transformers` with a plain cache, on any device."""

    name = "torch"

    def __init__(self, model: Any):
        self.model = model
        self._shapes: list[tuple[tuple[int, int], tuple[int, int]]] = []
        """Of each layer, heads and numbers a head of its keys, and of its values."""

    def complete(self) -> None:
        """It has."""

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.get_image_features(pixels.to(self.model.device))

    def new_block(self, rows: int, positions: int) -> Block:
        if not self._shapes:
            self._probe()
        some = next(self.model.language_model.parameters())
        like = {"dtype": self._dtype, "device": some.device}

        def room(heads: int, width: int) -> torch.Tensor:
            return torch.zeros(rows, heads, positions, width, **like)

        return [(room(*keys), room(*values)) for keys, values in self._shapes]

    def _probe(self) -> None:
        """What its cache is like, from what it makes of one token. Values may be narrower than keys (multi-head latent
        attention)."""
        cache = DynamicCache()
        feed = self.model.get_input_embeddings()(torch.zeros(1, 1, dtype=torch.long, device=self.model.device))
        self.model.language_model(inputs_embeds=feed, past_key_values=cache, use_cache=True)
        shapes = []
        for layer in cache.layers:
            assert layer.keys is not None
            assert layer.values is not None
            keys, values = layer.keys.shape, layer.values.shape
            shapes.append(((keys[1], keys[3]), (values[1], values[3])))
            self._dtype = layer.keys.dtype
        self._shapes = shapes

    def embed(self, ids: Sequence[int], images: Sequence[EncodedImage] = ()) -> torch.Tensor:
        known = torch.stack([image.embeds for image in images]) if images else None
        return self.model.embed(torch.tensor([list(ids)], device=self.model.device), known)[0]

    def read(self, block: Block, embeds: torch.Tensor, past: int, lengths: Sequence[int]) -> torch.Tensor:
        most, lasts = embeds.shape[1], sorted(set(lengths))
        out = self.model.language_model(
            inputs_embeds=embeds,
            position_ids=torch.arange(past, past + most, device=embeds.device)[None],
            past_key_values=Cache(layers=[_Layer(k, v, past, past + most) for k, v in block]),
            use_cache=True,
            logits_to_keep=torch.tensor(lasts, device=embeds.device) - 1,
        )
        return out.logits[torch.arange(len(lengths)), [lasts.index(length) for length in lengths]]

    def step(self, block: Block, tokens: Sequence[int], lengths: Sequence[int]) -> torch.Tensor:
        device = self.model.device
        places, longest = torch.tensor(lengths, device=device), max(lengths) + 1
        seen = torch.arange(longest, device=device) <= places[:, None]
        feed = self.model.get_input_embeddings()(torch.tensor(tokens, device=device)[:, None])
        mask = None
        if not bool(seen.all()):
            mask = torch.zeros(len(tokens), 1, 1, longest, dtype=feed.dtype, device=device)
            mask.masked_fill_(~seen[:, None, None], torch.finfo(feed.dtype).min)
        out = self.model.language_model(
            inputs_embeds=feed,
            attention_mask=mask,
            position_ids=places[:, None],
            past_key_values=Cache(layers=[_Layer(k, v, places, longest) for k, v in block]),
            use_cache=True,
        )
        return out.logits[:, -1]

    def read_each(self, block: Block, known: int, candidates: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """All of them side by side in one row; each sees what is known and itself."""
        lengths, device = [len(ids) for ids in candidates], self.model.device
        feed = self.model.get_input_embeddings()(torch.tensor([[i for ids in candidates for i in ids]], device=device))
        owner = torch.repeat_interleave(torch.arange(len(candidates)), torch.tensor(lengths))
        own = (owner[:, None] == owner).tril()
        hidden = torch.cat([own.new_zeros(len(owner), known), ~own], 1).to(device)
        mask = feed.new_zeros(hidden.shape).masked_fill_(hidden, torch.finfo(feed.dtype).min)
        places = known + torch.cat([torch.arange(length) for length in lengths])
        cache = DynamicCache()
        for number, (keys, values) in enumerate(block):
            cache.update(keys[:, :, :known], values[:, :, :known], number)
        out = self.model.language_model(
            inputs_embeds=feed,
            attention_mask=mask[None, None],
            position_ids=places[None].to(device),
            past_key_values=cache,
            use_cache=True,
        )
        return list(out.logits[0].split(lengths))
