"""What every request passes before anything is done for it: whose it is, whether there is room, how large it may be."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError
from .keys import Keys
from .metrics import Metrics
from .settings import Allowed

_GUARDED = ("/v1/", "/metrics")
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob: mediastream:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FRAME_POLICY = (  # where a website that the model wrote is shown: it may run, and reach nothing
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'self'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


class KnownHosts:
    """`TrustedHostMiddleware`, which refuses in plain text, with the refusal that every other error has."""

    def __init__(self, app: ASGIApp, hosts: list[str]):
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        let_in = False

        async def inside(scope: Scope, receive: Receive, _: Send) -> None:
            nonlocal let_in
            let_in = True
            await self.app(scope, receive, send)

        async def unsaid(message: Message) -> None: ...

        await TrustedHostMiddleware(inside, self.hosts, www_redirect=False)(scope, receive, unsaid)
        if not let_in:
            text = "the server is not known under the name in the header Host; minigpt4 serve --allow-host NAME adds one"
            await ApiError(400, text, code="invalid_host").response()(scope, receive, send)


class Gate:
    """A layer around the application.

    Args:
        keys: who may ask; None for everybody who reaches the server.
        paths: addresses that are counted by themselves.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys | None,
        allowed: Allowed,
        metrics: Metrics,
        paths: frozenset[str],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.app, self.keys, self.allowed, self.metrics, self.paths = app, keys, allowed, metrics, paths
        self._rates = Rates(allowed.per_minute, clock)
        self._running: defaultdict[str, int] = defaultdict(int)
        self._all = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, status = scope["path"], 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Content-Security-Policy", FRAME_POLICY if path == "/frame" else PAGE_POLICY)
                if path.startswith(_GUARDED):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        with self.metrics.in_flight.track_inprogress():
            try:
                if path.startswith(_GUARDED):
                    await self._guarded(scope, receive, sending)
                else:
                    await self.app(scope, receive, sending)
            finally:
                shown = path if path in self.paths else "other"
                self.metrics.responses.labels(shown, str(status or 499)).inc()

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        try:
            caller = self._caller(headers)
            if scope["method"] == "POST":
                self._check_body(headers)
                self._rates.take(caller)
            if self._all >= self.allowed.requests:
                raise ApiError(429, "the server is busy; try again later", code="server_busy", retry_after=1)
            if self._running[caller] >= self.allowed.requests_per_key:
                text = f"{self._running[caller]} requests of this key are running already; wait for one of them"
                raise ApiError(429, text, code="concurrency_limit", retry_after=1)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        self._all += 1
        self._running[caller] += 1
        try:
            await self.app(scope, self._bounded(receive), send)
        finally:
            self._all -= 1
            self._running[caller] -= 1
            if not self._running[caller]:
                del self._running[caller]

    def _caller(self, headers: Headers) -> str:
        if self.keys is None:
            return ""
        given = headers.get("authorization", "")
        name = self.keys.name_of(given)
        if name is None:
            wrong = "this API key is not known here" if given else "an API key is needed: send Authorization: Bearer KEY"
            error = ApiError(401, wrong, code="invalid_api_key")
            error.headers["WWW-Authenticate"] = "Bearer"
            raise error
        return name

    def _check_body(self, headers: Headers) -> None:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("application/json", "application/octet-stream") and not kind.startswith("image/"):
            # Pages of other sites can send forms and plain text here without asking; JSON they cannot.
            raise ApiError(415, "send JSON, with Content-Type: application/json", code="unsupported_media_type")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self.allowed.body_bytes:
            raise self._too_large()

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"the request has more than the {self.allowed.body_bytes:,} bytes allowed", code="request_too_large"
        )

    def _bounded(self, receive: Receive) -> Receive:
        """The body's end is not always said beforehand."""
        so_far = 0

        async def counted() -> Message:
            nonlocal so_far
            message: Any = await receive()
            so_far += len(message.get("body", b""))
            if so_far > self.allowed.body_bytes:
                raise self._too_large()
            return message

        return counted


class Rates:
    """So many requests of one caller in a minute, at most (a token bucket)."""

    def __init__(self, per_minute: int, clock: Callable[[], float]):
        self.per_minute, self._clock = per_minute, clock
        self._left: dict[str, tuple[float, float]] = {}  # caller -> requests left, and when that was so

    def take(self, caller: str) -> None:
        """Count one request.

        Raises:
            ApiError: one too many.
        """
        if not self.per_minute:
            return
        now = self._clock()
        left, since = self._left.get(caller, (float(self.per_minute), now))
        left = min(left + (now - since) * self.per_minute / 60, float(self.per_minute))
        if left < 1:
            text = f"more than {self.per_minute} requests in a minute with this key"
            raise ApiError(429, text, code="rate_limit_exceeded", retry_after=(1 - left) * 60 / self.per_minute)
        self._left[caller] = left - 1, now
