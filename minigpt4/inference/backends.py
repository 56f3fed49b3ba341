"""Which backend computes a system's language model."""

import os
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


def choose(backend: str, source: str | os.PathLike, quantize: str | None, *, placed: bool, official: bool) -> str:
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
