"""Which backend computes a system's language model."""

import os
from dataclasses import dataclass
from typing import Any

import torch

from ..checkpoints.folders import find_folder, read_config
from ..checkpoints.loading import fill_language_model, is_small, load_system, weight_folders
from ..checkpoints.onnx_graph import unsupported
from ..checkpoints.onnx_parts import EMBEDDINGS, missing, prepared_graph
from ..engine.onnx_backend import OnnxBackend
from ..errors import UserError
from ..io.cores import usable_cores
from ..model.modeling import MiniGPT4ForConditionalGeneration
from ..model.processing import MiniGPT4Processor

BACKENDS = ("auto", "torch", "onnx")
DEFAULT_BITS = "8bit"
"""Of ONNX Runtime where no precision is named: twice as fast as float32, and captions are as good (benchmarks/precision.py)."""


@dataclass(frozen=True)
class Way:
    """How a system's weights are kept, and what computes its language model."""

    device: torch.device
    dtype: torch.dtype | None = None
    quantize: str | None = None
    backend: str = "torch"


def way_of(
    source: str | os.PathLike,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    quantize: str | None = None,
    device_map: Any = None,
    official: bool = False,
    backend: str = "auto",
) -> Way:
    """What `inference.assistant.load` does with these arguments, which are its own.

    Raises:
        UserError: no such system, device, precision or backend, or arguments that do not go together.
    """
    place = _device(device)
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise UserError("dtype must be float32, bfloat16 or float16")
    placed = place.type != "cpu" or device_map is not None or dtype not in (None, torch.float32)
    chosen = _backend(backend, source, quantize, placed=placed, official=official)
    if chosen == "onnx" and quantize is None and dtype is None:
        quantize = DEFAULT_BITS
    return Way(place, dtype, quantize, chosen)


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


def _backend(backend: str, source: str | os.PathLike, quantize: str | None, *, placed: bool, official: bool) -> str:
    """``torch`` or ``onnx``.

    Args:
        placed: the weights are wanted on another device than the CPU, or in another precision than float32.

    Raises:
        UserError: an unknown backend, one that is not installed, or one that does not go with the rest.
    """
    if backend not in BACKENDS:
        raise UserError(f"there is no backend {backend!r}; there are {', '.join(BACKENDS)}")
    if backend == "onnx":
        if why := missing():
            raise UserError(why)
        if official:
            raise UserError("official behaviour is torch's; leave backend onnx out")
        if placed:
            raise UserError(
                "backend onnx runs on the CPU in float32, or with quantize 8bit or 4bit; leave device and dtype out"
            )
        return "onnx"
    if backend == "torch" or placed or official or quantize is not None or missing():
        return "torch"
    config = read_config(find_folder(source))
    return "onnx" if is_small(config) and not unsupported(config.text_config) else "torch"


def load_onnx(
    source: str | os.PathLike, quantize: str | None
) -> tuple[MiniGPT4ForConditionalGeneration, MiniGPT4Processor, OnnxBackend]:
    """A system with its language model in ONNX Runtime, prepared at the first time. torch gets that one's weights when somebody
    wants them."""
    config = read_config(find_folder(source))

    def language_model() -> Any:
        return load_system(source, "cpu", torch.float32)[0].language_model

    graph = prepared_graph(weight_folders(source), config.text_config, quantize, language_model)
    model, processor = load_system(source, "cpu", torch.float32, embeddings=graph.with_name(EMBEDDINGS))
    return model, processor, OnnxBackend(graph, model, usable_cores(), lambda: fill_language_model(model, source))
