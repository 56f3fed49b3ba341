"""Beginnings of prompts that were read before: their keys and values are kept and read no second time.

A conversation's next question begins with all that was said; other questions about an image begin with the image.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch

Prefix = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values (heads, positions, width) of each layer."""
Symbols = tuple[int | str, ...]
"""A prompt as ids, an image's positions as the digest of the image."""


class PrefixCache:
    """Keys and values of earlier prompts and answers, the least recently used ones forgotten first.

    Args:
        most_bytes: of keys and values; 0 keeps none.
    """

    def __init__(self, most_bytes: int):
        self.most_bytes, self.bytes, self.hits = most_bytes, 0, 0
        self._kept: OrderedDict[Symbols, Prefix] = OrderedDict()

    def longest(self, symbols: Symbols) -> tuple[int, Prefix | None]:
        """How many first positions of a prompt are known, and their keys and values. The last one never is: it gives the
        first token of the answer."""
        best, found = 0, None
        for known in self._kept:
            shared = _shared(known, symbols)
            if shared > best:
                best, found = shared, known
        best = min(best, len(symbols) - 1)
        if found is None or best < 1:
            return 0, None
        self.hits += 1
        self._kept.move_to_end(found)
        return best, [(keys[:, :best], values[:, :best]) for keys, values in self._kept[found]]

    def covers(self, symbols: Symbols) -> bool:
        """Whether all of this is known already."""
        return any(known[: len(symbols)] == symbols for known in self._kept)

    def keep(self, symbols: Symbols, prefix: Prefix) -> None:
        """Remember; what it goes on from is then part of it and need not be kept twice."""
        for known in [known for known in self._kept if symbols[: len(known)] == known]:
            self._forget(known)
        self._kept[symbols] = prefix
        self.bytes += _size(prefix)
        while self._kept and self.bytes > self.most_bytes:
            self._forget(next(iter(self._kept)))

    def _forget(self, symbols: Symbols) -> None:
        self.bytes -= _size(self._kept.pop(symbols))


def _size(prefix: Prefix) -> int:
    return sum(keys.nbytes + values.nbytes for keys, values in prefix)


def _shared(first: Sequence, second: Sequence) -> int:
    count = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        count += 1
    return count
