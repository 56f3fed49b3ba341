"""Answers as the official code gives them, for comparison and for published numbers: an engine of its own.

Where it differs from ours (all of it measured on the published code): what is generated begins with a second
beginning-of-sequence token, which the repetition penalty counts and which is returned; stop sequences end a batch only when
all rows end with the same one at once; a prompt that leaves no room is cut at its left end, whatever stands there; and
sampling looks at the 50 likeliest tokens unless told otherwise.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, RepetitionPenaltyLogitsProcessor, StoppingCriteria, StoppingCriteriaList

from ..errors import UserError
from ..model.legacy_llama_tokenizer import use_official_pad
from ..model.modeling import MiniGPT4ForConditionalGeneration
from ..model.processing import MiniGPT4Processor
from ..prompt.templates import PLACEHOLDER
from .completion import Completion, Piece, Request
from .engine import Engine
from .images import Disk
from .params import SamplingParams
from .sampling import random_numbers

TOP_K = 50  # the library's default of that time
MAX_LENGTH = 2000  # of the published chat, prompt and answer together


class OfficialEngine(Engine):
    """Answers as the official chat does. Batches are decoded to their end together, and nothing is streamed by pieces."""

    def __init__(self, model: MiniGPT4ForConditionalGeneration, processor: MiniGPT4Processor, disk: Disk | None = None):
        super().__init__(model, processor, disk=disk)
        use_official_pad(processor.tokenizer)

    def params(self, *layers: Mapping[str, Any]) -> SamplingParams:
        """Sampling parameters of the layers alone: the official chat does not look at the language model's own."""
        return SamplingParams.from_settings(*layers).with_room(self.most_new_tokens)

    def plain(self, text: str) -> str:
        """As it is: the official chat reads special texts wherever they stand. Only places for images are the program's."""
        return text.replace(PLACEHOLDER, f"{PLACEHOLDER[0]} {PLACEHOLDER[1:]}")

    def generate(self, requests: Iterable[Request], batch_size: int | None = None) -> list[list[Completion]]:
        """The answers to each request, in order; those of a batch with the same parameters stop together."""
        done: list[list[Completion]] = []
        size = self.at_a_time(batch_size)
        for params, some in groupby(requests, lambda request: request.params.with_room(self.most_new_tokens)):
            alike = list(some)
            for first in range(0, len(alike), size):
                done += [[one] for one in self._batch(alike[first : first + size], params)]
        return done

    def stream(self, request: Request) -> Iterator[Piece]:
        """The answer, in one piece."""
        (done,) = self.generate([request])[0]
        yield Piece(0, done.text, completion=done)

    @torch.inference_mode()
    def _batch(self, requests: Sequence[Request], params: SamplingParams) -> list[Completion]:
        if any(request.candidates for request in requests):
            raise UserError("official behaviour ranks candidates by `evaluate`, not by single requests")
        for name, plain in (("n", 1), ("logprobs", None), ("stop", ()), ("min_new_tokens", 0), ("no_repeat_ngram_size", 0)):
            if getattr(params, name) != plain:
                raise UserError(f"official behaviour with {name} is not offered")
        prompts = [self.processor.prompt_ids(request.messages, official=True) for request in requests]
        images = [image.embeds for request in requests for image in self.encode(request.images)]
        settings: dict[str, Any] = {"max_new_tokens": params.max_new_tokens, "repetition_penalty": params.repetition_penalty}
        if params.samples:
            settings |= {"do_sample": True, "temperature": params.temperature, "top_p": params.top_p}
            settings |= {"top_k": params.top_k} if params.top_k else {}
        if params.num_beams > 1:
            settings |= {"num_beams": params.num_beams, "length_penalty": params.length_penalty}
        tokenizer = self.processor.tokenizer
        with random_numbers(params.seed):
            ids = generate_official(
                self.model,
                **{k: v.to(self.model.device) for k, v in self.processor.pad(prompts).items()},
                image_embeds=torch.stack(images) if images else None,
                stop_sequences=stop_sequences(tokenizer, self.processor.chat.stop),
                max_length=MAX_LENGTH,
                **settings,
            )
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [
            Completion(
                text=chat_text(text),
                token_ids=tuple(row.tolist()),
                finish_reason="length" if len(row) > (params.max_new_tokens or 0) else "stop",
                prompt_tokens=len(prompt),
                image_tokens=prompt.count(self.processor.image_token_id),
            )
            for text, row, prompt in zip(texts, ids, prompts, strict=True)
        ]


class StopTogether(StoppingCriteria):
    """Ends a batch when all its rows end with the same one of some sequences of ids at once."""

    def __init__(self, sequences: Sequence[Sequence[int]]):
        self.sequences = [torch.tensor(sequence) for sequence in sequences]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        tails = [(input_ids[:, -len(s) :], s.to(input_ids.device)) for s in self.sequences]
        done = any(tail.shape[1] == len(s) and bool((tail == s).all()) for tail, s in tails)
        return torch.full((len(input_ids),), done, device=input_ids.device)


