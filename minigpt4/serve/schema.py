"""What requests may say. Types are strict, nothing unknown is let through, and ``null`` means: not given."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MOST_N = 16


class Strict(BaseModel):
    """A part of a request."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, data: Any) -> Any:
        """Clients send back what they were given, with a null for all that was not there."""
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


class TextPart(Strict):
    """Text within a message."""

    type: Literal["text"]
    text: str


class ImageUrl(Strict):
    """Where an image is: a data URI, or an address where the server allows it."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(Strict):
    """An image within a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class UserMessage(Strict):
    """What a person says, with images."""

    role: Literal["user"]
    content: str | list[Part] = Field(min_length=1)


class AssistantMessage(Strict):
    """What the system said before."""

    role: Literal["assistant"]
    content: str | list[TextPart]


ChatMessage = Annotated[UserMessage | AssistantMessage, Field(discriminator="role")]


class StreamOptions(Strict):
    """How an answer is streamed."""

    include_usage: bool = False


class ResponseFormat(Strict):
    """The form of an answer: text alone."""

    type: str

    @field_validator("type")
    @classmethod
    def _text(cls, value: str) -> str:
        if value != "text":
            raise ValueError("only text is supported: this system does not constrain its answers to a form")
        return value


class Sampling(Strict):
    """How an answer is decoded: OpenAI's parameters, and further ones of ours with the names of `SamplingParams`."""

    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    top_k: int | None = Field(None, ge=0, le=1_000_000)
    min_new_tokens: int | None = Field(None, ge=0, le=1_000_000)
    repetition_penalty: float | None = Field(None, gt=0, le=100, allow_inf_nan=False)
    no_repeat_ngram_size: int | None = Field(None, ge=0, le=1_000_000)
    num_beams: int | None = Field(None, ge=1, le=MOST_N)
    length_penalty: float | None = Field(None, ge=-10, le=10, allow_inf_nan=False)
    self_consistency: int | None = Field(None, ge=1, le=64)
    mirrored: bool | None = None
    zoom_in: bool | None = None

    def decoding(self) -> dict[str, Any]:
        """What was given of it, for the engine. At temperature 0 the likeliest token is taken, which every `top_p` and `top_k`
        lets through: they change nothing there."""
        given = {name: getattr(self, name) for name in Sampling.model_fields if getattr(self, name) is not None}
        if given.get("temperature") == 0:
            given.pop("top_p", None)
            given.pop("top_k", None)
        return given


class ChatRequest(Sampling):
    """``POST /v1/chat/completions``."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=1000)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(1, ge=1, le=MOST_N)
    stop: str | list[str] | None = Field(None, max_length=4)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    max_completion_tokens: int | None = Field(None, ge=1, le=1_000_000)
    response_format: ResponseFormat | None = None
    # Parameters of OpenAI's that are taken as far as they ask for what is done anyway.
    frequency_penalty: float | None = Field(None, ge=0, le=0)
    presence_penalty: float | None = Field(None, ge=0, le=0)
    modalities: list[Literal["text"]] | None = None
    store: Literal[False] | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _stops(cls, value: Any) -> Any:
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, list) and not all(isinstance(text, str) and 0 < len(text) <= 200 for text in texts):
            raise ValueError("must be a text, or at most 4, each of 1 to 200 characters")
        return texts

    @model_validator(mode="after")
    def _together(self) -> "ChatRequest":
        if self.messages[-1].role != "user":
            raise ValueError("the last of the messages must be the user's")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options goes with stream: true")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs goes with logprobs: true")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens are the same; give one of them")
        return self

    def decoding(self) -> dict[str, Any]:
        given = super().decoding()
        most = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        if most is not None:
            given["max_new_tokens"] = most
        if self.stop:
            given["stop"] = self.stop
        if self.logprobs:
            given["logprobs"] = self.top_logprobs or 0
        return given
