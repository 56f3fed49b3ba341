"""One question about images, answered without torch and `transformers` from what was prepared for ONNX Runtime.

Importing those two, and building a model with them, is most of the time from Enter to the first word. They are needed for much
(training, GPUs, beams, sampling, conversations), but not for the likeliest answer to one question.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.onnx_graph import GRAPH
from ..checkpoints.onnx_parts import EMBEDDINGS, prepared_folder
from ..checkpoints.pocket import FOLDERS
from ..engine.defaults import Defaults
from ..engine.limits import Limits, out_of_memory
from ..engine.onnx_session import LanguageModelSession, session
from ..engine.params import SamplingParams
from ..engine.streaming import TextStream
from ..errors import UserError
from ..io.cores import usable_cores
from ..io.gpu import may_have_gpu
from ..media.images import ImageInput, open_image
from ..media.pixels import normalised, resized
from ..prompt.history import too_long
from ..prompt.ids import plain, prompt_ids, special_pattern, text_ids
from ..prompt.templates import TEMPLATES, ChatTemplate, with_images
from .answer import Answer
from .backend_choice import choose
from .task_settings import Plan, check_task_settings, plan_of

VISION, TOKENIZER, FACTS = "vision.onnx", "tokenizer.json", "system.json"


@dataclass(frozen=True)
class Facts:
    """What is to be known of a system beside its graphs and its tokenizer.

    Args:
        size, mean, std: of the vision encoder's images.
        template: name of the chat template.
        special: texts that people cannot say (`MiniGPT4Processor.special_texts`).
        fits: whether ``auto`` takes ONNX Runtime for it.
    """

    size: int
    mean: Sequence[float]
    std: Sequence[float]
    template: str
    num_image_tokens: int
    image_token_id: int
    bos: int | None
    extra_bos: bool
    special: Sequence[str]
    defaults: Defaults
    task_settings: Mapping[str, Mapping[str, Any]]
    fits: bool

    def write(self, file: Path) -> None:
        """Into a file, from which `read` gets the same."""
        written = asdict(self)
        written["defaults"]["end_ids"] = sorted(self.defaults.end_ids)
        file.write_text(json.dumps(written, indent=1), encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> "Facts":
        """From a file that `write` wrote."""
        written = json.loads(file.read_text(encoding="utf-8"))
        written["defaults"]["end_ids"] = frozenset(written["defaults"]["end_ids"])
        return cls(**written | {"defaults": Defaults(**written["defaults"])})


def write(folder: Path, model: Any, processor: Any, task_settings: Mapping[str, Mapping[str, Any]], fits: bool) -> None:
    """Put into a folder that is being prepared what `quick` takes beside the language model; nothing for a system that it
    cannot answer for.

    Args:
        model: the whole one, in torch. processor: its `MiniGPT4Processor`.
    """
    from ..checkpoints.onnx_vision import has_vision_graph, write_vision

    tokenizer = processor.tokenizer
    if not (has_vision_graph(model.config) and processor.template in TEMPLATES and _is_plain(tokenizer)):
        return
    write_vision(model, folder / VISION)
    written = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    (folder / TOKENIZER).write_text(json.dumps(written, ensure_ascii=False), encoding="utf-8")
    images = processor.image_processor
    Facts(
        size=images.size,
        mean=images.image_mean,
        std=images.image_std,
        template=processor.template,
        num_image_tokens=processor.num_image_tokens,
        image_token_id=processor.image_token_id,
        bos=tokenizer.bos_token_id,
        extra_bos=processor.extra_bos,
        special=processor.special_texts,
        defaults=Defaults.of(model.generation_config, model.config.text_config),
        task_settings=task_settings,
        fits=fits,
    ).write(folder / FACTS)


def _is_plain(tokenizer: Any) -> bool:
    """Whether a tokenizer of `transformers` does what its file does without that library, and nothing more."""
    from transformers import PreTrainedTokenizerFast as Plain

    own = [name for name in ("_encode_plus", "_decode") if getattr(type(tokenizer), name, None) is not getattr(Plain, name)]
    return not (own or tokenizer.clean_up_tokenization_spaces or getattr(tokenizer, "split_special_tokens", False))


def quick(
    source: str | os.PathLike,
    question: str,
    settings: Mapping[str, Any],
    *,
    dtype: str | None = None,
    quantize: str | None = None,
    backend: str = "auto",
) -> "Quick | None":
    """What answers a question without torch, if that gives the same answer as `assistant.load` with the same arguments, and is
    prepared; else none, and that one is to be taken. A UserError that comes of the question comes from there, too."""
    folder = FOLDERS.get(str(source), Path(source))
    if not folder.is_dir() or dtype not in (None, "float32") or may_have_gpu():
        return None
    chosen, bits = choose(backend, quantize, named=dtype is not None, placed=False, official=False, fits=lambda: True)
    kept = prepared_folder(folder, bits) if chosen == "onnx" else None
    if kept is None or not (kept / FACTS).exists():
        return None
    found = Quick(kept, Facts.read(kept / FACTS), packed=bits is not None)
    if backend == "auto" and not found.facts.fits:
        return None
    try:
        return found if found.streams(question, settings) else None
    except UserError:
        return None


class Quick:
    """Answers single questions about images, the likeliest token at a time.

    Args:
        folder: in which everything is.
        packed: as in `engine.onnx_session.session`, for the language model.
    """

    def __init__(self, folder: Path, facts: Facts, packed: bool):
        self.folder, self.facts, self.packed = folder, facts, packed

    def streams(self, question: str, settings: Mapping[str, Any]) -> bool:
        """Whether it can answer this question: by the likeliest tokens, piece by piece.

        Raises:
            UserError: settings, of the system or given, that cannot be followed.
        """
        check_task_settings(self.facts.task_settings, self.facts.defaults.params)
        plan = self._plan(question, settings)
        return plan.streams and not plan.params.samples and plan.params.logprobs is None

    def ask(self, images: Sequence[ImageInput], question: str, **settings: Any) -> Answer:
        """The whole answer, with its boxes.

        Raises:
            UserError: as `Assistant.ask` does.
        """
        text = "".join(self.stream(images, question, **settings))
        return Answer(text, images[0] if len(images) == 1 else None, question, open_image)

    def stream(self, images: Sequence[ImageInput], question: str, **settings: Any) -> Iterator[str]:
        """The answer, piece by piece as it is written.

        Raises:
            UserError: as `Assistant.stream` does.
        """
        params = self._plan(question, settings, streamed=True).params
        try:
            yield from self._answer(images, question, params)
        except Exception as error:
            if (reason := out_of_memory(error)) is error:
                raise
            raise reason from error

    def _plan(self, question: str, settings: Mapping[str, Any], streamed: bool = False) -> Plan:
        facts = self.facts
        return plan_of(question, facts.task_settings, settings, facts.defaults.params, streamed=streamed)

    def _answer(self, images: Sequence[ImageInput], question: str, params: SamplingParams) -> Iterator[str]:
        from tokenizers import Tokenizer

        facts, chat, most = self.facts, TEMPLATES[self.facts.template], params.max_new_tokens or 0
        tokenizer = Tokenizer.from_file(str(self.folder / TOKENIZER))
        said = with_images(plain(question, special_pattern(facts.special)), len(images))
        ids = self._ids(tokenizer, chat, said)
        if len(ids) + most > facts.defaults.context:
            raise too_long(len(ids), most, facts.defaults.context)
        stream = TextStream(tokenizer, (*chat.stop, *params.stop))
        for count, token in enumerate(self._tokens(ids, self._encoded(images), params), 1):
            ended = token in facts.defaults.end_ids
            text = "" if ended else stream.put([token])
            ended = ended or stream.ended or count == most
            text += stream.end() if ended else ""
            if text:
                yield text
            if ended:
                return

    def _ids(self, tokenizer: Any, chat: ChatTemplate, said: str) -> list[int]:
        """The prompt's."""
        facts = self.facts

        def encode(text: str) -> list[int]:
            image = [facts.image_token_id] * facts.num_image_tokens
            return text_ids(text, lambda piece: tokenizer.encode(piece, add_special_tokens=False).ids, image)

        return prompt_ids([{"role": "user", "content": said}], chat, encode, facts.bos, facts.extra_bos)

    def _encoded(self, images: Sequence[ImageInput]) -> np.ndarray:
        """What the language model receives for images, one behind the other: (P * K, H)."""
        encoder = session(self.folder / VISION, usable_cores())
        facts = self.facts
        pixels = normalised([resized(image, facts.size) for image in images], facts.mean, facts.std)
        return np.concatenate([encoder.run(None, {"pixels": one[None]})[0][0] for one in pixels])

    def _tokens(self, ids: Sequence[int], encoded: np.ndarray, params: SamplingParams) -> Iterator[int]:
        """The likeliest tokens behind a prompt, for as long as they are asked for."""
        model = LanguageModelSession(self.folder / GRAPH, usable_cores(), self.packed)
        words = np.load(self.folder / EMBEDDINGS, mmap_mode="r")
        is_image = np.array(ids) == self.facts.image_token_id
        embeds = words[np.where(is_image, 0, ids)]
        embeds[is_image] = encoded
        block = model.new_block(1, len(ids) + (params.max_new_tokens or 0))
        logits, piece = np.empty((1, model.vocabulary), np.float32), Limits().prefill
        for begin in range(0, len(ids), piece):
            new = embeds[begin : begin + piece]
            model.run(block, new[None], [begin + len(new)], [len(new) - 1], logits)
        said: list[int] = []
        while True:
            said.append(likeliest(logits[0], said, params, self.facts.defaults.end_ids))
            yield said[-1]
            model.run(block, words[said[-1:]][None], [len(ids) + len(said)], [0], logits)


def likeliest(logits: np.ndarray, said: Sequence[int], params: SamplingParams, end_ids: frozenset[int]) -> int:
    """The next token of an answer by the logits (V), which the penalties change in place, as in `engine.sampling`."""
    if params.repetition_penalty != 1.0:
        seen = list(set(said))
        scores = logits[seen]
        logits[seen] = np.where(scores < 0, scores * params.repetition_penalty, scores / params.repetition_penalty)
    if size := params.no_repeat_ngram_size:
        last = said[len(said) - size + 1 :] if len(said) >= size else None
        logits[[said[i + size - 1] for i in range(len(said) - size + 1) if said[i : i + size - 1] == last]] = -np.inf
    if len(said) < params.min_new_tokens:
        logits[list(end_ids)] = -np.inf
    return int(logits.argmax())
