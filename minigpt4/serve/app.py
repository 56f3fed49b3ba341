"""The application: what is at which address."""

import asyncio
import io
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from ..errors import UserError
from ..inference.assistant import Assistant
from ..prompt.tasks import TASKS
from .answering import Answering
from .bodies import body
from .chat import chat_completions, check_model
from .decisions import DecisionsRequest, decisions
from .dialogues import DialogueRequest, dialogues
from .errors import ApiError, invalid, on_api_error
from .gate import Gate, KnownHosts
from .images import decode
from .keys import Keys
from .metrics import Metrics
from .responses import ResponsesRequest, responses
from .schema import ChatRequest
from .settings import Allowed

log = logging.getLogger(__name__)
_SHOWN_SIDE = 2048  # of an image that was converted to be shown
_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/frame": ("frame.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
        for name in "app api asking captioner controls messages photos sketches stage store tree".split()
    },
    **{f"/{name}.jpg": (f"{name}.jpg", "image/jpeg") for name in ("astronaut", "camera", "cat")},
}
M = TypeVar("M", bound=BaseModel)
A = TypeVar("A", bound=Starlette)


class Served:
    """What the routes share: the system, once it is loaded."""

    def __init__(self, name: str, load: Callable[[], Assistant], allowed: Allowed):
        self.name, self.load, self.allowed, self.since = name, load, allowed, int(time.time())
        self.answering: Answering | None = None
        self.failed: BaseException | None = None
        self.metrics = Metrics(lambda: None if self.answering is None else self.answering.assistant.engine.stats)

    @property
    def ready(self) -> Answering:
        """What answers.

        Raises:
            ApiError: it is not loaded yet.
        """
        if self.answering is None:
            raise ApiError(503, "the model is being loaded; try again in a moment", code="loading", retry_after=2)
        return self.answering


