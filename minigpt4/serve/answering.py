"""From a request to answers, on an event loop: no thread waits for an answer, and who leaves frees what was taken."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import Request as HttpRequest
from PIL import Image

from ..engine.completion import Completion, Piece, Request
from ..engine.ticket import Ticket
from ..errors import UserError
from ..inference.assistant import Assistant
from ..inference.looks import Look
from ..inference.task_settings import Plan
from ..inference.watched import watched
from .conversation import Conversation
from .errors import ApiError

_POLL = 0.2  # seconds; a handler that does not stream is not told that its client has left
T = TypeVar("T")


class Answering:
    """Asks one loaded system.

    Args:
        seconds: after which an answer is given up.
    """

    def __init__(self, assistant: Assistant, seconds: float):
        self.assistant, self.seconds = assistant, seconds
        self._readers = ThreadPoolExecutor(4, "serve-read")  # decode images, tokenise
        self._askers = ThreadPoolExecutor(32, "serve-ask")  # wait for answers chosen among several

    def close(self) -> None:
        """End; what was queued for a thread is dropped."""
        for pool in (self._readers, self._askers):
            pool.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Short work that must not hold up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    async def in_asker(self, work: Callable[[], T]) -> T:
        """Work that waits for several answers, one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._askers, work)

    def plan(self, said: Conversation, settings: dict[str, Any], n: int, streamed: bool) -> Plan:
        """How the last question is decoded.

        Raises:
            UserError: settings that do not go together.
        """
        if n == 1:
            return self.assistant.plan(said.question, settings, streamed=streamed)
        several = [name for name in ("self_consistency", "zoom_in", "mirrored") if settings.get(name)]
        if several:
            raise UserError(f"{several[0]} gives one answer: leave it out, or n")
        settings = settings | {"self_consistency": 1, "zoom_in": False}
        plan = self.assistant.plan(said.question, settings, streamed=streamed)
        if "num_beams" not in settings and 1 < plan.params.num_beams < n:  # beams that the system wishes are too few for it
            plan = self.assistant.plan(said.question, settings | {"num_beams": 1}, streamed=streamed)
        return Plan(params=replace(plan.params, n=n))

    async def submit(self, said: Conversation, plan: Plan) -> "Pieces":
        """Hand a conversation to the engine.

        Raises:
            UserError: a conversation that the engine does not take.
        """
        images = await self.in_thread(lambda: self.shrunk(said.images))
        return await self.ask(Request(messages=said.messages, images=images, params=plan.params))

    async def ask(self, request: Request) -> "Pieces":
        """Hand a request to the engine.

        Raises:
            UserError: one that the engine does not take.
        """
        pieces, engine = Pieces(), self.assistant.engine
        pieces.ticket = await self.in_thread(lambda: engine.submit(request, pieces.put))
        return pieces

    def shrunk(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """Images as the vision encoder sees them, so that the engine's thread has no large ones to resize."""
        resize = self.assistant.processor.image_processor.resize
        return [Image.fromarray(resize(image)) for image in images]

    async def completions(self, said: Conversation, plan: Plan, settings: dict[str, Any]) -> list[Completion]:
        """All answers to the last question of a conversation, at once."""
        if plan.several:
            return [await self._chosen(said, settings)]
        done: dict[int, Completion] = {}
        async with await self.submit(said, plan) as pieces:
            async for piece in pieces:
                if piece.completion is not None:
                    done[piece.index] = piece.completion
        return [done[index] for index in sorted(done)]

    async def _chosen(self, said: Conversation, settings: dict[str, Any]) -> Completion:
        """The answer that the assistant chooses among several, or refines; its counts are those of all requests together."""
        assistant, engine = watched(self.assistant)

        def work() -> str:
            look = Look(said.images, said.question, said.messages, engine.encode(said.images))
            return assistant.answer([look], settings, 1)[0]

        begun = time.monotonic()
        try:
            text = await self.in_asker(work)
        finally:
            engine.cancel()
        return engine.account(text, time.monotonic() - begun)


class Pieces:
    """What the engine says of one request, for one reader on an event loop."""

    ticket: Ticket

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Piece | Exception] = asyncio.Queue()

    def put(self, piece: Piece | Exception) -> None:
        """In the engine's thread."""
        with suppress(RuntimeError):  # the loop has ended, and nobody reads
            self._loop.call_soon_threadsafe(self._queue.put_nowait, piece)

    async def __aenter__(self) -> "Pieces":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.ticket.cancel()  # of no effect on what has ended

    async def __aiter__(self) -> AsyncIterator[Piece]:
        left = self.ticket.answers
        while left:
            piece = await self._queue.get()
            if isinstance(piece, Exception):
                raise piece
            left -= piece.completion is not None
            yield piece


async def while_connected(http: HttpRequest, answering: Answering, work: Any) -> Any:
    """The outcome of some work (a coroutine), which is cancelled when the client leaves or time is up.

    Raises:
        ApiError: time is up, or nobody is there to read.
    """
    task = asyncio.ensure_future(work)
    try:
        async with asyncio.timeout(answering.seconds):
            while not task.done():
                await asyncio.wait([task], timeout=_POLL)
                if not task.done() and await http.is_disconnected():
                    raise ApiError(499, "the client has left")
        return task.result()
    except TimeoutError:
        raise out_of_time(answering.seconds) from None
    finally:
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


def out_of_time(seconds: float) -> ApiError:
    """What is said when an answer takes too long."""
    return ApiError(503, f"no answer within {seconds:g} seconds; ask for a shorter one", code="time_limit", retry=False)
