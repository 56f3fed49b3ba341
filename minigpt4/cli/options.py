"""What several commands share: their options, and what they do before and after they ask."""

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from .terminal import remark


class Dtype(StrEnum):
    """Precision of the weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"

    @property
    def torch(self) -> Any:
        """The type itself."""
        import torch

        return getattr(torch, self.value)


class Bits(StrEnum):
    """How the language model's layers may be stored."""

    eight = "8bit"
    four = "4bit"


class Backend(StrEnum):
    """What computes the language model."""

    auto = "auto"
    torch = "torch"
    onnx = "onnx"


# Names of decoding options are those of transformers.
_DECODING = "Decoding (named as in transformers)"
Model = Annotated[str, typer.Option(help="pocket, pocket-before-stage2, pocket-after-stage2, a folder, or a hub id.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps; auto for all GPUs together; the best there is when not given.")
]
DtypeOption = Annotated[
    Dtype | None, typer.Option(help="Precision of the weights; the best for the device when not given (8bit with onnx).")
]
Quantize = Annotated[
    Bits | None, typer.Option(help="Store the language model in so few bits (needs bitsandbytes, or --backend onnx).")
]
BackendOption = Annotated[
    Backend, typer.Option(help="What computes the language model; onnx: ONNX Runtime on a CPU (pip install 'minigpt4\\[cpu]').")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Draw = Annotated[Path | None, typer.Option(help="Write the photo with the answer's boxes drawn on it.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Pictures at a time.")]


def _decoding(help: str, metavar: str = "N", **limits: Any) -> Any:
    """A setting of decoding. Its short metavar leaves room for its name on a narrow terminal."""
    return typer.Option(help=help, metavar=metavar, rich_help_panel=_DECODING, **limits)


MaxNewTokens = Annotated[int | None, _decoding("Longest answer, in tokens.", min=1)]
MinNewTokens = Annotated[int | None, _decoding("Shortest answer, in tokens; a stop text ends it sooner.", min=0)]
NumBeams = Annotated[int | None, _decoding("Beam search with so many beams.", min=1)]
DoSample = Annotated[bool | None, typer.Option("--do-sample/--no-do-sample", help="Sample.", rich_help_panel=_DECODING)]
Temperature = Annotated[float | None, _decoding("Of sampling; 0: greedy.", "X", min=0.0)]
TopP = Annotated[float | None, _decoding("Sample from this much probability.", "X", min=0.0, max=1.0)]
TopK = Annotated[int | None, _decoding("Sample from so many tokens.", min=1)]
RepetitionPenalty = Annotated[float | None, _decoding("Above 1: repeat less.", "X", min=0.01)]
LengthPenalty = Annotated[float | None, _decoding("Above 1: longer answers of beams.", "X")]
NoRepeatNgramSize = Annotated[int | None, _decoding("No N tokens in a row twice.", min=0)]
SelfConsistency = Annotated[
    int | None, _decoding("Sample so many answers; give the one they agree with most (1: the likeliest).", min=1)
]
Mirrored = Annotated[
    bool | None,
    typer.Option(help="With self-consistency: half of the answers before the mirrored picture.", rich_help_panel=_DECODING),
]
ZoomIn = Annotated[
    bool | None,
    typer.Option(
        "--zoom-in/--no-zoom-in",
        help="With ground, ask about each phrase by itself for its box; with refer and self-consistency, ask again about "
        "what surrounds the box that was found.",
        rich_help_panel=_DECODING,
    ),
]
Seed = Annotated[int | None, _decoding("For sampling.")]


@dataclass(frozen=True)
class System:
    """The system that a command is to ask, before it is loaded."""

    model: str = "pocket"
    device: str | None = None
    dtype: Dtype | None = None
    quantize: Bits | None = None
    backend: Backend = Backend.auto

    @property
    def as_named(self) -> "System":
        """The same system. Where nothing was said and ONNX Runtime is therefore taken, it is taken by name: rows of answers
        then say so, and torch does not take its place unsaid where there is no room to prepare it."""
        said = self.backend != Backend.auto or self.dtype or self.quantize
        if said or self.device == "auto" or "://" in self.model:  # or what is served elsewhere
            return self
        import_quickly()
        from ..inference.backends import way_of

        onnx = way_of(self.model, device=self.device).backend == Backend.onnx
        return replace(self, backend=Backend.onnx) if onnx else self

    @property
    def kept_as(self) -> dict[str, str]:
        """Its backend and the precision of its weights, on which answers may depend: what was said, or ONNX Runtime and its
        default where nothing was said."""
        named = self.as_named
        said: dict[str, StrEnum | None] = {"dtype": named.dtype, "quantize": named.quantize}
        if named.backend != Backend.auto:
            said["backend"] = named.backend
        kept = {name: choice.value for name, choice in said.items() if choice}
        if named.backend != Backend.onnx or named.dtype or named.quantize:
            return kept
        from ..inference.backend_choice import DEFAULT_BITS

        return kept | {"quantize": DEFAULT_BITS}

    def quick(self, question: str, generation: dict[str, Any], task: str | None = None) -> Any:
        """What answers a question, or a conversation that begins with it, without torch, in a fraction of the time; none where
        it cannot be answered so."""
        if self.device is not None:
            return None
        from ..inference.quick import quick

        said = {"dtype": self.dtype, "quantize": self.quantize, "backend": self.backend}
        named = {name: one.value for name, one in said.items() if one}
        return quick(self.model, question, generation, task=task, **named)

    def load(self) -> Any:
        """The system, loaded."""
        import_quickly()
        from ..inference.assistant import load

        spread = {"device_map": "auto"} if self.device == "auto" else {"device": self.device}
        bits = self.quantize.value if self.quantize else None
        return load(
            self.model, dtype=self.dtype.value if self.dtype else None, quantize=bits, backend=self.backend.value, **spread
        )


@dataclass(frozen=True)
class Group:
    """Options that go together: their types and defaults by name, and what a command receives in place of them."""

    options: dict[str, tuple[Any, Any]]
    make: Callable[..., Any]


SYSTEM = Group(
    {
        "model": (Model, "pocket"),
        "device": (Device, None),
        "dtype": (DtypeOption, None),
        "quantize": (Quantize, None),
        "backend": (BackendOption, Backend.auto),
    },
    System,
)
STREAMED = {  # decoding that can be shown piece by piece: without beams
    "max_new_tokens": (MaxNewTokens, None),
    "min_new_tokens": (MinNewTokens, None),
    "do_sample": (DoSample, None),
    "temperature": (Temperature, None),
    "top_p": (TopP, None),
    "top_k": (TopK, None),
    "repetition_penalty": (RepetitionPenalty, None),
    "no_repeat_ngram_size": (NoRepeatNgramSize, None),
    "seed": (Seed, None),
}


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


TALKING = Group(STREAMED, _given)
CHOSEN = {
    "num_beams": (NumBeams, None),
    "length_penalty": (LengthPenalty, None),
    "self_consistency": (SelfConsistency, None),
    "mirrored": (Mirrored, None),
    "zoom_in": (ZoomIn, None),
}
DECODING = Group(STREAMED | CHOSEN, _given)


def options(**groups: Group) -> Callable[[Callable], Callable]:
    """Give a command groups of options; each group reaches it as one keyword argument, made of what was given."""

    def decorate(command: Callable) -> Callable:
        added = {name: option for group in groups.values() for name, option in group.options.items()}

        @wraps(command)
        def with_options(**given: Any) -> Any:
            made = {key: group.make(**{name: given[name] for name in group.options}) for key, group in groups.items()}
            return command(**{name: value for name, value in given.items() if name not in added}, **made)

        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = inspect.signature(command).parameters.values()
        own = [p.replace(kind=keyword) for p in parameters if p.name not in groups and p.kind is not p.VAR_KEYWORD]
        own += [inspect.Parameter(k, keyword, default=default, annotation=kind) for k, (kind, default) in added.items()]
        with_options.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in own}
        return with_options

    return decorate


