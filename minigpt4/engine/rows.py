"""Keys and values of the running answers: rows of one block of memory per layer, which join and leave between two tokens."""

from collections.abc import Sequence

import torch

from .backend import Backend, Block
from .prefix import Prefix

_GROW = 64  # positions by which the block grows at the least


class Rows:
    """The rows that are being decoded: 0 to `len(rows)`, without gaps.

    Each holds its own number of positions. A step feeds one token to every row; rows of unequal length see their own positions
    alone, so that an answer does not depend on its neighbours.
    """

    def __init__(self, backend: Backend):
        self.backend = backend
        self.lengths: list[int] = []
        self._block: Block = []

    def __len__(self) -> int:
        return len(self.lengths)

    def add(self, block: Block, row: int, length: int) -> int:
        """Take over the first `length` positions of a row of another block; returns the new row's number."""
        number = len(self.lengths)
        self._room(number + 1, length + 1)
        for mine, other in zip(self._block, block, strict=True):
            for own, given in zip(mine, other, strict=True):
                own[number, :, :length] = given[row, :, :length]
        self.lengths.append(length)
        return number

    def copy(self, row: int) -> int:
        """A second row with the same positions; returns its number."""
        self._room(len(self.lengths) + 1, self.lengths[row] + 1)
        return self.add(self._block, row, self.lengths[row])

    def replace(self, row: int, other: int, known: int) -> None:
        """Give a row the positions of another one, of which it has the first `known` already."""
        length = self.lengths[row] = self.lengths[other]
        for layer in self._block:
            for own in layer:
                own[row, :, known:length] = own[other, :, known:length]

    def drop(self, row: int) -> int | None:
        """Let a row go. The last row takes its place: returns that one's former number, if it is another one."""
        last = len(self.lengths) - 1
        length = self.lengths.pop()
        if row != last:
            for layer in self._block:
                for own in layer:
                    own[row, :, :length] = own[last, :, :length]
            self.lengths[row] = length
        if not self.lengths:  # an idle engine keeps no memory
            self._block = []
        return None if row == last else last

    def prefix(self, row: int, length: int) -> Prefix:
        """A copy of a row's first positions: keys and values (N, length, D) of each layer."""
        return prefix_of(self._block, row, length)

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """One token for every row -> logits of the next one, (R, V)."""
        self._room(len(self.lengths), max(self.lengths) + 1)
        count = len(self.lengths)
        logits = self.backend.step([(keys[:count], values[:count]) for keys, values in self._block], tokens, self.lengths)
        self.lengths = [length + 1 for length in self.lengths]
        return logits

    def _room(self, rows: int, positions: int) -> None:
        """Grow by steps, so that most rows and tokens find room without copying."""
        have, room = self._block[0][0].shape if self._block else (0, 0, 0, 0), [rows, positions]
        if rows <= have[0] and positions <= have[2]:
            return
        if have[0]:
            room[0] = have[0] if rows <= have[0] else max(rows, have[0] * 3 // 2)
            room[1] = have[2] if positions <= have[2] else max(positions + _GROW, have[2] * 3 // 2)
        else:
            room[1] += _GROW
        block = self.backend.new_block(*room)
        for new, old in zip(block, self._block, strict=False):  # there is no old one at first
            for mine, was in zip(new, old, strict=True):
                mine[: have[0], :, : have[2]] = was
        self._block = block


def prefix_of(block: Block, row: int, length: int) -> Prefix:
    """A copy of a row's first positions: keys and values (N, length, D) of each layer."""
    return [(keys[row, :, :length].clone(), values[row, :, :length].clone()) for keys, values in block]


def block_of(backend: Backend, prefix: Prefix | None, positions: int) -> Block:
    """A block of one row that begins with what `prefix_of` gave, with room for so many positions."""
    block = backend.new_block(1, positions)
    for (keys, values), (known_keys, known_values) in zip(block, prefix or (), strict=False):  # none may be known
        keys[0, :, : known_keys.shape[1]] = known_keys
        values[0, :, : known_values.shape[1]] = known_values
    return block
