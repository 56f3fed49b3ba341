"""``POST /v1/responses``: the same answers in the form of OpenAI's Responses API. Nothing is stored: each request says all."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import Field, model_validator

from ..engine.completion import Completion
from .answering import Answering, Pieces, out_of_time, while_connected
from .chat import EVENTS, boxes, event, timings
from .conversation import Conversation, conversation
from .errors import ApiError, as_api_error
from .metrics import Metrics
from .schema import AssistantMessage, ImagePart, ImageUrl, ResponseFormat, Sampling, Strict, TextPart, UserMessage
from .settings import Allowed


class InputText(Strict):
    """Text within a message."""

    type: Literal["input_text"]
    text: str


class InputImage(Strict):
    """An image within a message."""

    type: Literal["input_image"]
    image_url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class OutputText(Strict):
    """What the system said before, as it was given."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] | None = Field(None, max_length=0)
    logprobs: list[Any] | None = Field(None, max_length=0)


class UserItem(Strict):
    """What a person says."""

    role: Literal["user"]
    type: Literal["message"] = "message"
    content: str | list[Annotated[InputText | InputImage, Field(discriminator="type")]] = Field(min_length=1)


class AssistantItem(Strict):
    """What the system said before."""

    role: Literal["assistant"]
    type: Literal["message"] = "message"
    content: str | list[OutputText]
    id: str | None = None
    status: Literal["completed", "incomplete"] | None = None


Item = Annotated[UserItem | AssistantItem, Field(discriminator="role")]


class TextForm(Strict):
    """The form of an answer: text alone."""

    format: ResponseFormat | None = None


class ResponsesRequest(Sampling):
    """``POST /v1/responses``."""

    model: str
    input: str | list[Item] = Field(min_length=1)
    stream: bool = False
    max_output_tokens: int | None = Field(None, ge=1, le=1_000_000)
    store: Literal[False] | None = None
    text: TextForm | None = None

    @model_validator(mode="after")
    def _last(self) -> "ResponsesRequest":
        if not isinstance(self.input, str) and self.input[-1].role != "user":
            raise ValueError("the last of the input must be the user's")
        return self

    def decoding(self) -> dict[str, Any]:
        given = super().decoding()
        return given if self.max_output_tokens is None else given | {"max_new_tokens": self.max_output_tokens}


def as_messages(given: str | Sequence[Item]) -> list[UserMessage | AssistantMessage]:
    """An input in the form of chat completions."""
    if isinstance(given, str):
        return [UserMessage(role="user", content=given)]
    return [_message(item) for item in given]


def _message(item: UserItem | AssistantItem) -> UserMessage | AssistantMessage:
    if isinstance(item, AssistantItem):
        text = item.content if isinstance(item.content, str) else "".join(part.text for part in item.content)
        return AssistantMessage(role="assistant", content=text)
    if isinstance(item.content, str):
        return UserMessage(role="user", content=item.content)
    parts: list[TextPart | ImagePart] = [
        TextPart(type="text", text=part.text)
        if isinstance(part, InputText)
        else ImagePart(type="image_url", image_url=ImageUrl(url=part.image_url))
        for part in item.content
    ]
    return UserMessage(role="user", content=parts)


async def responses(
    http: Request, asked: ResponsesRequest, model: str, answering: Answering, allowed: Allowed, metrics: Metrics
) -> Response:
    """Answer the input, at once or streamed."""
    said = await answering.in_thread(
        lambda: conversation(as_messages(asked.input), allowed, answering.assistant.engine.plain, "input")
    )
    plan = answering.plan(said, asked.decoding(), 1, asked.stream)
    head = {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "model": model,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": plan.params.max_new_tokens,
        "metadata": {},
        "parallel_tool_calls": False,
        "previous_response_id": None,
        "store": False,
        "temperature": plan.params.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": "none",
        "tools": [],
        "top_p": plan.params.top_p,
    }
    item = f"msg_{uuid.uuid4().hex}"
    if asked.stream:
        pieces = await answering.submit(said, plan)
        return StreamingResponse(_events(head, item, pieces, said, answering.seconds, metrics), **EVENTS)  # type: ignore[arg-type]
    done = await while_connected(http, answering, answering.completions(said, plan, asked.decoding()))
    metrics.finished(done)
    return JSONResponse(_whole(head, item, done[0], said))


def _whole(head: dict[str, Any], item: str, done: Completion, said: Conversation) -> dict[str, Any]:
    """A response with its answer."""
    cut = done.finish_reason == "length"
    status = "incomplete" if cut else "completed"
    usage = {
        "input_tokens": done.prompt_tokens,
        "input_tokens_details": {"cached_tokens": done.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": done.generated_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": done.prompt_tokens + done.generated_tokens,
    }
    return head | {
        "status": status,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": [_item(item, status, done.text)],
        "usage": usage,
        "boxes": boxes(done.text, said),
        "timings": timings([done]),
    }


def _item(item: str, status: str, text: str | None) -> dict[str, Any]:
    content = [] if text is None else [_part(text)]
    return {"id": item, "type": "message", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


async def _events(
    head: dict[str, Any], item: str, pieces: Pieces, said: Conversation, seconds: float, metrics: Metrics
) -> AsyncIterator[str]:
    """Server-sent events, each with its type and number."""
    number = -1

    def say(kind: str, **more: Any) -> str:
        nonlocal number
        number += 1
        return f"event: {kind}\n{event({'type': kind, 'sequence_number': number} | more)}"

    place = {"item_id": item, "output_index": 0, "content_index": 0}
    begun = head | {"status": "in_progress", "output": []}
    async with pieces:
        try:
            async with asyncio.timeout(seconds):
                yield say("response.created", response=begun)
                yield say("response.in_progress", response=begun)
                yield say("response.output_item.added", output_index=0, item=_item(item, "in_progress", None))
                yield say("response.content_part.added", **place, part=_part(""))
                async for piece in pieces:
                    if piece.text:
                        yield say("response.output_text.delta", **place, delta=piece.text, logprobs=[])
                    if piece.completion is not None:
                        done = piece.completion
            metrics.finished([done])
            whole = _whole(head, item, done, said)
            yield say("response.output_text.done", **place, text=done.text, logprobs=[])
            yield say("response.content_part.done", **place, part=_part(done.text))
            yield say("response.output_item.done", output_index=0, item=whole["output"][0])
            yield say(f"response.{whole['status']}", response=whole)
        except TimeoutError:
            yield _failed(say, begun, out_of_time(seconds))
        except Exception as error:
            yield _failed(say, begun, as_api_error(error))


def _failed(say: Any, begun: dict[str, Any], error: ApiError) -> str:
    told = {"code": "server_error", "message": error.message}
    return str(say("response.failed", response=begun | {"status": "failed", "error": told}))
