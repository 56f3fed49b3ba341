"""The engine of `quick`: it reads prompts and writes the likeliest tokens, with numpy and ONNX Runtime alone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.onnx_graph import GRAPH
from ..checkpoints.onnx_parts import EMBEDDINGS
from ..engine.beams import BeamSearch
from ..engine.completion import EncodedImage, Piece, Request
from ..engine.defaults import Defaults
from ..engine.limits import Limits, out_of_memory
from ..engine.onnx_session import Arrays, LanguageModelSession, session
from ..engine.params import SamplingParams
from ..engine.streaming import TextStream, ends_at_text
from ..io.cores import usable_cores
from ..media.images import ImageInput
from ..media.pixels import normalised, resized
from ..prompt.history import fitting_ids
from ..prompt.ids import plain, prompt_ids, special_pattern, text_ids
from ..prompt.templates import TEMPLATES, Message

VISION, TOKENIZER, FACTS = "vision.onnx", "tokenizer.json", "system.json"
Symbol = int | tuple[str, int]
"""A position of a prompt: a token, or an image's key and which of its tokens."""


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


class QuickEngine:
    """Answers conversations, one at a time, the likeliest token at a time.

    What was read stays in memory, and the next question of a conversation is read behind it.

    Args:
        folder: in which everything is.
        packed: as in `engine.onnx_session.session`, for the language model.
    """

    def __init__(self, folder: Path, facts: Facts, packed: bool):
        self.folder, self.facts, self.packed = folder, facts, packed
        self._shown = 0  # images that were encoded
        self._block: Arrays = []
        self._room = 0  # positions of the block
        self._read: list[Symbol] = []  # what is in them

    def plain(self, text: str) -> str:
        """What people, or the model before, have said: as it may be said in a message."""
        return plain(text, special_pattern(self.facts.special))

    def encode(self, images: Sequence[ImageInput]) -> list[EncodedImage]:
        """Images as the language model receives them, (K, H) each.

        Raises:
            UserError: an image that cannot be opened, or memory has run out.
        """
        return [self._encoded(image) for image in images]

    def stream(self, request: Request) -> Iterator[Piece]:
        """The answer to a conversation about images that `encode` gave.

        Raises:
            UserError: as `Engine.stream` does.
        """
        with _memory_said():
            yield from (Piece(0, text) for text in self._text(request))

    def answer(self, request: Request) -> str:
        """The same, whole; of several beams the best."""
        with _memory_said():
            return "".join(self._text(request)) if request.params.num_beams == 1 else self._best(request)

    # parts, opened when they are needed -------------------------------------------------------------------------------

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.folder / TOKENIZER))

    @cached_property
    def _vision(self) -> Any:
        return session(self.folder / VISION, usable_cores())

    @cached_property
    def _language_model(self) -> LanguageModelSession:
        return LanguageModelSession(self.folder / GRAPH, usable_cores(), self.packed)

    @cached_property
    def _words(self) -> np.ndarray:
        return np.load(self.folder / EMBEDDINGS, mmap_mode="r")

    # an answer --------------------------------------------------------------------------------------------------------

    def _encoded(self, image: ImageInput) -> EncodedImage:
        facts = self.facts
        pixels = normalised([resized(image, facts.size)], facts.mean, facts.std)
        with _memory_said():
            embeds = self._vision.run(None, {"pixels": pixels})[0][0]
        self._shown += 1
        return EncodedImage(f"image {self._shown}", embeds)

    def _text(self, request: Request) -> Iterator[str]:
        """The answer, piece by piece."""
        text, end_ids = TextStream(self._tokenizer, self._stop(request)), self.facts.defaults.end_ids
        for count, token in enumerate(self._tokens(request), 1):
            ended = token in end_ids
            piece = "" if ended else text.put([token])
            ended = ended or text.ended or count == request.params.max_new_tokens
            piece += text.end() if ended else ""
            if piece:
                yield piece
            if ended:
                return

    def _best(self, request: Request) -> str:
        """The best of several beams."""
        params, defaults, stop = request.params, self.facts.defaults, self._stop(request)
        at_text = ends_at_text(self._tokenizer, stop) if stop else None
        search = BeamSearch(params, defaults.end_ids, at_text, defaults.early_stopping)
        ids, first = self._prompt(request, 0)
        beams = self._language_model.new_block(params.num_beams, len(ids) + (params.max_new_tokens or 0))
        logits, block, known = first, self._block, len(ids)
        while parents := search.take(behind_beams(search, logits)):
            rows = len(parents)
            if block is not beams or parents != list(range(rows)):
                for old, new in zip(block, beams, strict=True):
                    for before, after in zip(old, new, strict=True):
                        after[:rows, :, :known] = before[parents, :, :known]
            block, known = beams, known + 1
            tokens = self._words[[ids[-1] for ids in search.ids]]
            logits = np.empty((rows, first.shape[1]), np.float32)
            own = [(keys[:rows], values[:rows]) for keys, values in block]
            self._language_model.run(own, tokens[:, None], [known] * rows, range(rows), logits)
        text = TextStream(self._tokenizer, stop)
        return text.put([token for token in search.answers()[0] if token not in defaults.end_ids]) + text.end()

    def _stop(self, request: Request) -> tuple[str, ...]:
        return (*TEMPLATES[self.facts.template].stop, *request.params.stop)

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        """A prompt's."""
        facts = self.facts

        def encode(text: str) -> list[int]:
            image = [facts.image_token_id] * facts.num_image_tokens
            return text_ids(text, lambda piece: self._tokenizer.encode(piece, add_special_tokens=False).ids, image)

        return prompt_ids(messages, TEMPLATES[facts.template], encode, facts.bos, facts.extra_bos)

    def _prompt(self, request: Request, more: int) -> tuple[list[int], np.ndarray]:
        """Reads a prompt, and has room for more tokens behind it.

        Returns:
            The prompt's ids, and the logits (1, V) at its end.
        """
        params, images = request.params, request.images
        ids = fitting_ids(request.messages, self._ids, params.max_new_tokens or 0, self.facts.defaults.context)
        symbols = self._symbols(ids, images)
        logits, piece = np.empty((1, self._language_model.vocabulary), np.float32), Limits().prefill
        known = self._make_room(symbols, len(ids) + more)
        embeds = self._embeds(ids, images)
        for begin in range(known, len(ids), piece):
            new = embeds[begin : begin + piece]
            self._language_model.run(self._block, new[None], [begin + len(new)], [len(new) - 1], logits)
            self._read += symbols[begin : begin + len(new)]
        return ids, logits

    def _tokens(self, request: Request) -> Iterator[int]:
        """The likeliest tokens behind a prompt, for as long as they are asked for."""
        params = request.params
        ids, logits = self._prompt(request, params.max_new_tokens or 0)
        said: list[int] = []
        while True:
            said.append(likeliest(logits[0], said, params, self.facts.defaults.end_ids))
            yield said[-1]
            last = said[-1:]
            self._language_model.run(self._block, self._words[last][None], [len(ids) + len(said)], [0], logits)
            self._read += last

    def _symbols(self, ids: Sequence[int], images: Sequence[Any]) -> list[Symbol]:
        """What tells one position of a prompt from another."""
        places = iter([(image.key, number) for image in images for number in range(self.facts.num_image_tokens)])
        return [next(places) if i == self.facts.image_token_id else i for i in ids]

    def _embeds(self, ids: Sequence[int], images: Sequence[Any]) -> np.ndarray:
        """A prompt as the language model reads it, (Q, H)."""
        is_image = np.array(ids) == self.facts.image_token_id
        embeds = self._words[np.where(is_image, 0, ids)]
        if images:
            embeds[is_image] = np.concatenate([image.embeds for image in images])
        return embeds

    def _make_room(self, symbols: Sequence[Symbol], positions: int) -> int:
        """See that the block has room for so many positions, and forget what it holds of another prompt.

        Returns:
            How many first positions of the prompt it holds. The last one is always read: it gives the answer's first token.
        """
        pairs = zip(self._read, symbols[:-1], strict=False)
        known = next((place for place, (old, new) in enumerate(pairs) if old != new), min(len(self._read), len(symbols) - 1))
        del self._read[known:]
        if positions > self._room:
            larger = self._language_model.new_block(1, positions)
            for old, new in zip(self._block, larger, strict=False):  # there is no block before the first prompt
                for before, after in zip(old, new, strict=True):
                    after[:, :, :known] = before[:, :, :known]
            self._block, self._room = larger, positions
        return known