def open_all(photos: Iterable[str | Path]) -> list[Any]:
    """The pictures, opened before the model is loaded, so that what is wrong with one is said at once."""
    from ..media.images import open_image

    return [open_image(photo) for photo in photos]


def is_image_file(name: str) -> bool:
    """Whether there is a picture of this name, to see that the question has been forgotten."""
    from ..media.images import EXTENSIONS

    return Path(name).suffix.lower() in EXTENSIONS and os.path.isfile(name)


def import_quickly() -> None:
    """Import what models are made of, before anything else does so slowly; `transformers` is told to keep its remarks to
    itself."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", module=r"transformers\.")
    from .fast_import import import_transformers_quickly

    import_transformers_quickly()
    if not sys.stderr.isatty():
        from transformers.utils import logging

        logging.disable_progress_bar()


def ready_to_draw(path: Path | None) -> None:
    """See that a picture can be written there, before the model is loaded."""
    if path is not None:
        from ..inference.answer import check_writable

        check_writable(path)


def draw_boxes_of(answer: Any, path: Path) -> None:
    """The photo with an answer's boxes, into a file; where it has none, that is said."""
    answer.draw(path)
    if not answer.boxes:
        remark(f"no box in the answer: {path} is the photo alone")


def found_in(answer: Any) -> dict[str, Any]:
    """An answer's phrases and boxes for JSON; empty for an answer that points at nothing."""
    if not answer.phrases:
        return {}
    row: dict[str, Any] = {"text": answer.plain_text}
    size = None
    if answer.image is not None:
        from ..media.images import open_image

        size = open_image(answer.image).size
        row |= {"width": size[0], "height": size[1]}
    return row | {"phrases": [{"phrase": p, "boxes": [box_row(box, size) for box in boxes]} for p, boxes in answer.phrases]}


def box_row(box: Any, size: tuple[int, int] | None) -> dict[str, list[float]]:
    """A box for JSON: relative coordinates, and pixels where the picture's size is known."""
    row = {"relative": [round(v, 4) for v in box]}
    return row if size is None else {"pixels": [round(v, 1) for v in box.pixels(*size)]} | row
