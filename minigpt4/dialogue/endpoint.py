"""An agent behind an OpenAI-compatible endpoint (POST /chat/completions), with limits on everything that can run away.

Tries, seconds, bytes of a reply, requests at a time and money are bounded. The key comes from the environment and is kept
nowhere.
"""

import base64
import hashlib
import io
import json
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from PIL import Image

from ..engine.completion import EncodedImage
from ..errors import UserError
from ..io.atomic import saying
from ..io.jsonl import write_rows
from ..media.images import ImageInput, open_image, regular_file
from .agents import AgentError, AgentGone, CostCeiling, Prompt, Reply, Spent, for_templates

try:
    import httpx2
except ImportError as missing:
    raise UserError("an endpoint needs httpx2: pip install 'minigpt4[endpoint]'") from missing

log = logging.getLogger(__name__)

_AGAIN = frozenset({408, 409, 425, 429})  # and all from 500 on
_CHARACTERS_A_TOKEN = 3  # a careful guess, where an endpoint does not count
_TOKENS_AN_IMAGE = 1500  # the same
_SENT = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}  # kinds of files that every endpoint takes


T = TypeVar("T")
Reader = Callable[[bytes, tuple[int, int]], T]
"""Reads a reply's body, given how many tokens it may have taken in and out; raises `_Again` where it is none."""


class _Again(Exception):
    """This attempt failed, the next one may not.

    Args:
        after: seconds that the endpoint asks us to wait.
        billed: whether tokens may have been paid for.
        nobody: whether nobody listens at its address.
    """

    def __init__(self, why: str, after: float | None = None, billed: bool = False, nobody: bool = False):
        super().__init__(why)
        self.after, self.billed, self.nobody = after, billed, nobody


class _NoSystem(AgentError):
    """The model there has no place for what the system says."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an endpoint may take.

    Args:
        timeout: seconds that one attempt may take in all.
        retries: attempts after the first one.
        longest_wait: seconds between two attempts at most, whatever the endpoint asks for.
        concurrency: requests at a time.
        reply_bytes: of the body of a reply.
        cost: money that may be spent, in the currency of the prices; no ceiling when not given.
    """

    timeout: float = 60.0
    retries: int = 4
    longest_wait: float = 60.0
    concurrency: int = 4
    reply_bytes: int = 1_000_000
    cost: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("timeout", 0.001), ("retries", 0), ("longest_wait", 0), ("concurrency", 1), ("reply_bytes", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name} of an endpoint must be at least {least}, not {getattr(self, name)}")
        if self.cost is not None and self.cost < 0:
            raise UserError(f"the cost ceiling of an endpoint must be 0 or more, not {self.cost}")


