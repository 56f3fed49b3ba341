"""Passes requests on to replicas, and asks another one when the one that was asked has ended.

An answer that was streamed goes on where it stopped, as long as the other replica says the same so far; sampled without a seed
it may not, and the client is told.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Protocol

from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from .bodies import body
from .chat import event
from .errors import ApiError, as_api_error

log = logging.getLogger(__name__)
_ATTEMPTS = 4
_PAUSE = 0.5  # seconds before another one is asked: the one that ended is still known for a moment
_KEPT = ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "headers", "client", "server")
_CHANGING = re.compile(rb'(?:chatcmpl-|resp_|msg_)[0-9a-f]{32}|"created(?:_at)?": ?\d+|"timings": ?\{[^}]*\}')


class Stream(Protocol):
    """What a replica says of one request."""

    def __aiter__(self) -> AsyncIterator[Message]: ...

    def cancel(self) -> None:
        """Nobody listens any more."""


class Relay:
    """An application that has others answer.

    Args:
        ask: hands a request, with its whole body, to a replica.
        lost: what is raised when that replica has ended.
    """

    def __init__(self, ask: Callable[[Scope, bytes], Stream], lost: type[Exception] | tuple[type[Exception], ...]):
        self._ask, self._lost = ask, lost

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        said = _Said(send)
        try:
            whole = await body(Request(scope, receive))
        except ApiError as error:
            await said.fail(error)
            return
        plain = {name: scope[name] for name in _KEPT if name in scope}
        left = asyncio.ensure_future(_left(receive))
        try:
            for attempt in range(_ATTEMPTS):
                if attempt:
                    log.warning("a replica has ended with a request on its way; asking another one")
                    await asyncio.sleep(_PAUSE * attempt)
                    said.again()
                if await self._asked(plain, whole, said, left):
                    return
            raise ApiError(503, "the replicas that were asked have ended; try again", code="replica_lost")
        except Exception as error:
            await said.fail(as_api_error(error))
        finally:
            left.cancel()

    async def _asked(self, scope: Scope, whole: bytes, said: "_Said", left: "asyncio.Future[None]") -> bool:
        """Whether one replica has said all, or nobody is there to hear it."""
        start: Message | None = None
        try:
            stream = self._ask(scope, whole)
            messages = aiter(stream)
            while True:
                step = asyncio.ensure_future(anext(messages))
                waited: list[asyncio.Future[Any]] = [step, left]
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    stream.cancel()
                    step.add_done_callback(lambda step: step.cancelled() or step.exception())  # nobody waits for it
                    return True
                message = step.result()
                if message["type"] == "http.response.start":
                    start = message  # sent with what comes next: it says how long that is
                    continue
                if start is not None:
                    await said.put(start)
                    start = None
                await said.put(message)
                if message["type"] == "http.response.body" and not message.get("more_body", False):
                    return True
        except StopAsyncIteration:
            return False  # it ends with less than a whole answer
        except self._lost:
            return False


class _Said:
    """What a client was sent so far, so that another replica can go on."""

    def __init__(self, send: Send):
        self._send = send
        self._sent: list[Message] = []
        self._place = 0
        self._names: dict[bytes, bytes] = {}  # the other replica's names and times -> those that were sent

    def again(self) -> None:
        """From the beginning: what was sent is not sent again."""
        self._place, self._names = 0, {}

    async def put(self, message: Message) -> None:
        """Send it, if it was not sent yet.

        Raises:
            ApiError: another replica says something else than was sent.
        """
        if self._place < len(self._sent):
            self._compare(self._sent[self._place], message)
        else:
            if self._names and "body" in message:
                body = _CHANGING.sub(lambda found: self._names.get(found[0], found[0]), message["body"])
                message = {**message, "body": body}
            self._sent.append(message)
            await self._send(message)
        self._place += 1

    def _compare(self, before: Message, now: Message) -> None:
        was, own = before.get("body", b""), now.get("body", b"")
        if before["type"] != now["type"] or before.get("status") != now.get("status") or _plain(was) != _plain(own):
            reason = "the replica that wrote this answer has ended, and another one says it otherwise; ask again"
            raise ApiError(503, reason, code="replica_lost")
        self._names.update(zip(_CHANGING.findall(own), _CHANGING.findall(was), strict=True))

    async def fail(self, error: ApiError) -> None:
        """Say that no answer comes; within a stream, by its last event."""
        if not self._sent:
            await error.response()({"type": "http"}, _never, self._send)
            return
        with suppress(RuntimeError):  # a length was promised that does not come: the connection ends
            await self._send({"type": "http.response.body", "body": event(error.body).encode(), "more_body": False})


def _plain(body: bytes) -> bytes:
    return _CHANGING.sub(b"", body)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _never() -> Message:
    return {"type": "http.disconnect"}
