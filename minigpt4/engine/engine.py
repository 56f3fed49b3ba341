"""The engine: requests in, completions out. Everything that generates goes through it.

It knows requests and tokens; questions, tasks, boxes and pages are its callers' business.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from ..errors import UserError
from ..media.images import ImageInput
from ..model.modeling import MiniGPT4ForConditionalGeneration
from ..model.processing import MiniGPT4Processor
from ..prompt.history import fitting_ids
from ..prompt.templates import Message
from .backend import Backend, TorchBackend, has_plain_cache
from .beams import BeamSearch
from .completion import Completion, EncodedImage, Piece, Request
from .defaults import Defaults
from .images import Disk, ImageCache
from .limits import Limits, Stats
from .params import SamplingParams
from .sampling import random_numbers
from .scheduler import Scheduler
from .scoring import whole_logprobs
from .stopping import StopAtText, StopWhenCancelled
from .streaming import cut_at, ends_at_text
from .ticket import Ticket


class Engine:
    """Answers requests to one model, many at a time (continuous batching).

    Args:
        limits: how much it takes on at once.
        backend: computes the language model; torch when not given.
        disk: keeps encoded images for other processes.
    """

    def __init__(
        self,
        model: MiniGPT4ForConditionalGeneration,
        processor: MiniGPT4Processor,
        limits: Limits = Limits(),
        backend: Backend | None = None,
        disk: Disk | None = None,
    ):
        self.model, self.processor, self.limits = model, processor, limits
        self.backend: Backend = TorchBackend(model) if backend is None else backend
        self.images = ImageCache(self.backend.image_features, processor, limits.image_bytes, disk)
        self._plain = has_plain_cache(model.language_model)
        self._end_ids = self.defaults.end_ids
        self._scheduler = Scheduler(self.backend, self.images, limits, self._end_ids, self._with_library)

    # parameters ------------------------------------------------------------------------------------------------------

    @property
    def defaults(self) -> Defaults:
        """What the system says of decoding."""
        return Defaults.of(self.model.generation_config, self.model.config.text_config)

    def params(self, *layers: Mapping[str, Any]) -> SamplingParams:
        """Sampling parameters: the system's (generation_config.json), then each layer of settings, the most important last."""
        return self.defaults.params(*layers)

    def plain(self, text: str) -> str:
        """What people, or the model before, have said: as it may be said in a message (`MiniGPT4Processor.plain`)."""
        return self.processor.plain(text)

    @property
    def context(self) -> int:
        """How many tokens the language model can look back on."""
        return self.defaults.context

    @property
    def most_new_tokens(self) -> int:
        """How long an answer may get where nothing is said (`Defaults.most_new_tokens`)."""
        return self.defaults.most_new_tokens

    # requests --------------------------------------------------------------------------------------------------------

    def encode(self, images: Sequence[ImageInput | EncodedImage]) -> list[EncodedImage]:
        """Images as the language model receives them. A request that names one of these needs not open it again.

        Raises:
            UserError: an image that cannot be opened.
        """
        return self.images.encode(images)

    def generate(self, requests: Iterable[Request], batch_size: int | None = None) -> list[list[Completion]]:
        """The answers to each request, in order.

        Args:
            batch_size: how many requests are on their way at a time; as many as the engine takes when not given.

        Raises:
            UserError: of the first request that cannot be answered, and what comes after it is cancelled; or `batch_size` is no
                number of requests.
        """
        most = min(self.at_a_time(batch_size), self.limits.waiting)
        done: list[list[Completion]] = []
        going: deque[Ticket] = deque()
        try:
            for request in requests:
                if len(going) >= most:
                    done.append(going.popleft().result())
                going.append(self.submit(request))
            while going:
                done.append(going.popleft().result())
        finally:
            for ticket in going:
                ticket.cancel()
        return done

    def at_a_time(self, batch_size: int | None) -> int:
        """How many requests are to be on their way at a time.

        Raises:
            UserError: a number that is none of requests.
        """
        if batch_size is None:
            return self.limits.rows
        if not isinstance(batch_size, int) or batch_size < 1:
            raise UserError(f"batch_size must be at least 1, not {batch_size!r}")
        return batch_size

    def stream(self, request: Request) -> Iterator[Piece]:
        """One request's answers, piece by piece; who stops reading cancels them.

        Raises:
            UserError: beams, which are chosen at the end.
        """
        if request.params.num_beams > 1:
            raise UserError("beam search cannot be streamed: leave out num_beams, or ask without streaming")
        return iter(self.submit(request))

    def score(self, request: Request) -> list[Completion]:
        """A request's candidates in order, each with its log-probability, its end included (`Completion.logprob`); the
        prompt is read once.

        Raises:
            UserError: no candidates, or what `submit` refuses.
        """
        if not request.candidates:
            raise UserError("there are no candidates to score")
        return self.generate([request])[0]

    def submit(self, request: Request, deliver: Callable[[Piece | Exception], None] | None = None) -> Ticket:
        """Queue a request; its answers come through the ticket.

        Args:
            deliver: receives them instead, in the engine's thread, which waits for it: for event loops, where no thread waits
                for a ticket. It must not raise.

        Raises:
            UserError: a prompt that leaves no room for an answer in the model's context, or images that differ in number from
                their places in it; log-probabilities of a language model that the library decodes.
            EngineFull: too many requests are waiting.
        """
        if request.params.logprobs is not None and not self._plain:
            raise UserError("log-probabilities are not given for this language model: leave logprobs out")
        candidates = [self.processor.answer_ids(text) for text in request.candidates]
        params = request.params.with_room(max(map(len, candidates), default=self.most_new_tokens))
        ids = self.prompt_ids(request.messages, params.max_new_tokens or 1)
        each = self.processor.num_image_tokens
        places = ids.count(self.processor.image_token_id) / each
        if places != len(request.images):
            raise UserError(f"the messages have places for {places:g} image(s), but {len(request.images)} were given")
        ticket = Ticket(
            request,
            ids,
            params,
            self.processor.tokenizer,
            stop=(*self.processor.chat.stop, *params.stop),
            image_token_id=self.processor.image_token_id,
            candidates=candidates,
            beams=self._beams(params) if self._plain and params.num_beams > 1 else None,
            needs_library=not self._plain,
            deliver=deliver,
        )
        self._scheduler.submit(ticket)
        return ticket

    def _beams(self, params: SamplingParams) -> BeamSearch:
        stop = (*self.processor.chat.stop, *params.stop)
        at_text = ends_at_text(self.processor.tokenizer, stop) if stop else None
        return BeamSearch(params, self._end_ids, at_text, self.defaults.early_stopping)

    @property
    def stats(self) -> Stats:
        """What it has done so far, and what it is doing."""
        return self._scheduler.stats

    def close(self) -> None:
        """Cancel what is running and end."""
        self._scheduler.close()

    def prompt_ids(self, messages: Sequence[Message], new: int) -> list[int]:
        """A prompt's ids, as `prompt.history.fitting_ids` makes them fit."""
        return fitting_ids(messages, self.processor.prompt_ids, new, self.context)

    # what the library decodes -----------------------------------------------------------------------------------------

    def _with_library(self, tickets: Sequence[Ticket]) -> None:
        """Answer tickets that go together by `transformers` generation: of models with a cache of their own kind."""
        self.backend.complete()
        params = tickets[0].params
        if tickets[0].candidates:
            (ticket,) = tickets
            known = torch.stack([image.embeds for image in ticket.images]) if ticket.images else None
            prompt = self.model.embed(torch.tensor([ticket.ids], device=self.model.device), known)[0]
            ticket.score(whole_logprobs(self.model, prompt, ticket.candidates, self.limits.prefill))
            return
        rows = self.processor.pad([ticket.ids for ticket in tickets])
        images = [image.embeds for ticket in tickets for image in ticket.images]
        settings: dict[str, Any] = {
            "max_new_tokens": params.max_new_tokens,
            "min_new_tokens": params.min_new_tokens or None,
            "do_sample": params.samples,
            "num_beams": params.num_beams,
            "num_return_sequences": params.n,
            "length_penalty": params.length_penalty,
            "repetition_penalty": params.repetition_penalty,
            "no_repeat_ngram_size": params.no_repeat_ngram_size,
        }
        if params.samples:
            settings |= {"temperature": params.temperature, "top_p": params.top_p, "top_k": params.top_k}
        cancelled = StopWhenCancelled(lambda: [ticket.cancelled for ticket in tickets])
        settings["stopping_criteria"] = [cancelled]
        if tickets[0].stop:
            settings["stopping_criteria"].append(StopAtText(self.processor.tokenizer, tickets[0].stop))
        with random_numbers(params.seed):
            ids = self.model.generate(
                **{k: v.to(self.model.device) for k, v in rows.items()},
                image_embeds=torch.stack(images) if images else None,
                **settings,
            )
        for number, row in enumerate(ids.tolist()):
            length = None if params.num_beams > 1 else cancelled.lengths.get(number)  # beams change places
            self._hand_out(tickets[number // params.n], number % params.n, row[:length])

    def _hand_out(self, ticket: Ticket, index: int, ids: list[int]) -> None:
        tokenizer = self.processor.tokenizer
        end = next((place for place, token in enumerate(ids) if token in self._end_ids), None)
        if end is None:  # ended by a stop text or cancelled while others went on: what was put behind it is no answer
            end = max((place for place, token in enumerate(ids) if token != tokenizer.pad_token_id), default=-1)
            reason = "cancelled" if ticket.cancelled else "length"
        else:
            reason = "stop"
        kept = ids[: end + 1]
        text = tokenizer.decode(kept, skip_special_tokens=True)
        cut = cut_at(text, ticket.stop)
        reason = "stop" if cut != text else reason
        self.stats.cancelled += reason == "cancelled"
        ticket.timings.total = time.monotonic() - ticket.since
        done = Completion(text=cut.strip(), token_ids=tuple(kept), finish_reason=reason, **ticket.counts())  # type: ignore[arg-type]
        ticket.put(Piece(index, done.text, completion=done))
