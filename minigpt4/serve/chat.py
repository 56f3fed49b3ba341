"""``POST /v1/chat/completions``."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ..engine.completion import Completion, TokenLogprob
from ..inference.answer import Answer
from ..prompt.boxes import Box
from .answering import Answering, Pieces, out_of_time, while_connected
from .conversation import Conversation, conversation
from .errors import ApiError, as_api_error
from .metrics import Metrics
from .schema import ChatRequest
from .settings import Allowed

EVENTS = {"media_type": "text/event-stream", "headers": {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}}


async def chat_completions(
    http: Request, asked: ChatRequest, model: str, answering: Answering, allowed: Allowed, metrics: Metrics
) -> Response:
    """Answer a conversation, at once or streamed."""
    said = await answering.in_thread(lambda: conversation(asked.messages, allowed, answering.assistant.engine.plain))
    plan = answering.plan(said, asked.decoding(), asked.n, asked.stream)
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
    if not asked.stream:
        done = await while_connected(http, answering, answering.completions(said, plan, asked.decoding()))
        metrics.finished(done)
        return JSONResponse(
            head
            | {
                "object": "chat.completion",
                "choices": [_choice(index, one, said) for index, one in enumerate(done)],
                "usage": usage(done),
                "timings": timings(done),
            }
        )
    pieces = await answering.submit(said, plan)
    head["object"] = "chat.completion.chunk"
    whole = asked.stream_options is not None and asked.stream_options.include_usage
    return StreamingResponse(_events(head, pieces, said, whole, answering.seconds, metrics), **EVENTS)  # type: ignore[arg-type]


async def _events(
    head: dict[str, Any], pieces: Pieces, said: Conversation, with_usage: bool, seconds: float, metrics: Metrics
) -> AsyncIterator[str]:
    """Server-sent events of an answer."""
    extra: dict[str, Any] = {"usage": None} if with_usage else {}
    done: list[Completion] = []

    def chunk(index: int, delta: dict[str, Any], **more: Any) -> str:
        choice = {"index": index, "delta": delta, "finish_reason": None, "logprobs": None} | more
        return event(head | {"choices": [choice]} | extra)

    async with pieces:
        try:
            async with asyncio.timeout(seconds):
                for index in range(pieces.ticket.params.n):
                    yield chunk(index, {"role": "assistant", "content": ""})
                async for piece in pieces:
                    known = logprobs(piece.logprobs)
                    if piece.text or known["content"]:
                        yield chunk(piece.index, {"content": piece.text}, logprobs=known if known["content"] else None)
                    if piece.completion is None:
                        continue
                    done.append(piece.completion)
                    last = {"finish_reason": piece.completion.finish_reason, "boxes": boxes(piece.completion.text, said)}
                    more = {"timings": timings(done)} if len(done) == pieces.ticket.params.n else {}
                    choice = {"index": piece.index, "delta": {}, "logprobs": None} | last
                    yield event(head | {"choices": [choice]} | extra | more)
            metrics.finished(done)
            if with_usage:
                yield event(head | {"choices": [], "usage": usage(done)})
            yield "data: [DONE]\n\n"
        except TimeoutError:
            yield event(out_of_time(seconds).body)
        except Exception as error:
            yield event(as_api_error(error).body)


def event(data: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False, allow_nan=False)}\n\n"


def _choice(index: int, done: Completion, said: Conversation) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": done.text, "refusal": None},
        "finish_reason": done.finish_reason,
        "logprobs": None if done.logprobs is None else logprobs(done.logprobs),
        "boxes": boxes(done.text, said),
    }


def boxes(text: str, said: Conversation) -> list[dict[str, Any]]:
    """What an answer points at: phrases with boxes, as shares of the image's sides and in its pixels.

    They are of the image that was shown last, the one that an answer draws on; `image` is its number.
    """
    if not said.images:
        return []
    number = len(said.images) - 1
    size = said.images[number].size
    phrases = Answer(text, said.images[number], said.question).phrases
    return [{"phrase": phrase, "image": number} | _box(box, size) for phrase, some in phrases for box in some]


def _box(box: Box, size: tuple[int, int]) -> dict[str, list[float]]:
    return {"relative": [round(v, 4) for v in box], "pixels": [round(v, 1) for v in box.pixels(*size)]}


def logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Log-probabilities as OpenAI gives them: of tokens that write something, whose texts joined are the answer's."""

    def one(token: str, logprob: float) -> dict[str, Any]:
        whole = "\ufffd" not in token  # a token may be a part of a character
        return {"token": token, "logprob": max(logprob, -9999.0), "bytes": list(token.encode()) if whole else None}

    content = [
        one(t.token, t.logprob) | {"top_logprobs": [one(token, logprob) for _, token, logprob in t.top]}
        for t in tokens
        if t.token
    ]
    return {"content": content, "refusal": None}


def usage(done: Sequence[Completion]) -> dict[str, Any]:
    """Counts of tokens; a prompt counts once, whatever number of answers it has."""
    prompt, written = done[0].prompt_tokens, sum(one.generated_tokens for one in done)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": done[0].cached_tokens, "image_tokens": done[0].image_tokens},
    }


def timings(done: Sequence[Completion]) -> dict[str, float]:
    """Where the time went, in milliseconds, and how fast tokens came."""
    last = max(done, key=lambda one: one.timings.total)
    spent, written = last.timings, sum(one.generated_tokens for one in done)
    parts = {
        "queue_ms": spent.waiting,
        "image_ms": spent.image_encoding,
        "prompt_ms": spent.prefill,
        "first_token_ms": spent.first_token,
        "decode_ms": spent.decoding,
        "total_ms": spent.total,
    }
    speed = written / spent.total if spent.total else 0.0
    return {name: round(seconds * 1000, 2) for name, seconds in parts.items()} | {"tokens_per_second": round(speed, 2)}


def check_model(asked: str, model: str) -> None:
    """Raises an `ApiError` for a model that is not the one that is served."""
    if asked != model:
        raise ApiError(
            404, f"there is no model {asked[:100]!r} here; there is {model!r}", param="model", code="model_not_found"
        )
