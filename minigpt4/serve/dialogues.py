"""``POST /v1/dialogues``: ChatCaptioner about one image, round by round; the loaded system asks, answers and sums up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from fastapi.responses import Response, StreamingResponse
from PIL import Image
from pydantic import Field

from ..dialogue.agents import AgentError, LocalAgent
from ..dialogue.captioner import Partners, Rules, Transcript, converse
from ..dialogue.prompts import load_prompts
from ..errors import UserError
from ..inference.watched import watched
from .answering import Answering, out_of_time
from .chat import EVENTS, event
from .errors import ApiError, as_api_error
from .images import read_image
from .schema import Strict
from .settings import Allowed

MOST_ROUNDS = 30


class DialogueRequest(Strict):
    """``POST /v1/dialogues``."""

    model: str
    image_url: str
    rounds: int = Field(8, ge=1, le=MOST_ROUNDS)
    patience: int = Field(2, ge=0, le=MOST_ROUNDS)


async def dialogues(asked: DialogueRequest, answering: Answering, allowed: Allowed) -> Response:
    """The dialogue as server-sent events: ``question``, ``answer``, ``problem``, ``caption`` with their text; ``done`` last."""
    try:
        image = await answering.in_thread(lambda: read_image(asked.image_url, allowed))
    except UserError as error:
        raise ApiError(400, f"image_url: {error}", param="image_url", code="invalid_image") from None
    return StreamingResponse(_events(asked, image, answering), **EVENTS)  # type: ignore[arg-type]


async def _events(asked: DialogueRequest, image: Image.Image, answering: Answering) -> AsyncIterator[str]:
    loop, told = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | None]()
    assistant, engine = watched(answering.assistant)

    def put(item: dict[str, Any] | None) -> None:
        with suppress(RuntimeError):  # the loop has ended, and nobody reads
            loop.call_soon_threadsafe(told.put_nowait, item)

    def work() -> Transcript:
        agent = LocalAgent(assistant, asked.model)
        rules = Rules(rounds=asked.rounds, patience=asked.patience)
        wording = load_prompts(None)["image"]
        try:
            return converse(
                image,
                Partners(questioner=agent, answerer=agent),
                wording,
                rules,
                lambda kind, text: put({"type": kind, "text": text}),
            )
        finally:
            put(None)

    task = asyncio.ensure_future(answering.in_asker(work))
    try:
        async with asyncio.timeout(answering.seconds):
            while (item := await told.get()) is not None:
                yield event(item)
            done = await task
        rounds = [{"question": one.question, "answer": one.answer, "by": one.by, "flaws": one.flaws} for one in done.rounds]
        yield event({"type": "done", "caption": done.caption, "plain": done.plain, "stopped": done.stopped, "rounds": rounds})
        yield "data: [DONE]\n\n"
    except TimeoutError:
        yield event(out_of_time(answering.seconds).body)
    except AgentError as error:
        yield event(ApiError(400, str(error), code="no_answer").body)
    except Exception as error:
        yield event(as_api_error(error).body)
    finally:  # who listened has left, or all is said
        engine.cancel()
