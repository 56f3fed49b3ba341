"""Something that answers: a loaded system of ours, or a model behind an OpenAI-compatible endpoint (`endpoint.Endpoint`).

Questioner, answerer, summariser, repairer and judge are each an `Agent`; which one, the caller decides.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Protocol

from ..engine.completion import Completion, EncodedImage, Request
from ..engine.params import layered
from ..errors import UserError
from ..inference.assistant import Assistant
from ..inference.looks import Look
from ..inference.task_settings import OWN
from ..inference.watched import watched
from ..media.images import ImageInput
from ..prompt.templates import Message, with_images


class AgentError(Exception):
    """One question that could not be answered; others may still be. Its text is one line that says why."""


class AgentGone(AgentError):
    """Nothing more can be asked of this agent: who has more to ask stops."""


class CostCeiling(AgentGone):
    """No more may be spent."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What an agent is asked.

    Args:
        messages: roles ``system``, ``user`` and ``assistant``; the agent is to say what comes next.
        images: belong to the first message of the user.
        attempt: asked again after an answer of no use; never answered from a cache of earlier attempts.
    """

    messages: Sequence[Message]
    images: Sequence[ImageInput | EncodedImage] = ()
    max_new_tokens: int | None = None
    temperature: float | None = None
    attempt: int = 0


@dataclass(frozen=True)
class Reply:
    """What an agent said. `cost` is in the currency of the agent's prices; `finish_reason` is ``stop`` or ``length``."""

    text: str
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cost: float = 0.0
    finish_reason: str = "stop"
    cached: bool = False


@dataclass
class Spent:
    """What an agent has used so far; safe to add to from several threads."""

    requests: int = 0
    failed: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cost: float = 0.0
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def add(self, **amounts: float) -> None:
        """Count what one request used."""
        with self._lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)

    def row(self) -> dict[str, float]:
        """For JSON."""
        names = ("requests", "failed", "cached", "prompt_tokens", "generated_tokens", "cost")
        return {name: round(getattr(self, name), 6) for name in names}


class Agent(Protocol):
    """Something that answers."""

    @property
    def name(self) -> str:
        """For people and for files."""
        ...

    @property
    def spent(self) -> Spent:
        """What it has used so far."""
        ...

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply | AgentError]:
        """A reply to each prompt, in order. What fails is returned as its error, so that it takes nothing else with it."""
        ...


def ask(agent: Agent, prompt: Prompt) -> Reply:
    """One reply.

    Raises:
        AgentError: there is none.
    """
    reply = agent.answer([prompt])[0]
    if isinstance(reply, AgentError):
        raise reply
    return reply


class LocalAgent:
    """A loaded system. What costs nothing is counted all the same, in tokens.

    A prompt is decoded as the system decodes the question at its end for everybody (`Assistant.plan`), and after that as
    `settings` and the prompt say.

    Args:
        settings: for all prompts, with the names that `Assistant.ask` takes.
    """

    def __init__(self, assistant: Assistant, name: str = "local", **settings: Any):
        self.assistant, self.engine, self._name, self.settings = assistant, assistant.engine, name, settings
        self._spent = Spent()
        assistant.plan("", settings)  # a wrong setting is said now

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def spent(self) -> Spent:
        """Tokens read and written."""
        return self._spent

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply | AgentError]:
        """A reply to each prompt, many at a time; a seed of the settings moves on with each attempt."""
        replies: dict[int, Completion | AgentError] = {}
        requests: dict[int, Request] = {}
        for i, prompt in enumerate(prompts):
            try:
                look, settings = self._look(prompt), self._settings(prompt)
                plan = self.assistant.plan(look.question, settings)
                if plan.several:
                    replies[i] = _chosen(self.assistant, look, settings)
                else:
                    requests[i] = Request(messages=look.messages, images=prompt.images, params=plan.params)
            except UserError as error:
                replies[i] = AgentError(str(error))
        replies |= dict(zip(requests, self._completed(list(requests.values())), strict=True))
        return [self._reply(replies[i]) for i in range(len(prompts))]

    def _look(self, prompt: Prompt) -> Look:
        messages = for_templates(prompt.messages, len(prompt.images), self.engine.plain)
        question = messages[-1]["content"].removeprefix(with_images("", len(prompt.images)))
        return Look(prompt.images, question.strip(), messages, plain=self.engine.plain)  # type: ignore[arg-type]  # they are not opened

    def _settings(self, prompt: Prompt) -> dict[str, Any]:
        own: dict[str, Any] = {"max_new_tokens": prompt.max_new_tokens, "temperature": prompt.temperature}
        if prompt.attempt and self.settings.get("seed") is not None:
            own["seed"] = self.settings["seed"] + prompt.attempt
        return layered(self.settings, own, others=OWN)

    def _completed(self, requests: Sequence[Request]) -> list[Completion | AgentError]:
        """Completions; where requests are refused together, they are split until the one at fault stands alone."""
        if not requests:
            return []
        try:
            return [several[0] for several in self.engine.generate(requests)]
        except UserError as error:
            if len(requests) == 1:
                return [AgentError(str(error))]
            half = len(requests) // 2
            return self._completed(requests[:half]) + self._completed(requests[half:])

    def _reply(self, completion: Completion | AgentError) -> Reply | AgentError:
        self._spent.add(requests=1)
        if isinstance(completion, AgentError):
            self._spent.add(failed=1)
            return completion
        self._spent.add(prompt_tokens=completion.prompt_tokens, generated_tokens=completion.generated_tokens)
        return Reply(
            completion.text,
            completion.prompt_tokens,
            completion.generated_tokens,
            finish_reason="length" if completion.finish_reason == "length" else "stop",
        )


def _chosen(assistant: Assistant, look: Look, settings: dict[str, Any]) -> Completion:
    """The answer that the system chooses among several, or refines; its counts are those of all requests together."""
    begun = time.monotonic()
    same, engine = watched(assistant)
    return engine.account(same.answer([look], settings, 1)[0], time.monotonic() - begun)


def for_templates(messages: Sequence[Message], images: int, plain: Callable[[str], str]) -> list[Message]:
    """Messages as the chat templates want them: no system message, the two sides in turn, the user first and last.

    What the system says is put before what the user says next. Text from agents never becomes a place for an image.
    """
    turns: list[Message] = []
    for message in messages:
        role = "assistant" if message["role"] == "assistant" else "user"
        text = message["content"]
        text = plain(text).strip()
        if turns and turns[-1]["role"] == role:
            turns[-1] = {"role": role, "content": f"{turns[-1]['content']}\n{text}"}
        else:
            turns.append({"role": role, "content": text})
    if not turns or turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": ""})
    if turns[-1]["role"] == "assistant":
        turns.append({"role": "user", "content": ""})
    turns[0] = {"role": "user", "content": with_images(turns[0]["content"], images)}
    return turns
