"""A request on its way through the engine: what is known of it, and where its answers are handed out."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from .beams import BeamSearch
from .completion import Completion, EncodedImage, Piece, Request, Timings, TokenLogprob
from .params import SamplingParams
from .prefix import Symbols
from .sampling import Chances
from .streaming import TextStream, token_text


class Ticket:
    """Iterate over it for the pieces of its answers as they come; `result` waits for all of them.

    Args:
        ids: the prompt's, with `image_token_id` for each image token.
        params: with a limit of new tokens.
        candidates: ids of answers to be scored, their ends included, in place of writing any.
        stop: texts at which answers end.
        beams: the search, where there are to be beams.
        needs_library: it cannot be decoded beside others (language models whose cache is of their own kind).
        deliver: receives the pieces, and the error if one ends them, in the engine's thread; then there is nothing to iterate.
    """

    def __init__(
        self,
        request: Request,
        ids: Sequence[int],
        params: SamplingParams,
        tokenizer: Any,
        *,
        stop: Sequence[str],
        image_token_id: int,
        candidates: Sequence[Sequence[int]] = (),
        beams: BeamSearch | None = None,
        needs_library: bool = False,
        deliver: "Callable[[Piece | Exception], None] | None" = None,
    ):
        self.request, self.ids, self.params = request, list(ids), params
        self.tokenizer, self.stop, self.needs_library = tokenizer, tuple(stop), needs_library
        self.candidates, self.beams = candidates, beams
        self.images: list[EncodedImage] = []
        self.symbols: Symbols = tuple(ids)
        self.cached_tokens = 0
        self.cancelled = False
        self.timings = Timings()
        self.since = time.monotonic()
        self.chances = Chances(params) if params.samples else None
        self._image_token_id = image_token_id
        self._pieces: SimpleQueue[Piece | Exception] = SimpleQueue()
        self._deliver = deliver or self._pieces.put

    @property
    def most_new_tokens(self) -> int:
        """Where its answers are cut."""
        assert self.params.max_new_tokens is not None
        return self.params.max_new_tokens

    @property
    def answers(self) -> int:
        """How many completions will come."""
        return len(self.candidates) or self.params.n

    @property
    def rows(self) -> int:
        """How many rows it may need at once; candidates stand beside each other in one."""
        return 1 if self.candidates else max(self.params.n, self.params.num_beams)

    @property
    def most_tokens(self) -> int:
        """Of its prompt and its longest possible answer."""
        return len(self.ids) + self.most_new_tokens

    def goes_with(self, other: "Ticket") -> bool:
        """Whether the library may decode both in one batch."""
        same = replace(self.params, seed=None) == replace(other.params, seed=None)
        alike = same and not self.params.samples and self.stop == other.stop
        return self.needs_library and alike and not (self.candidates or other.candidates)

    def text_stream(self) -> TextStream:
        """What makes text of one answer's tokens."""
        return TextStream(self.tokenizer, self.stop)

    def take_images(self, images: Sequence[EncodedImage], seconds: float) -> None:
        """Its images have been encoded."""
        self.images, self.timings.image_encoding = list(images), seconds
        self.timings.waiting = time.monotonic() - self.since - seconds
        if images:
            each = self.ids.count(self._image_token_id) // len(images)
            keys = iter([image.key for image in images for _ in range(each)])
            self.symbols = tuple(next(keys) if token == self._image_token_id else token for token in self.ids)

    def counts(self) -> dict[str, Any]:
        """What a completion says of its request."""
        return {
            "prompt_tokens": len(self.ids),
            "image_tokens": self.ids.count(self._image_token_id),
            "cached_tokens": self.cached_tokens,
            "timings": replace(self.timings),
        }

    # handing out -----------------------------------------------------------------------------------------------------

    def put(self, piece: Piece) -> None:
        """Hand a piece of an answer out."""
        self._deliver(piece)

    def score(self, logprobs: Sequence[Sequence[float]]) -> None:
        """Hand the candidates out, each with the log-probabilities of its tokens."""
        self.timings.total = time.monotonic() - self.since
        for index, (ids, own) in enumerate(zip(self.candidates, logprobs, strict=True)):
            each = tuple(TokenLogprob(i, token_text(self.tokenizer, i), value) for i, value in zip(ids, own, strict=True))
            text = self.request.candidates[index]
            done = Completion(text=text, token_ids=tuple(ids), finish_reason="stop", logprobs=each, **self.counts())
            self.put(Piece(index, text, each, done))

    def fail(self, error: Exception) -> None:
        """No more will come."""
        self._deliver(error)

    def cancel(self) -> None:
        """End its answers at the next token; they come as far as they got."""
        self.cancelled = True

    def __iter__(self) -> Iterator[Piece]:
        left = self.answers
        try:
            while left:
                piece = self._pieces.get()
                if isinstance(piece, Exception):
                    raise piece
                left -= piece.completion is not None
                yield piece
        finally:  # a reader who leaves early frees the room that was taken
            if left:
                self.cancel()

    def result(self) -> list[Completion]:
        """All answers, in order."""
        done: dict[int, Completion] = {}
        for piece in self:
            if piece.completion is not None:
                done[piece.index] = piece.completion
        return [done[index] for index in sorted(done)]