class Endpoint:
    """A model that an OpenAI-compatible server offers.

    Args:
        base_url: up to and without ``/chat/completions``, like ``http://127.0.0.1:8000/v1``.
        images: whether the model takes images; they are sent as JPEG in data URIs, no side longer than `side` pixels. Without
            a `side` they are sent as they are: files byte for byte, what is in memory as PNG.
        key_env: the environment variable that holds the key; without it, none is sent.
        prices: money for a million tokens of the prompt, and of the reply.
        cache: a folder that keeps replies by request; a request that it holds is not sent again, and costs nothing.
        transport: of httpx2, for tests.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        images: bool = True,
        side: int | None = 768,
        key_env: str = "OPENAI_API_KEY",
        prices: tuple[float, float] = (0.0, 0.0),
        limits: Limits = Limits(),
        cache: str | os.PathLike | None = None,
        settings: dict[str, Any] | None = None,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ):
        if not base_url.startswith(("http://", "https://")):
            raise UserError(f"{base_url}: an endpoint's address begins with http:// or https://")
        if limits.cost is not None and not any(prices):
            raise UserError("a cost ceiling needs the endpoint's prices (money for a million tokens in, and out)")
        self.base_url, self.model, self.images, self.side = base_url.rstrip("/"), model, images, side
        self.key_env, self.prices, self.limits = key_env, prices, limits
        self.settings = dict(settings or {})
        self._cache = Path(cache) if cache is not None else None
        self._sleep, self._told = sleep, False
        self._client = httpx2.Client(timeout=limits.timeout, transport=transport, follow_redirects=False)
        self._spent, self._reserved, self._lock = Spent(), 0.0, Lock()
        self._system, self._reached = True, False

    @property
    def name(self) -> str:
        """The model at its address."""
        return f"{self.model} at {self.base_url}"

    @property
    def spent(self) -> Spent:
        """Tokens and money so far; where the endpoint does not count, guessed on the high side."""
        return self._spent

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply | AgentError]:
        """A reply to each prompt, several at a time."""
        if len(prompts) == 1:
            return [self._one(prompts[0])]
        with ThreadPoolExecutor(self.limits.concurrency) as pool:
            return list(pool.map(self._one, prompts))

    def _one(self, prompt: Prompt) -> Reply | AgentError:
        """A reply. Where a model has no role ``system`` (many have none, ours among them), what the system says is put before
        what the user says next, from then on."""
        try:
            return self._asked(prompt, self._system)
        except _NoSystem as error:
            self._system = False
            return self._asked(prompt, False) if any(m["role"] == "system" for m in prompt.messages) else error

    def _asked(self, prompt: Prompt, system: bool) -> Reply | AgentError:
        try:
            body = self._body(prompt, system)
            digest = hashlib.sha256(json.dumps([self.base_url, body, prompt.attempt], sort_keys=True).encode()).hexdigest()
            if (known := self._known(digest)) is not None:
                return known
            guess = _guess(body, len(prompt.images))
            reply = self._sent("chat/completions", body, guess, self._read)
        except UserError as error:
            return AgentError(str(error))
        except _NoSystem as error:
            if system:
                raise
            return error
        except AgentError as error:
            return error
        if self._cache is not None and reply.text:
            row: dict[str, Any] = {"text": reply.text, "finish_reason": reply.finish_reason}
            row |= {"prompt_tokens": reply.prompt_tokens, "generated_tokens": reply.generated_tokens}
            self._keep(self._cache / f"{digest}.json", row)
        return reply

    def _keep(self, path: Path, row: dict[str, Any]) -> None:
        """Keep a reply. One that cannot be kept is a reply all the same: it was paid for."""
        try:
            with saying(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_rows(path, [row])
        except UserError as error:
            if not self._told:
                log.warning("%s: replies are not kept, and will be asked and paid for again", error)
            self._told = True

    def _known(self, digest: str) -> Reply | None:
        if self._cache is None:
            return None
        try:
            row = json.loads((self._cache / f"{digest}.json").read_text(encoding="utf-8"))
            reply = Reply(row["text"], row["prompt_tokens"], row["generated_tokens"], 0.0, row["finish_reason"], cached=True)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        self._spent.add(cached=1)
        return reply

    def post(self, path: str, body: dict[str, Any], characters: int, images: int) -> dict[str, Any]:
        """Send another kind of request; gives the reply, a JSON object. Limits and account are those of `answer`.

        Args:
            path: below the base URL, like ``decisions``.
            characters, images: how much text and how many images are in it.

        Raises:
            AgentError: no reply, after all attempts, or no more money may be spent (`CostCeiling`).
        """
        return self._sent(path, body, (_tokens(characters, images), 0), self._read_object)

    def described(self) -> dict[str, Any]:
        """What the endpoint says of its model (GET /models); nothing where it lists no models.

        Raises:
            UserError: nobody is there, the key is refused, or it has no model of this name.
        """
        try:
            found = self._client.get(f"{self.base_url}/models", headers=self._headers())
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise UserError(f"{self.base_url}: cannot be reached ({type(error).__name__}); is the server running?") from None
        if found.status_code in (401, 403):
            raise UserError(f"{self.base_url}: HTTP {found.status_code}; is the key in ${self.key_env}?")
        try:
            listed = found.json()["data"] if found.status_code == 200 else None
            models = None if listed is None else {str(model["id"]): model for model in listed}
        except (ValueError, KeyError, TypeError, RecursionError):
            models = None
        if models is None:
            return {}
        if self.model not in models:
            raise UserError(f"{self.base_url}: has no model {self.model!r}; it has {', '.join(list(models)[:10]) or 'none'}")
        return models[self.model]

    # the request -----------------------------------------------------------------------------------------------------

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(self.key_env)
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _body(self, prompt: Prompt, system: bool) -> dict[str, Any]:
        if prompt.images and not self.images:
            raise UserError(f"{self.name} takes no images, but is asked about one: name another agent for this part")
        told = prompt.messages if system else for_templates(prompt.messages, 0, str)
        messages: list[dict[str, Any]] = [dict(message) for message in told]
        if prompt.images:
            first = next((i for i, message in enumerate(messages) if message["role"] == "user"), None)
            if first is None:
                messages.append({"role": "user", "content": ""})
                first = len(messages) - 1
            parts = [{"type": "image_url", "image_url": {"url": data_uri(image, self.side)}} for image in prompt.images]
            text = messages[first]["content"]
            messages[first]["content"] = [*parts, *([{"type": "text", "text": text}] if text else [])]
        body = {"model": self.model, "messages": messages} | self.settings
        if prompt.max_new_tokens is not None:
            body["max_tokens"] = prompt.max_new_tokens
        if prompt.temperature is not None:
            body["temperature"] = prompt.temperature
        return body

    def _sent(self, path: str, body: dict[str, Any], guess: tuple[int, int], read: Reader[T]) -> T:
        """The reply, after as many attempts as are allowed."""
        most = self._price(*guess)
        for attempt in range(self.limits.retries + 1):
            self._reserve(most)
            try:
                return self._attempt(path, body, guess, read)
            except _Again as error:
                self._spent.add(failed=1, cost=most if error.billed else 0.0)
                if error.nobody and (attempt == self.limits.retries or (attempt and not self._reached)):
                    raise AgentGone(f"{self.name}: {error} ({attempt + 1} attempts); is the server running?") from None
                if attempt == self.limits.retries:
                    raise AgentError(f"{self.name}: {error} ({attempt + 1} attempts)") from None
                wait = random.uniform(0.5, 1.0) * 2**attempt if error.after is None else error.after
                self._sleep(min(wait, self.limits.longest_wait))
            except AgentError:
                self._spent.add(failed=1)
                raise
            finally:
                with self._lock:
                    self._reserved -= most
        raise AssertionError("the loop returns or raises")

    def _reserve(self, most: float) -> None:
        """Set aside what a request may cost, so that requests at the same time do not pass the ceiling together."""
        with self._lock:
            if self.limits.cost is not None and self._spent.cost + self._reserved + most > self.limits.cost:
                raise CostCeiling(
                    f"{self.name}: the cost ceiling of {self.limits.cost:g} is reached ({self._spent.cost:.4f} spent, "
                    f"the next request may take {most:.4f}); raise it to go on"
                )
            self._reserved += most

    def _price(self, prompt_tokens: float, generated_tokens: float) -> float:
        return (prompt_tokens * self.prices[0] + generated_tokens * self.prices[1]) / 1e6

    def _attempt(self, path: str, body: dict[str, Any], guess: tuple[int, int], read: Reader[T]) -> T:
        self._spent.add(requests=1)
        headers = self._headers()
        end = time.monotonic() + self.limits.timeout
        data = bytearray()
        try:
            with self._client.stream("POST", f"{self.base_url}/{path}", json=body, headers=headers) as response:
                for piece in response.iter_bytes():
                    data += piece
                    if len(data) > self.limits.reply_bytes:
                        self._spent.add(cost=self._price(*guess))
                        raise AgentError(f"{self.name}: the reply is longer than {self.limits.reply_bytes:,} bytes")
                    if time.monotonic() > end:
                        raise _Again(f"no whole reply within {self.limits.timeout:g} s", billed=True)
        except httpx2.TimeoutException:
            raise _Again(f"no reply within {self.limits.timeout:g} s", billed=True) from None
        except httpx2.TransportError as error:
            nobody = isinstance(error, httpx2.ConnectError)
            raise _Again(f"cannot be reached ({type(error).__name__})", nobody=nobody) from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise AgentError(f"{self.name}: {type(error).__name__}") from None
        self._reached = True
        if response.status_code != 200:
            self._refused(response.status_code, response.headers.get("retry-after"), bytes(data))
        return read(bytes(data), guess)

    def _refused(self, status: int, after: str | None, data: bytes) -> None:
        if status in _AGAIN or status >= 500:
            try:
                wait = max(float(after), 0.0) if after else None
            except ValueError:  # a date
                wait = None
            raise _Again(f"HTTP {status}", after=wait)
        why = _message(data)
        hint = f"; is the key in ${self.key_env}?" if status in (401, 403) else ""
        kind = _NoSystem if status in (400, 422) and "system" in why.lower() else AgentError
        raise kind(f"{self.name}: HTTP {status}{f' ({why})' if why else ''}{hint}")

    def _read(self, data: bytes, guess: tuple[int, int]) -> Reply:
        try:
            choice = (reply := json.loads(data))["choices"][0]
            text = choice["message"]["content"] or ""
            if not isinstance(text, str):
                raise TypeError
            usage = reply.get("usage") or {}
            read = max(int(usage.get("prompt_tokens", guess[0])), 0)
            written = max(int(usage.get("completion_tokens", len(text) // _CHARACTERS_A_TOKEN)), 0)
            reason = "length" if choice.get("finish_reason") == "length" else "stop"
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise _Again("what it sent is no chat completion", billed=True) from None
        return Reply(text.strip(), read, written, self._paid(read, written), reason)

    def _read_object(self, data: bytes, guess: tuple[int, int]) -> dict[str, Any]:
        try:
            reply = json.loads(data)
            usage = reply.get("usage") or {}
            read = max(int(usage.get("input_tokens", guess[0])), 0)
            written = max(int(usage.get("output_tokens", guess[1])), 0)
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise _Again("what it sent is no JSON object", billed=True) from None
        self._paid(read, written)
        return reply

    def _paid(self, read: int, written: int) -> float:
        """What tokens have cost, which is put on the account."""
        cost = self._price(read, written)
        self._spent.add(prompt_tokens=read, generated_tokens=written, cost=cost)
        return cost


def _guess(body: dict[str, Any], images: int) -> tuple[int, int]:
    """Tokens that a request may take in and out."""
    characters = sum(len(str(message["content"])) for message in body["messages"]) if not images else _text_length(body)
    return _tokens(characters, images), int(body.get("max_tokens") or 1000)


def _tokens(characters: int, images: int) -> int:
    return characters // _CHARACTERS_A_TOKEN + images * _TOKENS_AN_IMAGE


def _text_length(body: dict[str, Any]) -> int:
    contents = [message["content"] for message in body["messages"]]
    texts = [c if isinstance(c, str) else "".join(part.get("text", "") for part in c) for c in contents]
    return sum(map(len, texts))


def data_uri(image: ImageInput | EncodedImage, side: int | None) -> str:
    """An image as it is sent: as JPEG with no side longer than `side`, or as it is where there is none."""
    if isinstance(image, EncodedImage):
        raise UserError("an image that has been encoded here cannot be sent to an endpoint")
    buffer = io.BytesIO()
    if side is None and not isinstance(image, Image.Image) and (kind := _SENT.get(Path(image).suffix.lower())):
        buffer.write(regular_file(image).read_bytes())
    elif side is None:
        kind = "png"
        open_image(image).save(buffer, "PNG")
    else:
        kind = "jpeg"
        picture = open_image(image)
        picture.thumbnail((side, side))
        picture.save(buffer, "JPEG", quality=90)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _message(data: bytes) -> str:
    """What the endpoint says of its refusal, for one line."""
    try:
        said = json.loads(data)["error"]["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return " ".join(str(said).split())[:200]
