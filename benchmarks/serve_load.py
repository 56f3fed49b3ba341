"""A server under load: many clients at once, some of which leave, each answer held against the same question asked alone.

    minigpt4 serve --port 8000 &
    python benchmarks/serve_load.py --url http://127.0.0.1:8000

Prints one JSON object: how many were answered, how many answers differ from those given alone, seconds to the first word, and
the time that the same questions take one after the other. Its exit status is 1 if an answer is missing or differs.
"""

import argparse
import asyncio
import base64
import io
import json
import random
import statistics
import sys
import time
from dataclasses import dataclass, field

import httpx2
from PIL import Image

SIZES = ((64, 48), (320, 320), (640, 480), (1280, 960), (480, 1600))
WORDS = ("What is this?", "What color is it?", "[vqa] Is there a person?", "Describe the image.", "What is on the left?")


@dataclass
class Seen:
    """What came back."""

    answered: int = 0
    cancelled: int = 0
    refused: int = 0
    different: int = 0
    errors: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)


def questions(number: int, model: str, tokens: int) -> list[dict]:
    """Requests about images of mixed sizes, the same each time."""
    rng = random.Random(0)
    made = []
    for i in range(number):
        noise = Image.effect_noise(rng.choice(SIZES), rng.randint(20, 120))
        tinted = Image.merge("RGB", (noise, noise.point(lambda v: 255 - v), noise.rotate(180)))
        out = io.BytesIO()
        tinted.save(out, "JPEG", quality=80)
        url = f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": WORDS[i % len(WORDS)]}]
        body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": tokens, "stream": True}
        made.append(body | ({"temperature": 0.8, "seed": i} if i % 3 == 0 else {"temperature": 0}))
    return made


async def ask(client: httpx2.AsyncClient, body: dict, leave_after: int | None = None) -> tuple[str | None, float]:
    """The answer, or None if the client left after some pieces; and seconds to the first word."""
    begun, first, text, pieces = time.monotonic(), 0.0, "", 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            await answer.aread()
            raise httpx2.HTTPStatusError(answer.text[:200], request=answer.request, response=answer)
        async for line in answer.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(event["error"]["message"])
            delta = event["choices"][0]["delta"].get("content")
            if delta:
                first = first or time.monotonic() - begun
                text, pieces = text + delta, pieces + 1
            if leave_after is not None and pieces >= leave_after:
                return None, first
    return text, first


async def load(url: str, model: str, requests: int, clients: int, share: float, distinct: int, tokens: int) -> dict:
    """Ask, at first alone and then all together."""
    bodies, rng, seen = questions(distinct, model, tokens), random.Random(1), Seen()
    limits = httpx2.Limits(max_connections=clients)
    async with httpx2.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        begun = time.monotonic()
        alone = [await ask(client, body) for body in bodies]
        each = (time.monotonic() - begun) / distinct
        waiting = asyncio.Queue()
        for i in range(requests):
            waiting.put_nowait((i % distinct, rng.randint(1, 4) if rng.random() < share else None))

        async def work() -> None:
            while not waiting.empty():
                which, leave = waiting.get_nowait()
                try:
                    text, first = await ask(client, bodies[which], leave)
                except httpx2.HTTPStatusError as error:
                    seen.refused += error.response.status_code == 429
                    seen.errors += [] if error.response.status_code == 429 else [str(error)]
                    continue
                except Exception as error:
                    seen.errors.append(f"{type(error).__name__}: {error}")
                    continue
                seen.cancelled += text is None
                seen.answered += text is not None
                seen.different += text is not None and text != alone[which][0]
                if text:
                    seen.first.append(first)

        begun = time.monotonic()
        await asyncio.gather(*(work() for _ in range(clients)))
        together = time.monotonic() - begun
    quantiles = statistics.quantiles(seen.first, n=100) if len(seen.first) > 1 else [0.0] * 99
    return {
        "requests": requests,
        "clients": clients,
        "answered": seen.answered,
        "cancelled": seen.cancelled,
        "refused": seen.refused,
        "errors": seen.errors[:5],
        "different": seen.different,
        "requests_per_second": round(requests / together, 2),
        "requests_per_second_alone": round(1 / each, 2),
        "first_word_alone": round(statistics.median(first for _, first in alone), 3),
        "first_word_median": round(quantiles[49], 3),
        "first_word_p99": round(quantiles[98], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--cancelled", type=float, default=0.1, help="share of clients that leave")
    parser.add_argument("--distinct", type=int, default=25, help="different questions among the requests")
    parser.add_argument("--tokens", type=int, default=16)
    given = parser.parse_args()
    model = httpx2.get(f"{given.url}/v1/models").json()["data"][0]["id"]
    found = asyncio.run(load(given.url, model, given.requests, given.clients, given.cancelled, given.distinct, given.tokens))
    print(json.dumps(found))
    if found["different"] or found["errors"] or found["refused"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
