"""``POST /v1/decisions``: answers that are given beforehand, each with its probability; nothing is written.

Each question is read once, behind images and text that are read once for all of them, and the answers beside each other behind
it. Probabilities are those of the language model for the whole answer, shared among the answers of the question.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response
from pydantic import Field, StrictBool, StrictStr, field_validator, model_validator

from ..engine.completion import Completion, Request
from ..inference.choice import Score, scores
from ..prompt.templates import Message
from .answering import Answering, while_connected
from .conversation import Conversation, conversation
from .errors import ApiError
from .metrics import Metrics
from .responses import Item, as_messages
from .schema import Strict
from .settings import Allowed

MOST_QUESTIONS, MOST_CHOICES = 400, 255
_AT_A_TIME = 16  # questions of one request in the engine
_STATEMENT = "Based on the image, is this statement true or false? "  # as MiniGPT-v2 was asked about VSR


class InstructionPart(Strict):
    """Text of a question."""

    type: Literal["input_text"]
    text: str


class Question(Strict):
    """What all questions have."""

    name: str | None = Field(None, max_length=200)
    instructions: str | list[InstructionPart] = Field(min_length=1)

    @property
    def text(self) -> str:
        """What is asked."""
        given = self.instructions
        return (given if isinstance(given, str) else " ".join(part.text for part in given)).strip()

    @field_validator("instructions")
    @classmethod
    def _words(cls, value: Any) -> Any:
        if not (value if isinstance(value, str) else "".join(part.text for part in value)).strip():
            raise ValueError("is empty")
        return value


class Predicate(Question):
    """Whether a statement is true, or a question (which ends with a question mark) is to be answered with yes."""

    type: Literal["predicate"]

    def asked(self) -> tuple[str, list[str]]:
        """The question, and the answers among which it decides."""
        if self.text.endswith("?"):
            return self.text, ["yes", "no"]
        task, rest = ("[vqa] ", self.text[5:].lstrip()) if self.text.startswith("[vqa]") else ("", self.text)
        return f"{task}{_STATEMENT}{rest}", ["true", "false"]

    def answer(self, found: Sequence[Score]) -> dict[str, Any]:
        """As JSON."""
        return {"type": "predicate", "name": self.name, "probability": found[0].probability}


class Option(Strict):
    """One of the answers."""

    value: StrictStr | StrictBool

    @property
    def text(self) -> str:
        """The answer in words."""
        return self.value if isinstance(self.value, str) else ("yes" if self.value else "no")


class Choice(Question):
    """Which of several answers."""

    type: Literal["choice"]
    choices: list[Option] = Field(min_length=2, max_length=MOST_CHOICES)

    @field_validator("choices")
    @classmethod
    def _distinct(cls, value: list[Option]) -> list[Option]:
        return _checked(value, [option.text for option in value])

    def asked(self) -> tuple[str, list[str]]:
        """The question, and the answers among which it decides."""
        return self.text, [option.text for option in self.choices]

    def answer(self, found: Sequence[Score]) -> dict[str, Any]:
        """As JSON."""
        shares = [score.probability for score in found]
        best = max(range(len(shares)), key=shares.__getitem__)
        listed = [{"value": one.value} | _likelihood(score) for one, score in zip(self.choices, found, strict=True)]
        head = {"type": "choice", "name": self.name, "choice": self.choices[best].value, "confidence": shares[best]}
        return head | {"probabilities": listed}


class Level(Strict):
    """One step of a scale."""

    label: str


class Scale(Question):
    """Where on a scale, from its lowest level on."""

    type: Literal["score"]
    levels: list[Level] = Field(min_length=2, max_length=MOST_CHOICES)

    @field_validator("levels")
    @classmethod
    def _distinct(cls, value: list[Level]) -> list[Level]:
        return _checked(value, [level.label for level in value])

    def asked(self) -> tuple[str, list[str]]:
        """The question, and the answers among which it decides."""
        return self.text, [level.label for level in self.levels]

    def answer(self, found: Sequence[Score]) -> dict[str, Any]:
        """As JSON: levels count from 0, and the score is their mean."""
        shares = [score.probability for score in found]
        listed = [
            {"label": level.label, "value": value} | _likelihood(score)
            for value, (level, score) in enumerate(zip(self.levels, found, strict=True))
        ]
        mean = sum(value * share for value, share in enumerate(shares))
        head = {"type": "score", "name": self.name, "score": mean, "confidence": max(shares)}
        return head | {"probabilities": listed}


def _likelihood(score: Score) -> dict[str, Any]:
    """Of one answer. Beside its share, what a mean over its tokens is made of: benchmarks go by that."""
    return {"probability": score.probability, "logprob": score.logprob, "tokens": score.tokens}


def _checked(value: Any, texts: Sequence[str]) -> Any:
    if not all(text.strip() for text in texts):
        raise ValueError("one of them is empty")
    if len(set(texts)) < len(texts):
        raise ValueError("two of them are the same words (true is asked for as yes, false as no)")
    return value


class DecisionsRequest(Strict):
    """``POST /v1/decisions``."""

    model: str
    input: str | list[Item] = Field(min_length=1)
    questions: list[Annotated[Predicate | Choice | Scale, Field(discriminator="type")]] = Field(
        min_length=1, max_length=MOST_QUESTIONS
    )

    @model_validator(mode="after")
    def _names(self) -> "DecisionsRequest":
        names = [question.name for question in self.questions if question.name is not None]
        if len(set(names)) < len(names):
            raise ValueError("two of the questions have the same name")
        return self


async def decisions(
    http: HttpRequest, asked: DecisionsRequest, model: str, answering: Answering, allowed: Allowed, metrics: Metrics
) -> Response:
    """Answer all questions."""
    begun, plain = time.monotonic(), answering.assistant.engine.plain
    length = sum(len(text) for question in asked.questions for text in (question.text, *question.asked()[1]))
    if length > allowed.text_characters:
        text = f"questions: {length:,} characters are more than the {allowed.text_characters:,} allowed"
        raise ApiError(400, text, param="questions", code="context_length_exceeded")
    said = await answering.in_thread(lambda: conversation(as_messages(asked.input), allowed, plain, "input"))
    done = await while_connected(http, answering, _all(said, asked.questions, answering))
    metrics.finished([each[0] for each in done])
    answers = [question.answer(scores(each, question.asked()[1])) for question, each in zip(asked.questions, done, strict=True)]
    total = {"timings": {"total_ms": round((time.monotonic() - begun) * 1000, 2)}}
    return JSONResponse({"model": model, "answers": answers, "usage": _usage(done)} | total)


async def _all(
    said: Conversation, questions: Sequence[Predicate | Choice | Scale], answering: Answering
) -> list[list[Completion]]:
    """Each question's answers, scored. The first question goes ahead: the others find the images read."""
    engine, room = answering.assistant.engine, asyncio.Semaphore(_AT_A_TIME)
    images = await answering.in_thread(lambda: answering.shrunk(said.images))

    async def one(question: Predicate | Choice | Scale) -> list[Completion]:
        text, candidates = question.asked()
        request = Request(
            messages=_with(said.messages, engine.plain(text)),
            images=images,
            candidates=[engine.plain(candidate) for candidate in candidates],
        )
        async with room, await answering.ask(request) as pieces:
            found = {piece.index: piece.completion async for piece in pieces if piece.completion is not None}
        return [found[index] for index in sorted(found)]

    first = await one(questions[0])
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(question)) for question in questions[1:]]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [first, *(task.result() for task in tasks)]


def _with(messages: Sequence[Message], question: str) -> list[Message]:
    """The conversation with a question at its end."""
    *before, last = messages
    if last["role"] == "assistant":
        return [*messages, {"role": "user", "content": question}]
    return [*before, last | {"content": f"{last['content']} {question}".strip()}]


def _usage(done: Sequence[Sequence[Completion]]) -> dict[str, Any]:
    """Counts of tokens: prompts, and the answers that were read; none is written."""
    read = sum(each[0].prompt_tokens + sum(one.generated_tokens for one in each) for each in done)
    known = sum(each[0].cached_tokens for each in done)
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": known, "cache_write_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read,
    }