def create_app(
    name: str,
    load: Callable[[], Assistant],
    *,
    allowed: Allowed = Allowed(),
    keys: Keys | None = None,
    hosts: Sequence[str] | None = None,
    page: bool = False,
    on_failure: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The server's application.

    Args:
        name: of the model, as clients name it.
        load: loads it; the server answers ``/health`` meanwhile, and ``/ready`` with 503.
        keys: who may ask; everybody when not given.
        hosts: names under which the server may be addressed; a page of another site that makes a name of its own point here
            is refused. All when not given.
        page: serve the page for people at ``/``.
        on_failure: called when loading has failed; the reason is ``app.state.served.failed``.
    """
    served = Served(name, load, allowed)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async def begin() -> None:
            try:
                served.answering = Answering(await asyncio.to_thread(load), allowed.seconds)
            except BaseException as error:
                served.failed = error
                on_failure()

        loading = asyncio.create_task(begin())
        yield
        loading.cancel()
        with suppress(asyncio.CancelledError):
            await loading
        if served.answering is not None:
            served.answering.close()
            await asyncio.to_thread(served.answering.assistant.engine.close)

    app = FastAPI(
        title="minigpt4",
        version="1",
        description="Questions about images, as the OpenAI API asks them.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.served = served
    for kind in (ApiError, UserError, HTTPException, Exception):
        app.add_exception_handler(kind, on_api_error)
    _add_api(app, served)
    if page:
        _add_page(app)
    _describe(app)
    return guarded(app, app.routes, hosts=hosts, keys=keys, allowed=allowed, metrics=served.metrics)


def guarded(
    app: A,
    routes: Sequence[BaseRoute],
    *,
    hosts: Sequence[str] | None,
    keys: Keys | None,
    allowed: Allowed,
    metrics: Metrics,
) -> A:
    """An application behind what every request passes first; addresses of these routes are counted by themselves."""
    if hosts is not None:
        app.add_middleware(KnownHosts, hosts=list(hosts))
    paths = frozenset(route.path for route in routes if hasattr(route, "path"))
    app.add_middleware(Gate, keys=keys, allowed=allowed, metrics=metrics, paths=paths)
    return app


async def read(http: Request, kind: type[M]) -> M:
    """A request's body.

    Raises:
        ApiError: it is not what it must be, or takes too long to arrive.
    """
    try:
        return kind.model_validate_json(await body(http))
    except ValidationError as error:
        raise invalid(error) from None


def _add_api(app: FastAPI, served: Served) -> None:
    @app.post("/v1/chat/completions", openapi_extra=_body(ChatRequest))
    async def chat(http: Request) -> Response:
        """Answer a conversation."""
        asked = await read(http, ChatRequest)
        check_model(asked.model, served.name)
        return await chat_completions(http, asked, served.name, served.ready, served.allowed, served.metrics)

    @app.post("/v1/responses", openapi_extra=_body(ResponsesRequest))
    async def respond(http: Request) -> Response:
        """Answer, in the form of the Responses API; nothing is stored."""
        asked = await read(http, ResponsesRequest)
        check_model(asked.model, served.name)
        return await responses(http, asked, served.name, served.ready, served.allowed, served.metrics)

    @app.post("/v1/decisions", openapi_extra=_body(DecisionsRequest))
    async def decide(http: Request) -> Response:
        """Probabilities of answers that are given: yes or no, one of several, a place on a scale."""
        asked = await read(http, DecisionsRequest)
        check_model(asked.model, served.name)
        return await decisions(http, asked, served.name, served.ready, served.allowed, served.metrics)

    @app.post("/v1/dialogues", openapi_extra=_body(DialogueRequest))
    async def talk(http: Request) -> Response:
        """A dialogue about an image (ChatCaptioner), streamed round by round."""
        asked = await read(http, DialogueRequest)
        check_model(asked.model, served.name)
        return await dialogues(asked, served.ready, served.allowed)

    @app.post("/v1/images/convert")
    async def convert(http: Request) -> Response:
        """An image of any kind that can be read (HEIC, TIFF, AVIF, ...) as a JPEG that every browser shows."""
        data = await body(http)

        def work() -> bytes:
            image = decode(data, served.allowed)
            image.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
            out = io.BytesIO()
            image.save(out, "JPEG", quality=90)
            return out.getvalue()

        return Response(await served.ready.in_thread(work), media_type="image/jpeg")

    @app.get("/v1/models")
    async def models() -> JSONResponse:
        """The one model that is served."""
        return JSONResponse({"object": "list", "data": [_model(served)]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> JSONResponse:
        """The model of that name."""
        check_model(name, served.name)
        return JSONResponse(_model(served))

    @app.get("/health")
    async def health() -> JSONResponse:
        """Whether the server runs."""
        return JSONResponse({"status": "ok"})

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """Whether it can answer."""
        served.ready  # noqa: B018  # raises where it is not
        return JSONResponse({"status": "ready", "model": served.name})

    @app.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(served.metrics.text(), media_type="text/plain; version=0.0.4")


def _model(served: Served) -> dict[str, Any]:
    described: dict[str, Any] = {
        "id": served.name,
        "object": "model",
        "created": served.since,
        "owned_by": "minigpt4",
        "input_modalities": ["text", "image"],
        "output_modalities": ["text"],
        "tasks": [
            {"name": task.name, "identifier": task.identifier, "subject": task.subject, "prompt": task.plain}
            for task in TASKS.values()
        ],
    }
    if served.answering is not None:
        assistant = served.answering.assistant
        described["context_length"] = min(assistant.engine.context, 1 << 31)
        described["max_new_tokens"] = assistant.plan("", {}).params.max_new_tokens  # of a plain question that names no limit
        described["image_tokens"] = assistant.processor.num_image_tokens
    return described


def _add_page(app: FastAPI) -> None:
    """The page's few files by name; there is no way to any other."""
    folder = files(__package__) / "page"
    for address, (name, kind) in _PAGE.items():
        app.add_api_route(
            address, _page_route((folder / name).read_bytes(), kind), include_in_schema=False, methods=["GET", "HEAD"]
        )


def _page_route(content: bytes, kind: str) -> Callable[[], Any]:
    async def show() -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return show


_BODIES: tuple[type[BaseModel], ...] = (ChatRequest, ResponsesRequest, DecisionsRequest, DialogueRequest)


def _body(kind: type[BaseModel]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _describe(app: FastAPI) -> None:
    """OpenAPI knows the bodies too, which the routes read themselves: pydantic reads JSON stricter than Python does."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        schema = plain()
        kinds = [(kind, "validation") for kind in _BODIES]
        _, found = models_json_schema(kinds, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
        schema.setdefault("components", {}).setdefault("schemas", {}).update(found.get("$defs", {}))
        return schema

    app.openapi = described  # type: ignore[method-assign]
