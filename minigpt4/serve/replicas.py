"""Several replicas behind one address, by Ray Serve: this process listens and guards, the replicas answer.

Ray starts the replicas, starts others for those that end, and as many as there is to do. Its own proxies are not used: keys and
limits hold for all replicas together here, and a request whose replica has ended is asked of another one (`relay`).
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError, WorkerCrashedError
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Message, Scope

from ..errors import UserError
from ..inference.assistant import Assistant
from .app import create_app, guarded
from .keys import Keys
from .metrics import Metrics
from .relay import Relay
from .settings import Allowed, Scale

_APPLICATION = "minigpt4"


class Replica:
    """The application in a process of its own."""

    async def __init__(  # type: ignore[misc]  # Ray waits for it
        self, name: str, load: Callable[[], Assistant], allowed: Allowed, page: bool
    ):
        assistant = await asyncio.to_thread(load)
        inside = replace(allowed, per_minute=0, requests_per_key=allowed.requests)  # keys are the front's business
        self.app = create_app(name, lambda: assistant, allowed=inside, page=page)
        self._life = self.app.router.lifespan_context(self.app)
        await self._life.__aenter__()
        while self.app.state.served.answering is None:
            await asyncio.sleep(0.01)

    async def answer(self, scope: Scope, body: bytes) -> AsyncIterator[Message]:
        """What the application sends for one request, message by message."""
        said: asyncio.Queue[Message | None] = asyncio.Queue()
        given, gone = iter([{"type": "http.request", "body": body, "more_body": False}]), asyncio.Event()

        async def receive() -> Message:
            if (message := next(given, None)) is not None:
                return message
            await gone.wait()
            return {"type": "http.disconnect"}

        async def work() -> None:
            try:
                await self.app(scope, receive, said.put)
            finally:
                said.put_nowait(None)

        task = asyncio.ensure_future(work())
        try:
            while (message := await said.get()) is not None:
                yield message
            await task
        finally:  # who asked has left, or all is said
            gone.set()
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task


def replicated_app(
    name: str,
    load: Callable[[], Assistant],
    scale: Scale,
    *,
    allowed: Allowed = Allowed(),
    keys: Keys | None = None,
    hosts: Sequence[str] | None = None,
    page: bool = False,
) -> Starlette:
    """The application over replicas, which are started now: on the cluster of RAY_ADDRESS, or else on this machine.

    Raises:
        UserError: they do not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not ray.is_initialized():
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        except Exception as error:  # of no class of its own
            raise UserError(f"Ray does not start: {' '.join(str(error).split())[:300]}") from None
    handle = deploy(name, load, scale, allowed=allowed, page=page)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(serve.shutdown)
        await asyncio.to_thread(ray.shutdown)

    async def health(request: Any) -> Response:
        return JSONResponse({"status": "ok"})

    metrics = Metrics(lambda: None)

    async def own_metrics(request: Any) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    streaming = handle.options(stream=True)
    relay = Relay(lambda scope, body: streaming.answer.remote(scope, body), (RayActorError, WorkerCrashedError))
    routes = [Route("/health", health), Route("/metrics", own_metrics), Mount("/", relay)]
    app = Starlette(routes=routes, lifespan=lifespan)
    known = create_app(name, load, page=page)  # never started: it says which addresses there are
    return guarded(app, known.routes, hosts=hosts, keys=keys, allowed=allowed, metrics=metrics)


def deploy(name: str, load: Callable[[], Assistant], scale: Scale, *, allowed: Allowed = Allowed(), page: bool = False) -> Any:
    """Start the replicas, or replace those that there are one after the other; gives Ray's handle.

    Raises:
        UserError: they do not start.
    """
    scaling: dict[str, Any] = {"num_replicas": scale.least}
    if scale.most > scale.least:
        limits = {"min_replicas": scale.least, "max_replicas": scale.most, "target_ongoing_requests": 16}
        scaling = {"autoscaling_config": limits}
    options = serve.deployment(
        name="replica",
        max_ongoing_requests=allowed.requests,
        graceful_shutdown_timeout_s=allowed.seconds,
        health_check_period_s=2,
        ray_actor_options={"num_cpus": 1, "num_gpus": scale.gpus},
        **scaling,
    )
    try:
        serve.start(proxy_location="Disabled")
        return serve.run(options(Replica).bind(name, load, allowed, page), name=_APPLICATION, route_prefix=None)
    except (RuntimeError, ray.exceptions.RayError) as error:
        reason = [line for line in str(error).splitlines() if line.strip()]
        raise UserError(f"the replicas do not start: {reason[-1].strip() if reason else type(error).__name__}") from None
