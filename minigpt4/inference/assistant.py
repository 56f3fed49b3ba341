"""A loaded system that answers: the Python face of the product.

import minigpt4

model = minigpt4.load()
model.ask("photo.jpg", "What is in this picture?")
model.caption(["a.jpg", "b.jpg"], batch_size=16)
model.refer("photo.jpg", "the man on the left").boxes
model.ground("photo.jpg").draw("drawn.png")
chat = model.chat("photo.jpg")
for piece in chat.stream("Who is there?"): print(piece, end="")
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from threading import Event, Thread
from typing import Any

import torch
from PIL import Image, ImageOps

from ..checkpoints.loading import load_system
from ..engine.streaming import StopAtText, StopWhenTold, TextStream, cut_at
from ..errors import UserError
from ..media.images import ImageInput, open_image
from ..model.legacy_llama_tokenizer import use_official_pad
from ..model.modeling import MiniGPT4ForConditionalGeneration
from ..model.processing import MiniGPT4Processor
from ..prompt.boxes import Box
from ..prompt.history import without_oldest
from ..prompt.tasks import TASKS, split_identifier
from ..prompt.templates import Message
from .answer import Answer
from .chat import Chat, about
from .refine import at_each_thing, at_what_was_found, several
from .self_consistency import agreed, drawn
from .task_settings import settings_for

ImageInputs = ImageInput | Sequence[ImageInput]
MAX_NEW_TOKENS = 300  # of systems that do not say


def load(
    source: str | os.PathLike = "pocket",
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    quantize: str | None = None,
    device_map: Any = None,
    official: bool = False,
) -> "Assistant":
    """Load a system: one that ships (`model.pocket.FOLDERS`), a folder that training or `import-official` wrote, or a hub id.

    Args:
        device: ``"cuda"`` if there is one, else ``"cpu"``, when not given.
        dtype: of the weights, ``torch.bfloat16`` or ``"bfloat16"``; the best for the device when not given.
        quantize: ``"8bit"`` or ``"4bit"``: store the language model's layers in so few bits (needs bitsandbytes).
        device_map: ``"auto"`` spreads the system over all GPUs and the CPU's memory, as in `transformers`.
        official: answer as the published code does where it is known to differ (`engine.official`), to compare
            with published numbers.
    """
    device = _device(device)
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise UserError("dtype must be float32, bfloat16 or float16")
    parts = load_system(source, device, dtype, quantize=quantize, device_map=device_map)
    return Assistant(*parts, official=official)


def _device(wanted: str | torch.device | None) -> torch.device:
    """The device of that name, or the best there is."""
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise UserError(f"{wanted}: no such device; say cpu, cuda, cuda:1 or mps") from None
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(device.type)
    if here is False or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise UserError(f"{wanted}: this machine has no such device, or this torch was built without it; try cpu")
    return device


class Assistant:
    """A model and its processor, ready to answer about pictures.

    Keyword arguments named ``generation`` below are those of `transformers` generation (``max_new_tokens``, ``num_beams``,
    ``do_sample``, ``temperature``, ``top_p``, ...); what is not given comes from the system's generation_config.json. One is
    ours: ``self_consistency=N`` draws N answers and gives the one that the others agree with most (see `self_consistency`);
    with ``mirrored=True``, half of them before the picture in a mirror, if there are four or more. And ``zoom_in=True``
    asks about each phrase of a grounded description by itself, for its box, and with ``[refer]`` and self-consistency
    asks again about what surrounds the box that was found.
    """

    def __init__(self, model: MiniGPT4ForConditionalGeneration, processor: MiniGPT4Processor, official: bool = False):
        self.model, self.processor, self.official = model, processor, official
        if official:
            use_official_pad(processor.tokenizer)

    # one question ----------------------------------------------------------------------------------------------------

    def ask(self, images: ImageInputs, question: str, **generation) -> Answer:
        """Answer one question about one or several pictures; it may begin with a task's identifier, like ``[refer]``.

        Raises:
            UserError: a picture that cannot be opened, an unknown identifier, a question that is too long.
        """
        return self.ask_many([(images, question)], batch_size=1, **generation)[0]

    def stream(self, images: ImageInputs, question: str, **generation) -> Iterator[str]:
        """The same, piece by piece as it is written (greedy or sampled; beams cannot be streamed)."""
        return self.chat(images).stream(question, **generation)

    def chat(self, images: ImageInputs = ()) -> Chat:
        """A conversation; each picture is encoded once."""
        chat = Chat(self)
        for image in as_list(images):
            chat.show(image)
        return chat

    # pointing --------------------------------------------------------------------------------------------------------

    def vqa(self, image: ImageInputs, question: str, **generation) -> Answer:
        """A short answer to a question, as for a benchmark."""
        return self._do("vqa", image, question, generation)

    def refer(self, image: ImageInput, phrase: str, **generation) -> Answer:
        """Where the one thing is that the phrase means; see the answer's `boxes`."""
        return self._do("refer", image, phrase, generation)

    def detect(self, image: ImageInput, phrase: str, **generation) -> Answer:
        """Where all things are that the phrase means, or those that a sentence names; see the answer's `phrases`."""
        return self._do("detection", image, phrase, generation)

    def ground(self, image: ImageInput, **generation) -> Answer:
        """A description whose phrases are tied to places; see the answer's `plain_text` and `phrases`."""
        return self._do("grounding", image, "", generation)

    def identify(self, image: ImageInput, box: Box | str | Sequence[float], **generation) -> Answer:
        """What is in a box of the picture.

        Args:
            box: in any form that `Box.from_user` takes; numbers above 1 are pixels of the picture.

        Raises:
            UserError: no box, or one that is not inside the picture.
        """
        box = Box.from_user(box, *open_image(image).size)
        return self._do("identify", image, box.render(), generation)

    def _do(self, name: str, images: ImageInputs, subject: str, generation: dict[str, Any]) -> Answer:
        task = TASKS[name]
        if task.subject and not subject.strip():
            raise UserError(f"{task.identifier} needs a {task.subject}")
        return self.ask(images, task.instruction(subject.strip()), **generation)

    # many questions --------------------------------------------------------------------------------------------------

    def caption(
        self, images: ImageInputs, batch_size: int = 16, prompt: str | None = None, **generation
    ) -> Answer | list[Answer]:
        """A caption for each picture; for a single picture, its caption alone. What is asked is what the system was trained
        to be asked, when `prompt` is not given: a short one of systems that know tasks, else a description."""
        asked = self.processor.chat.caption if prompt is None else prompt
        items = [(image, asked) for image in as_list(images)]
        answers = self.ask_many(items, batch_size=batch_size, **(self.task_settings("caption") | generation))
        return answers[0] if isinstance(images, str | os.PathLike | Image.Image) else answers

    def ask_many(self, items: Iterable[tuple[ImageInputs, str]], batch_size: int = 16, **generation) -> list[Answer]:
        """Answer many questions, each about its own picture or pictures, in order."""
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, not {batch_size}")
        answers: list[Answer] = []
        remaining = iter(items)
        while batch := list(islice(remaining, batch_size)):
            answers += self._answer([(as_list(images), question) for images, question in batch], generation)
        return answers

    def _answer(self, batch: list[tuple[list[ImageInput], str]], generation: dict[str, Any]) -> list[Answer]:
        """One batch; questions of tasks that are decoded differently go through the language model one kind after the other."""
        kinds: dict[tuple[str | None, str], list[int]] = {}
        settings = [self.settings_for(question, generation) for _, question in batch]
        for i, setting in enumerate(settings):
            task, _ = split_identifier(batch[i][1])
            kinds.setdefault((task.name if task else None, repr(setting)), []).append(i)
        answers = [Answer("")] * len(batch)
        for (name, _), rows in kinds.items():
            asked, setting = [batch[i] for i in rows], dict(settings[rows[0]])
            again = setting.pop("zoom_in", False)
            drawn = several(self, asked, setting)
            if again and name == "refer":
                drawn = at_what_was_found(self, asked, drawn, setting)
            texts = [agreed(each) for each in drawn]
            if again and name == "grounding":
                texts = at_each_thing(self, asked, texts)
            for i, text in zip(rows, texts, strict=True):
                answers[i] = about(text, *batch[i])
        return answers

    def settings_for(self, question: str, given: dict[str, Any], streamed: bool = False) -> dict[str, Any]:
        """How a question is decoded: `decoding.settings_for`, with what the system wishes for the task that it names."""
        task, _ = split_identifier(question)
        wished: dict[str, Any] = {}
        if task is not None:
            room = {} if task.max_new_tokens is None else {"max_new_tokens": task.max_new_tokens}
            wished = room | self.task_settings(task.name)
        return settings_for(question, wished, given, streamed=streamed, official=self.official)

    def task_settings(self, task: str) -> dict[str, Any]:
        """Decoding settings that this system wants for a task, beside its generation_config.json."""
        return dict((self.model.config.task_generation or {}).get(task, {}))

    def streams(self, generation: dict[str, Any]) -> bool:
        """Whether answers with these settings come piece by piece: not those that are chosen among several."""
        beams = generation.get("num_beams") or self.model.generation_config.num_beams or 1
        return beams == 1 and generation.get("self_consistency") is None and not generation.get("zoom_in")

    # the parts -------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def encode(self, images: Sequence[ImageInput], mirrored: bool = False) -> torch.Tensor | None:
        """What the language model receives for each picture, or for what a mirror shows of it: (P, K, H), or None for no
        pictures. One that comes again is looked at once."""
        if not images:
            return None
        keys = [id(image) if isinstance(image, Image.Image) else str(image) for image in images]
        distinct = dict(zip(keys, images, strict=True))
        seen = [ImageOps.mirror(open_image(p)) for p in distinct.values()] if mirrored else list(distinct.values())
        pixels = self.processor.image_processor(seen)["pixel_values"]
        embeds = self.model.get_image_features(pixels.to(self.model.device))
        if len(distinct) == len(images):
            return embeds
        places = {key: i for i, key in enumerate(distinct)}
        return embeds[[places[key] for key in keys]]

    @torch.inference_mode()
    def complete(
        self, conversations: Sequence[Sequence[Message]], image_embeds: torch.Tensor | None, **generation
    ) -> list[Answer]:
        """The assistant's next message in each conversation; pictures in order of their placeholders."""
        for wish in ("mirrored", "zoom_in"):  # of a task; but here the pictures have been looked at already
            generation.pop(wish, None)
        if generation.get("self_consistency") is not None:
            return [Answer(agreed(several)) for several in self.drawn(conversations, image_embeds, generation)]
        inputs = self.inputs(conversations, generation)
        if self.official:
            return [Answer(text) for text in self._official(inputs, image_embeds, generation)]
        ids = self.model.generate(**inputs, image_embeds=image_embeds, **self._settings(generation))
        return [Answer(self._text(row)) for row in ids]

    @torch.inference_mode()
    def drawn(
        self, conversations: Sequence[Sequence[Message]], image_embeds: torch.Tensor | None, generation: dict[str, Any]
    ) -> list[list[str]]:
        """Several possible next messages of each conversation."""
        if self.official:
            raise UserError("published behaviour with self-consistency is not offered")
        settings = self._settings(generation) | {"seed": generation.get("seed") or 0}
        found = drawn(self.model, self.inputs(conversations, generation), image_embeds, **settings)
        return [[self._text(ids) for ids in several] for several in found]

    def _text(self, ids: Sequence[int] | torch.Tensor) -> str:
        text = self.processor.tokenizer.decode(ids, skip_special_tokens=True)
        return cut_at(text, self.processor.chat.stop).strip()

    def complete_streaming(
        self, conversation: Sequence[Message], image_embeds: torch.Tensor | None, **generation
    ) -> Iterator[str]:
        """One conversation's next message, piece by piece."""
        if (generation.get("num_beams") or 1) != 1:
            raise UserError("beam search cannot be streamed: leave out num_beams, or ask without streaming")
        if generation.get("self_consistency") is not None:
            raise UserError(
                "an answer chosen among several cannot be streamed: leave out self-consistency, or ask without streaming"
            )
        generation["num_beams"] = 1
        if self.official:  # answers alike, but not piece by piece
            yield self.complete([conversation], image_embeds, **generation)[0]
            return
        inputs = self.inputs([conversation], generation)
        stream = TextStream(self.processor.tokenizer, self.processor.chat.stop)
        settings = self._settings(generation)
        left = Event()
        settings["stopping_criteria"] = [*settings.get("stopping_criteria", ()), StopWhenTold(left)]

        def work() -> None:
            try:
                with torch.inference_mode():
                    self.model.generate(**inputs, image_embeds=image_embeds, streamer=stream, **settings)
            except Exception as error:
                stream.fail(error)

        worker = Thread(target=work, daemon=True)
        worker.start()
        try:
            yield from stream
        finally:  # a reader who leaves early waits for the token that is being made, no longer
            left.set()
            worker.join()

    def inputs(self, conversations: Sequence[Sequence[Message]], generation: dict[str, Any]) -> dict[str, Any]:
        """Ids and mask of the prompts, padded on the left.

        Raises:
            UserError: a prompt that leaves no room for an answer in the language model's context.
        """
        new = self._new_tokens(generation)
        if self.official:  # cuts the left end of what is too long, in `generate_official`
            rows = [self.processor.prompt_ids(conversation, official=True) for conversation in conversations]
        else:
            rows = [self._fitting(conversation, new, self._context) for conversation in conversations]
        return {k: v.to(self.model.device) for k, v in self.processor.pad(rows).items()}

    @property
    def _context(self) -> int:
        """How many tokens the language model can look back on."""
        return getattr(self.model.config.text_config, "max_position_embeddings", None) or sys.maxsize

    def _new_tokens(self, generation: dict[str, Any]) -> int:
        """How long an answer may get: as asked, as the system says, or as in the published chats, less in a small context."""
        own = self.model.generation_config.max_new_tokens
        return generation.get("max_new_tokens") or own or min(MAX_NEW_TOKENS, self._context // 4)

    def _fitting(self, conversation: Sequence[Message], new: int, room: int) -> list[int]:
        """A prompt's ids; of a conversation that has grown too long, the oldest questions and answers are left out."""
        ids = self.processor.prompt_ids(conversation)
        shorter = without_oldest(conversation) if len(ids) + new > room else None
        if shorter is not None:
            return self._fitting(shorter, new, room)
        if len(ids) + new > room:
            raise UserError(
                f"the question is too long: with its pictures it takes {len(ids):,} tokens, "
                f"and {new:,} new ones do not fit beside it in this model's context of {room:,}"
            )
        return ids

    def _official(self, inputs: dict[str, Any], image_embeds: torch.Tensor | None, generation: dict[str, Any]) -> list[str]:
        """Texts as the published chat gives them."""
        from ..engine import official

        settings = self._settings(generation)
        settings.pop("stopping_criteria", None)
        settings.setdefault("max_length", official.MAX_LENGTH)
        tokenizer = self.processor.tokenizer
        stop = official.stop_sequences(tokenizer, self.processor.chat.stop)
        ids = official.generate_official(self.model, **inputs, image_embeds=image_embeds, stop_sequences=stop, **settings)
        return [official.chat_text(text) for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def _settings(self, generation: dict[str, Any]) -> dict[str, Any]:
        """Arguments for `generate`: given ones, and what makes an answer stop."""
        settings = {k: v for k, v in generation.items() if v is not None}
        settings.setdefault("max_new_tokens", self._new_tokens(settings))
        if (seed := settings.pop("seed", None)) is not None:
            torch.manual_seed(seed)
        if {"temperature", "top_p", "top_k"} & set(settings):
            settings.setdefault("do_sample", True)
        if stop := self.processor.chat.stop:
            settings["stopping_criteria"] = [
                *settings.get("stopping_criteria", ()),
                StopAtText(self.processor.tokenizer, stop),
            ]
        return settings


def as_list(images: ImageInputs) -> list[ImageInput]:
    """One picture or several, as a list."""
    return [images] if isinstance(images, str | os.PathLike | Image.Image) else list(images)
