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

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from PIL import Image

from ..checkpoints.folders import find_folder, read_task_settings, task_settings_file
from ..checkpoints.loading import load_system
from ..checkpoints.onnx_parts import NotPrepared
from ..engine.backend import Backend
from ..engine.completion import Request
from ..engine.defaults import Defaults
from ..engine.engine import Engine
from ..engine.official import OfficialEngine
from ..engine.onnx_session import CannotRun
from ..errors import UserError
from ..media.images import ImageInput, open_image
from ..model.modeling import MiniGPT4ForConditionalGeneration
from ..model.processing import MiniGPT4Processor
from ..prompt.boxes import Box
from ..prompt.tasks import TASKS, split_identifier
from .answer import Answer
from .backends import load_onnx, way_of
from .chat import Chat, about
from .choice import Score, scores, scoring
from .image_disk import ImageDisk, bytes_of
from .looks import Look, ask
from .refine import at_each_thing, at_what_was_found
from .self_consistency import agreed
from .task_settings import OF_THE_WHOLE, Plan, check_task_settings, check_text_alone, plan_of

log = logging.getLogger(__name__)

Images = ImageInput | Sequence[ImageInput]


def load(
    source: str | os.PathLike = "pocket",
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    quantize: str | None = None,
    device_map: Any = None,
    official: bool = False,
    backend: str = "auto",
) -> "Assistant":
    """Load a system: one that ships (`model.pocket.FOLDERS`), a folder that training or `import-official` wrote, or a hub id.

    Args:
        device: ``"cuda"`` if there is one, else ``"cpu"``, when not given.
        dtype: of the weights, ``torch.bfloat16`` or ``"bfloat16"``; the best for the device when not given, which for backend
            onnx is 8 bits.
        quantize: ``"8bit"`` or ``"4bit"``: store the language model's layers in so few bits (needs bitsandbytes, or
            backend onnx).
        device_map: ``"auto"`` spreads the system over all GPUs and the CPU's memory, as in `transformers`.
        official: answer as the published code does where it is known to differ (`engine.official`), to compare
            with published numbers.
        backend: what computes the language model: ``"torch"``, ``"onnx"`` (on a CPU, for language models of the Llama type), or
            ``"auto"``: onnx where it can and is installed.

    Raises:
        UserError: no such system, device or backend, or settings that do not go together.

    ``$MINIGPT4_IMAGE_CACHE``, like ``2GB``, keeps encoded images in the cache folder up to that size, for the next process.
    """
    folder = find_folder(source)
    task_settings = read_task_settings(folder)
    disk = bytes_of(asked, "MINIGPT4_IMAGE_CACHE") if (asked := os.environ.get("MINIGPT4_IMAGE_CACHE")) else 0
    way = way_of(
        folder, device=device, dtype=dtype, quantize=quantize, device_map=device_map, official=official, backend=backend
    )
    fast: Backend | None = None
    if way.backend == "onnx":
        try:
            model, processor, fast = load_onnx(folder, way.quantize)
        except (NotPrepared, CannotRun) as error:
            if backend == "onnx":
                raise
            log.warning("%s; torch does it now, more slowly", error)
    if fast is None:
        model, processor = load_system(folder, way.device, way.dtype, quantize=quantize, device_map=device_map)
    try:
        Defaults.of(model.generation_config, model.config.text_config).params()
    except UserError as error:
        raise UserError(f"{folder / 'generation_config.json'}: {error}") from None
    try:
        return Assistant(model, processor, official=official, task_settings=task_settings, backend=fast, image_disk_bytes=disk)
    except UserError as error:
        raise UserError(f"{task_settings_file(folder)}: {error}") from None