@contextmanager
def _memory_said() -> Iterator[None]:
    """Says that memory has run out, where that is what is wrong."""
    try:
        yield
    except Exception as error:
        if (reason := out_of_memory(error)) is error:
            raise
        raise reason from error


def likeliest(logits: np.ndarray, said: Sequence[int], params: SamplingParams, end_ids: frozenset[int]) -> int:
    """The next token of an answer by the logits (V), which the penalties change in place."""
    penalise(logits, said, params, end_ids)
    return int(logits.argmax())


def behind_beams(search: BeamSearch, logits: np.ndarray) -> list[tuple[float, int, int]]:
    """The best continuations of beams by their logits (beams, V), as `BeamSearch.take` wants them."""
    logp = logits - logits.max(-1, keepdims=True)
    logp -= np.log(np.exp(logp).sum(-1, keepdims=True))
    for beam, ids in enumerate(search.ids):
        penalise(logp[beam], ids, search.params, search.end_ids)
    total = (logp + np.array(search.scores, np.float32)[:, None]).ravel()
    some = np.argpartition(total, -min(search.wide, total.size))[-search.wide :]
    best = some[np.argsort(-total[some], kind="stable")]
    return [(float(total[place]), *divmod(int(place), logp.shape[1])) for place in best]


def penalise(logits: np.ndarray, said: Sequence[int], params: SamplingParams, end_ids: frozenset[int]) -> None:
    """What the penalties of an answer's tokens make of its logits (V), as in `engine.sampling`."""
    if params.repetition_penalty != 1.0:
        seen = list(set(said))
        scores = logits[seen]
        logits[seen] = np.where(scores < 0, scores * params.repetition_penalty, scores / params.repetition_penalty)
    if size := params.no_repeat_ngram_size:
        last = said[len(said) - size + 1 :] if len(said) >= size else None
        logits[[said[i + size - 1] for i in range(len(said) - size + 1) if said[i : i + size - 1] == last]] = -np.inf
    if len(said) < params.min_new_tokens:
        logits[list(end_ids)] = -np.inf
