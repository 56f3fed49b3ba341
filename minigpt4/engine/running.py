"""What the scheduler has under way: prompts that are read, and rows of answers that are written."""

from dataclasses import dataclass

import torch

from .backend import Block
from .completion import TokenLogprob
from .ticket import Ticket


class Branch:
    """One answer of a ticket while it is being written."""

    def __init__(self, ticket: Ticket, index: int):
        self.ticket, self.index = ticket, index
        self.stream = ticket.text_stream()
        self.text = ""
        self.logprobs: list[TokenLogprob] = []


@dataclass
class Row:
    """Answers of one ticket that are the same so far, or one of its beams."""

    ticket: Ticket
    branches: list[Branch]
    ids: list[int]
    beam: int = 0
    """Which of the ticket's beams it is; beams have no branches."""

    @property
    def width(self) -> int:
        """How many rows may come of it."""
        return max(1, len(self.branches))


@dataclass
class Prefill:
    """A prompt that is being read."""

    ticket: Ticket
    embeds: torch.Tensor  # (S, H)
    block: Block
    done: int
