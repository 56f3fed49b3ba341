"""How a system is loaded: where its weights are kept, and what computes its language model."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.folders import find_folder, read_config, read_task_settings
from ..checkpoints.loading import fill_language_model, is_small, load_system, weight_folders
from ..checkpoints.onnx_graph import unsupported
from ..checkpoints.onnx_parts import EMBEDDINGS, prepared_graph
from ..engine.onnx_backend import OnnxBackend
from ..errors import UserError
from ..io.cores import usable_cores
from ..model.modeling import MiniGPT4ForConditionalGeneration
from ..model.processing import MiniGPT4Processor
from . import quick
from .backend_choice import choose


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
    place = _device("cpu" if device is None and device_map is None and backend == "onnx" else device)  # which runs nowhere else
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise UserError("dtype must be float32, bfloat16 or float16")
    placed = place.type != "cpu" or device_map is not None or dtype not in (None, torch.float32)
    chosen, bits = choose(
        backend, quantize, named=dtype is not None, placed=placed, official=official, fits=lambda: fits_onnx(source)
    )
    return Way(place, dtype, bits, chosen)


def _device(wanted: str | torch.device | None) -> torch.device:
    """The device of that name, or the best there is."""
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise UserError(f"{wanted}: no such device; say cpu, cuda, cuda:1 or mps") from None
    here = {"cpu": True, "meta": False, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(
        device.type
    )
    if here is False or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise UserError(f"{wanted}: this machine has no such device, or this torch was built without it; try cpu")
    return device


def fits_onnx(source: str | os.PathLike) -> bool:
    """Whether a system's language model is one that ONNX Runtime takes, and that answers in float32 on a CPU."""
    config = read_config(find_folder(source))
    return is_small(config) and not unsupported(config.text_config)


def load_onnx(
    source: str | os.PathLike, quantize: str | None
) -> tuple[MiniGPT4ForConditionalGeneration, MiniGPT4Processor, OnnxBackend]:
    """A system whose language model ONNX Runtime computes. It is prepared at the first time, with what `quick` takes; the
    model in torch gets those weights only when somebody asks for it (`Assistant.model`)."""
    config = read_config(find_folder(source))

    def make(folder: Path) -> Any:
        model, processor = load_system(source, "cpu", torch.float32)
        quick.write(folder, model, processor, read_task_settings(find_folder(source)), fits_onnx(source))
        return model.language_model

    graph = prepared_graph(weight_folders(source), config.text_config, quantize, make)
    model, processor = load_system(source, "cpu", torch.float32, embeddings=graph.with_name(EMBEDDINGS))
    vision = found if (found := graph.with_name(quick.VISION)).exists() else None
    return model, processor, OnnxBackend(graph, model, usable_cores(), lambda: fill_language_model(model, source), vision)