class Assistant:
    """A model and its processor, ready to answer about images.

    Keyword arguments named ``settings`` below are those of `engine.params.SamplingParams` and ``do_sample``, with the names of
    `transformers` generation (``max_new_tokens``, ``num_beams``, ``temperature``, ``top_p``, ...); what is not given comes from
    the system's generation_config.json. Three are about asking more than once: ``self_consistency=N`` samples N answers and
    gives the one that the others agree with most (see `self_consistency`); with ``mirrored=True``, half of them before the
    image in a mirror, if there are four or more; ``zoom_in=True`` asks about each phrase of a grounded description by itself,
    for its box, and with ``[refer]`` and self-consistency asks again about what surrounds the box that was found.

    Args:
        official: answer as the official code does.
        task_settings: settings by task, where they differ from generation_config.json; ``question`` for questions that name no
            task. `load` takes them from the system's task_settings.json.
        backend: computes the language model; torch when not given.
        image_disk_bytes: of encoded images that are kept on disk for other processes; 0 keeps none.

    Raises:
        UserError: settings by task that do not exist, or do not go together.
    """

    def __init__(
        self,
        model: MiniGPT4ForConditionalGeneration,
        processor: MiniGPT4Processor,
        official: bool = False,
        task_settings: Mapping[str, Mapping[str, Any]] | None = None,
        backend: Backend | None = None,
        image_disk_bytes: int = 0,
    ):
        self._model, self.processor, self.official = model, processor, official
        by = "torch" if backend is None else backend.name
        disk = ImageDisk(model, image_disk_bytes, by) if image_disk_bytes else None
        self.engine: Engine = (
            OfficialEngine(model, processor, disk) if official else Engine(model, processor, backend=backend, disk=disk)
        )
        self.task_settings = task_settings or {}
        check_task_settings(self.task_settings, self.engine.params, official)

    @property
    def model(self) -> MiniGPT4ForConditionalGeneration:
        """The network in torch, with all its weights."""
        self.engine.backend.complete()
        return self._model

    # one question ----------------------------------------------------------------------------------------------------

    def ask(self, images: Images, question: str, **settings) -> Answer:
        """Answer one question about one or several images; it may begin with a task's identifier, like ``[refer]``.

        Raises:
            UserError: an image that cannot be opened, an unknown identifier or setting, a question that is too long.
        """
        return self.ask_many([(images, question)], batch_size=1, **settings)[0]

    def stream(self, images: Images, question: str, **settings) -> Iterator[str]:
        """The same, piece by piece as it is written (greedy or sampled; beams cannot be streamed)."""
        return self.chat(images).stream(question, **settings)

    def chat(self, images: Images = ()) -> Chat:
        """A conversation; each image is encoded once."""

        def answer(look: Look, settings: dict[str, Any]) -> str:
            return self.answer([look], settings, 1)[0]

        chat = Chat(self.engine, answer, self.plan)
        for image in as_list(images):
            chat.show(image)
        return chat

    # pointing --------------------------------------------------------------------------------------------------------

    def vqa(self, image: Images, question: str, **settings) -> Answer:
        """A short answer to a question, as for a benchmark."""
        return self._do("vqa", image, question, settings)

    def refer(self, image: ImageInput, phrase: str, **settings) -> Answer:
        """Where the one thing is that the phrase means; see the answer's `boxes`."""
        return self._do("refer", image, phrase, settings)

    def detect(self, image: ImageInput, phrase: str, **settings) -> Answer:
        """Where all things are that the phrase means, or those that a sentence names; see the answer's `phrases`."""
        return self._do("detection", image, phrase, settings)

    def ground(self, image: ImageInput, **settings) -> Answer:
        """A description whose phrases are tied to places; see the answer's `plain_text` and `phrases`."""
        return self._do("grounding", image, "", settings)

    def identify(self, image: ImageInput, box: Box | str | Sequence[float], **settings) -> Answer:
        """What is in a box of the image.

        Args:
            box: in any form that `Box.from_user` takes; numbers above 1 are pixels of the image.

        Raises:
            UserError: no box, or one that is not inside the image.
        """
        box = Box.from_user(box, *open_image(image).size)
        return self._do("identify", image, box.render(), settings)

    def _do(self, name: str, images: Images, subject: str, settings: dict[str, Any]) -> Answer:
        task = TASKS[name]
        if task.subject and not (isinstance(subject, str) and subject.strip()):
            raise UserError(f"{task.identifier} needs a {task.subject}")
        return self.ask(images, task.instruction(subject.strip()), **settings)

    # choosing --------------------------------------------------------------------------------------------------------

    def score(self, images: Images, question: str, candidates: Sequence[str]) -> list[Score]:
        """How likely each of some given answers is, in their order. The images and the question are read once.

        Raises:
            UserError: no candidates, an empty one, or what `ask` refuses.
        """
        return self.score_many([(images, question, candidates)])[0]

    def score_many(self, items: Iterable[tuple[Images, str, Sequence[str]]], batch_size: int = 16) -> list[list[Score]]:
        """The same for many questions, each with its own candidates."""

        given: list[Sequence[str]] = []

        def requests() -> Iterator[Request]:
            for images, question, candidates in items:
                given.append(candidates)
                yield scoring(Look.at(as_list(images), question, self.engine.plain), candidates)

        return [scores(done, own) for done, own in zip(self.engine.generate(requests(), batch_size), given, strict=True)]

    # many questions --------------------------------------------------------------------------------------------------

    def caption(self, images: Images, batch_size: int = 16, prompt: str | None = None, **settings) -> Answer | list[Answer]:
        """A caption for each image; for a single image, its caption alone. What is asked is what the system was trained
        to be asked, when `prompt` is not given: a short one of systems that know tasks, else a description."""
        asked = self.processor.chat.caption if prompt is None else prompt
        items = [(image, asked) for image in as_list(images)]
        answers = self._ask_many(items, batch_size, settings, task="caption")
        return answers[0] if isinstance(images, str | os.PathLike | Image.Image) else answers

    def ask_many(self, items: Iterable[tuple[Images, str]], batch_size: int = 16, **settings) -> list[Answer]:
        """Answer many questions, each about its own image or images, in order.

        Args:
            batch_size: questions on their way at a time.
        """
        return self._ask_many(items, batch_size, settings)

    def _ask_many(
        self, items: Iterable[tuple[Images, str]], batch_size: int, settings: dict[str, Any], task: str | None = None
    ) -> list[Answer]:
        self.engine.at_a_time(batch_size)
        answers: list[Answer] = []
        remaining = iter(items)
        while batch := list(islice(remaining, batch_size)):
            looks = [Look.at(as_list(images), question, self.engine.plain) for images, question in batch]
            texts = self.answer(looks, settings, batch_size, task)
            answers += [about(text, look.images, look.question) for text, look in zip(texts, looks, strict=True)]
        return answers

    def answer(self, looks: Sequence[Look], settings: dict[str, Any], batch_size: int, task: str | None = None) -> list[str]:
        """Answers to questions; those that are decoded differently are asked one kind after the other."""
        check_text_alone(settings)
        kinds: dict[tuple[str | None, Plan], list[int]] = {}
        for i, look in enumerate(looks):
            identified, _ = split_identifier(look.question)
            plan = self.plan(look.question, settings, task=task)
            kinds.setdefault((identified.name if identified else None, plan), []).append(i)
        answers = [""] * len(looks)
        for (name, plan), rows in kinds.items():
            asked = [looks[i] for i in rows]

            def several(some: Sequence[Look], plan: Plan = plan) -> list[list[str]]:
                return ask(self.engine, some, plan, batch_size)

            sampled = several(asked)
            if plan.zoom_in and name == "refer":
                sampled = at_what_was_found(asked, sampled, several)
            texts = [agreed(each) for each in sampled]
            if plan.zoom_in and name == "grounding":
                others = {key: value for key, value in settings.items() if key not in OF_THE_WHOLE}
                texts = at_each_thing(asked, texts, lambda items, s=others: self.ask_many(items, batch_size, **s))  # type: ignore[misc]
            for i, text in zip(rows, texts, strict=True):
                answers[i] = text
        return answers

    # settings --------------------------------------------------------------------------------------------------------

    def plan(self, question: str, settings: dict[str, Any], streamed: bool = False, task: str | None = None) -> Plan:
        """How a question is answered: `task_settings.plan_for`, with what the system wishes for the task that it names, or for
        `task` where it names none."""
        return plan_of(
            question, self.task_settings, settings, self.engine.params, streamed=streamed, official=self.official, task=task
        )

    def streams(self, question: str, settings: dict[str, Any]) -> bool:
        """Whether the answer comes piece by piece: not one that is chosen among several, or looked at again."""
        return self.plan(question, settings).streams


def as_list(images: Images) -> list[ImageInput]:
    """One image or several, as a list."""
    return [images] if isinstance(images, str | os.PathLike | Image.Image) else list(images)
