"""Questions about images, answered without torch and `transformers` from what was prepared for ONNX Runtime.

Importing those two, and building a model with them, is most of the time from Enter to the first word. They are needed for much
(training, GPUs, beams, sampling), but not for the likeliest answers to questions.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoints.onnx_parts import prepared_folder
from ..checkpoints.pocket import FOLDERS
from ..engine.defaults import Defaults
from ..errors import UserError
from ..io.gpu import may_have_gpu
from ..media.images import ImageInput
from ..prompt.templates import TEMPLATES
from .answer import Answer
from .backend_choice import choose
from .chat import Chat, about
from .looks import Look
from .quick_engine import FACTS, TOKENIZER, VISION, Facts, QuickEngine
from .task_settings import Plan, check_task_settings, plan_of


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
    task: str | None = None,
) -> "Quick | None":
    """What answers a question without torch, if that gives the same answer as `assistant.load` with the same arguments, and is
    prepared; else none, and that one is to be taken. A UserError that comes of the question comes from there, too.

    Args:
        task: of a question that names none.
    """
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
        return found if found.can_answer(question, settings, task) else None
    except UserError:
        return None


class Quick:
    """Answers questions about images by their likeliest tokens. Arguments as of `QuickEngine`."""

    def __init__(self, folder: Path, facts: Facts, packed: bool):
        self.folder, self.facts, self.engine = folder, facts, QuickEngine(folder, facts, packed)

    def can_answer(self, question: str, settings: Mapping[str, Any], task: str | None = None) -> bool:
        """Whether it can answer this question: by the likeliest tokens, or beams of them.

        Raises:
            UserError: settings, of the system or given, that cannot be followed.
        """
        check_task_settings(self.facts.task_settings, self.facts.defaults.params)
        plan = self._plan(question, settings, task=task)
        return not plan.several and not plan.params.samples and plan.params.logprobs is None

    def streams(self, question: str, settings: Mapping[str, Any]) -> bool:
        """Whether the answer comes piece by piece: not that of beams."""
        return self._plan(question, settings).streams

    def ask(self, images: Sequence[ImageInput], question: str, **settings: Any) -> Answer:
        """The whole answer, with its boxes.

        Raises:
            UserError: as `Assistant.ask` does.
        """
        return about(self._answer(self.chat(images).look(question), settings), images, question)

    def stream(self, images: Sequence[ImageInput], question: str, **settings: Any) -> Iterator[str]:
        """The answer, piece by piece as it is written.

        Raises:
            UserError: as `Assistant.stream` does.
        """
        return self.chat(images).stream(question, **settings)

    def caption(self, images: Sequence[ImageInput], batch_size: int = 1, **settings: Any) -> list[Answer]:
        """A caption for each image, one after the other, as `Assistant.caption` asks for it."""
        asked, done = TEMPLATES[self.facts.template].caption, []
        for image in images:
            look = self.chat([image]).look(asked)
            done.append(about(self._answer(look, settings, task="caption"), [image], asked))
        return done

    def chat(self, images: Sequence[ImageInput] = ()) -> Chat:
        """A conversation, of questions that it can answer (`can_answer`)."""
        chat = Chat(self.engine, self._answer, self._plan)
        for image in images:
            chat.show(image)
        return chat

    def _answer(self, look: Look, settings: Mapping[str, Any], task: str | None = None) -> str:
        return self.engine.answer(look.request(self._plan(look.question, settings, task=task).params))

    def _plan(self, question: str, settings: Mapping[str, Any], streamed: bool = False, task: str | None = None) -> Plan:
        facts = self.facts
        return plan_of(question, facts.task_settings, settings, facts.defaults.params, streamed=streamed, task=task)