def generate_official(
    model: MiniGPT4ForConditionalGeneration,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    image_embeds: torch.Tensor | None = None,
    *,
    stop_sequences: Sequence[Sequence[int]] = (),
    max_length: int | None = None,
    **settings,
) -> torch.Tensor:
    """Ids as the published `generate` returns them: (B, 1 + new), the first column the beginning-of-sequence token.

    Args:
        input_ids: (B, S) from `MiniGPT4Processor.prompt_ids` with ``official=True``.
        stop_sequences: ids; see `StopTogether`.
        max_length: of prompt and answer; what is too much of the prompt is cut off at the left.
        settings: of `transformers` generation; what is not given is the library's default, not the system's.
    """
    embeds, mask = embed_official(model, input_ids, attention_mask, image_embeds, max_length, settings["max_new_tokens"])
    if settings.get("num_beams", 1) > 1:
        rows = [_beams(model, e[m.bool()], stop_sequences, **settings) for e, m in zip(embeds, mask, strict=True)]
        ends = [row + [settings.get("pad_token_id", 0)] * (max(map(len, rows)) - len(row)) for row in rows]
        return torch.tensor(ends, device=embeds.device)
    settings = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "top_k": TOP_K, "pad_token_id": 0} | settings
    if not settings["do_sample"]:
        settings.pop("top_k")
    if stop_sequences:
        settings["stopping_criteria"] = StoppingCriteriaList([StopTogether(stop_sequences)])
    begin = torch.full((len(embeds), 1), model.generation_config.bos_token_id, device=embeds.device)
    return model.generate(inputs_embeds=embeds, attention_mask=mask, input_ids=begin, **settings)


@torch.no_grad()
def _beams(
    model: MiniGPT4ForConditionalGeneration,
    embeds_SH: torch.Tensor,
    stop_sequences: Sequence[Sequence[int]],
    *,
    num_beams: int,
    max_new_tokens: int,
    length_penalty: float = 1.0,
    repetition_penalty: float = 1.0,
    do_sample: bool = False,
    **_: object,
) -> list[int]:
    """Beam search of one row by the rules of that time: a beam's length counts its beginning-of-sequence token, so that
    beams that are cut by the limit weigh against finished ones a little differently from today."""
    if do_sample:
        raise UserError("published behaviour with both beams and sampling is not offered; use one of them")
    llm, special = model.language_model, model.generation_config
    penalty, stop = RepetitionPenaltyLogitsProcessor(repetition_penalty), StopTogether(stop_sequences)
    out = llm(inputs_embeds=embeds_SH[None].repeat(num_beams, 1, 1), use_cache=True)
    ids = torch.full((num_beams, 1), special.bos_token_id, device=embeds_SH.device)
    scores = torch.tensor([0.0] + [-1e9] * (num_beams - 1), device=ids.device)
    finished: list[tuple[float, list[int]]] = []

    def keep(beam: torch.Tensor, score: float) -> None:
        finished.append((score / len(beam) ** length_penalty, beam.tolist()))
        finished.sort(key=lambda entry: entry[0])
        del finished[:-num_beams]

    for _step in range(max_new_tokens):
        logp_KV = penalty(ids, torch.log_softmax(out.logits[:, -1].float(), -1)) + scores[:, None]
        best, flat = logp_KV.flatten().topk(2 * num_beams)
        came, word = flat // logp_KV.shape[1], flat % logp_KV.shape[1]
        going = []
        for rank in range(2 * num_beams):
            if word[rank] != special.eos_token_id:
                going.append(rank)
            elif rank < num_beams:
                keep(ids[came[rank]], best[rank].item())
            if len(going) == num_beams:
                break
        attainable = best[0].item() / (ids.shape[1] + 1) ** length_penalty
        done = len(finished) == num_beams and finished[0][0] >= attainable
        scores, parents = best[going], came[going]
        ids = torch.cat([ids[parents], word[going, None]], 1)
        if done or stop(ids, scores).all():
            break
        out.past_key_values.reorder_cache(parents)
        out = llm(input_ids=ids[:, -1:], past_key_values=out.past_key_values, use_cache=True)
    else:
        done = False
    if not done:
        for beam, score in zip(ids, scores, strict=True):
            keep(beam, score.item())
    chosen = finished[-1][1]
    return [*chosen, special.eos_token_id] if len(chosen) < max_new_tokens + 1 else chosen


def embed_official(
    model: MiniGPT4ForConditionalGeneration,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    image_embeds: torch.Tensor | None,
    max_length: int | None,
    max_new_tokens: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings (B, S, H) and mask (B, S) of prompts, cut at the left to at most ``max_length - max_new_tokens``."""
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    embeds = model.embed(input_ids, image_embeds)
    if max_length is not None:
        first = max(0, embeds.shape[1] + max_new_tokens - max_length)
        embeds, mask = embeds[:, first:], mask[:, first:]
    return embeds, mask


def stop_sequences(tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> list[list[int]]:
    """Ids of stop texts, each as it is written at a beginning and after other text, and the end of sequence.

    For ``###`` and the released vocabulary: 835, and 2277 29937.
    """
    found = [[tokenizer.eos_token_id]]
    for text in stop:
        alone = tokenizer(text, add_special_tokens=False)["input_ids"]
        before = tokenizer("a", add_special_tokens=False)["input_ids"]
        glued = tokenizer(f"a{text}", add_special_tokens=False)["input_ids"][len(before) :]
        found += [alone, glued]
    return found


def chat_text(text: str) -> str:
    """An answer as the published chat trims it."""
    return text.split("###")[0].split("Assistant:")[-1].strip()


def batch_text(text: str) -> str:
    """An answer as the published evaluation trims it."""
    return text.split("</s>")[0].replace("<s>", "").split("[/INST]")[-1].strip()
