"""Several requests for one answer, accounted for together and cancelled together."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..engine.completion import Completion, Piece, Request
from ..engine.engine import Engine
from ..engine.ticket import Ticket
from ..errors import UserError
from ..prompt.boxes import Box, with_boxes_moved
from .assistant import Assistant


def watched(assistant: Assistant) -> tuple[Assistant, "Watched"]:
    """The same system, and its engine, for one question that may be asked more than once."""
    engine, same = Watched(assistant.engine), copy.copy(assistant)
    same.engine = engine
    return same, engine


class Watched(Engine):
    """An engine that remembers what it was asked, so that it can be cancelled and accounted for."""

    def __init__(self, engine: Engine):
        self.__dict__ |= engine.__dict__
        self._outer = engine if isinstance(engine, Watched) else None  # which is to hear of everything, and can cancel it
        self.tickets: list[Ticket] = []
        self.done: list[list[Completion]] = []
        """The answers to each request."""
        self._cancelled = False

    def submit(self, request: Request, deliver: Callable[[Piece | Exception], None] | None = None) -> Ticket:
        if self._cancelled:
            raise UserError("the request was cancelled")
        ticket = super().submit(request, deliver) if self._outer is None else self._outer.submit(request, deliver)
        self.tickets.append(ticket)
        if self._cancelled:  # in the meantime, by who saw no ticket yet
            ticket.cancel()
        return ticket

    def generate(self, requests: Any, batch_size: int | None = None) -> list[list[Completion]]:
        done = super().generate(requests, batch_size)
        self.done += done
        return done

    def cancel(self) -> None:
        """End what is running, and begin nothing."""
        self._cancelled = True
        for ticket in self.tickets:
            ticket.cancel()

    def account(self, text: str, seconds: float) -> Completion:
        """One completion for all of them, which took so many seconds: each prompt counts once, and every answer. It ended as
        that answer did which was chosen, or chosen and moved."""
        completions = [one for some in self.done for one in some]
        first, prompts = completions[0], [some[0] for some in self.done]
        chosen = _said_by(text, completions) or first
        return replace(
            chosen,
            text=text,
            token_ids=tuple(token for done in completions for token in done.token_ids),
            prompt_tokens=sum(one.prompt_tokens for one in prompts),
            image_tokens=sum(one.image_tokens for one in prompts),
            cached_tokens=sum(one.cached_tokens for one in prompts),
            timings=replace(first.timings, total=seconds),
        )


def _said_by(text: str, completions: Sequence[Completion]) -> Completion | None:
    """The last completion with this text; if there is none, the last whose text differs in the places of its boxes alone."""
    for form in (str, _boxes_aside):
        found = next((done for done in reversed(completions) if form(done.text) == form(text)), None)
        if found is not None:
            return found
    return None


def _boxes_aside(text: str) -> str:
    return with_boxes_moved(text, lambda box: Box(0, 0, 0, 0))
