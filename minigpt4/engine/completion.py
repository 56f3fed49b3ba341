"""What goes into the engine and what comes out: a request, and a completion of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import UserError
from ..media.images import ImageInput
from ..prompt.templates import Message
from .params import SamplingParams

FinishReason = Literal["stop", "length", "cancelled"]


class EngineFull(UserError):
    """The queue of waiting requests is full: try again later."""


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image as the language model receives it.

    Args:
        key: digest of its pixels.
        embeds: (K, H), a tensor; an array of numpy where nothing needs torch (`inference.quick`).
    """

    key: str
    embeds: Any


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """A conversation that the assistant is to go on with.

    Args:
        messages: the last one is the user's; images stand in them as `prompt.templates.IMAGE`. Text from people must have gone
            through `MiniGPT4Processor.plain`, so that it never becomes a place for an image.
        images: in order of their places.
        params: how it is decoded; what it leaves open is as the system says.
        candidates: answers that are given; each is scored, in place of one being written. Text from people must be `plain` here
            too.
    """

    messages: Sequence[Message]
    images: Sequence[ImageInput | EncodedImage] = ()
    params: SamplingParams = field(default_factory=SamplingParams)
    candidates: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.candidates:
            if isinstance(self.candidates, str):
                raise UserError("candidates must be a list of texts")
            if self.params != SamplingParams():
                raise UserError("candidates are scored as they stand: settings of decoding do not go with them")


@dataclass(frozen=True)
class TokenLogprob:
    """A token of an answer, its log-probability before temperature and penalties, and the likeliest tokens in its place.

    `token` is what it adds to the answer's text: nothing, if it is the end of a sequence.
    """

    token_id: int
    token: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass
class Timings:
    """Seconds that a request took, by part."""

    waiting: float = 0.0
    image_encoding: float = 0.0
    prefill: float = 0.0
    first_token: float = 0.0
    """From the request to its first token."""
    total: float = 0.0

    @property
    def decoding(self) -> float:
        """From the first token to the last."""
        return max(self.total - self.first_token, 0.0)


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One answer to a request.

    Args:
        text: without the end, stop texts and blanks around it.
        token_ids: as generated, the end included.
        finish_reason: ``stop`` at an end of sequence or a stop text, ``length`` at the limit, ``cancelled``.
        prompt_tokens: of the whole prompt; `image_tokens` of them stand for images, `cached_tokens` were known from earlier.
        logprobs: one a token of the answer, where asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int = 0
    image_tokens: int = 0
    cached_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] | None = None
    timings: Timings = field(default_factory=Timings)

    @property
    def generated_tokens(self) -> int:
        """Tokens of the answer."""
        return len(self.token_ids)

    @property
    def logprob(self) -> float:
        """Log-probability of the whole answer, its end included; of candidates, and where log-probabilities were asked for."""
        assert self.logprobs is not None
        return sum(one.logprob for one in self.logprobs)


@dataclass(frozen=True)
class Piece:
    """Something new of answer number `index`: text, tokens that came with it, or its end."""

    index: int
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    completion: Completion | None = None
