"""The language model in ONNX Runtime: on a CPU faster than torch, and faster again with weights of few bits.

The graph is `checkpoints.onnx_graph`'s; its attention writes keys and values where they lie, so that nothing is copied in a
step.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from ..errors import UserError
from .backend import Block
from .completion import EncodedImage


class OnnxBackend:
    """A prepared graph, run on the CPU.

    Args:
        graph: ``model.onnx``, its weights beside it; they are mapped into memory.
        model: whose images and words are embedded.
        threads: of one step.
        fill: gives the model's language model its weights, where they were left out.

    Raises:
        UserError: ONNX Runtime is not installed.
    """

    name = "onnx"

    def __init__(self, graph: Path, model: Any, threads: int, fill: Callable[[], None] | None = None):
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # Threads that wait by turning round and round take the cores from who else is there.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.model, self._fill, self._filling = model, fill, Lock()
        self.session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        config = model.config.text_config
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._layers, self._heads, self._width = config.num_hidden_layers, config.num_key_value_heads, width
        self._vocabulary = config.vocab_size

    def complete(self) -> None:
        with self._filling:
            if self._fill is not None:
                self._fill()
                self._fill = None

    def new_block(self, rows: int, positions: int) -> Block:
        shape = (rows, self._heads, positions, self._width)
        return [(torch.zeros(shape), torch.zeros(shape)) for _ in range(self._layers)]

    def embed(self, ids: Sequence[int], images: Sequence[EncodedImage] = ()) -> torch.Tensor:
        known = torch.stack([image.embeds for image in images]) if images else None
        return self.model.embed(torch.tensor([list(ids)]), known)[0].float()

    def read(self, block: Block, embeds: torch.Tensor, past: int, lengths: Sequence[int]) -> torch.Tensor:
        ends = [row * embeds.shape[1] + length - 1 for row, length in enumerate(lengths)]
        # Where all begin, the attention takes each row's own length; further on it takes one row.
        totals = [past + length for length in lengths]
        return self._run(block, embeds.float(), totals, ends)

    def step(self, block: Block, tokens: Sequence[int], lengths: Sequence[int]) -> torch.Tensor:
        feed = self.model.get_input_embeddings()(torch.tensor(tokens)[:, None]).float()
        return self._run(block, feed, [length + 1 for length in lengths], list(range(len(tokens))))

    def read_each(self, block: Block, known: int, candidates: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        return [self._run(block, self.embed(ids)[None], [known + len(ids)], list(range(len(ids)))) for ids in candidates]

    def _run(self, block: Block, embeds: torch.Tensor, totals: list[int], keep: list[int]) -> torch.Tensor:
        """The graph over new positions (R, Q, H) that fill each row to its total -> logits at some flat places, (kept, V)."""
        binding = self.session.io_binding()
        logits = torch.empty(len(keep), self._vocabulary)
        given = {
            "embeds": embeds.contiguous(),
            "seqlens": torch.tensor(totals, dtype=torch.int32) - 1,
            "total": torch.tensor(max(totals), dtype=torch.int32),
            "keep": torch.tensor(keep),
        }
        for name, tensor in given.items():
            binding.bind_input(name, "cpu", 0, _ONNX[tensor.dtype], tuple(tensor.shape), tensor.data_ptr())
        binding.bind_output("logits", "cpu", 0, _ONNX[logits.dtype], tuple(logits.shape), logits.data_ptr())
        for layer, pair in enumerate(block):
            for name, tensor in zip((f"keys_{layer}", f"values_{layer}"), pair, strict=True):
                where = ("cpu", 0, _ONNX[tensor.dtype], tuple(tensor.shape), tensor.data_ptr())
                binding.bind_input(name, *where)
                binding.bind_output(f"new_{name}", *where)
        self.session.run_with_iobinding(binding)
        return logits


_ONNX = {torch.float32: 1, torch.int32: 6, torch.int64: 7}  # numbers of element types in ONNX


def onnxruntime() -> Any:
    """The package, or what to do where it is missing."""
    try:
        import onnxruntime as ort
    except ImportError:
        raise UserError("backend onnx needs the packages onnxruntime and onnx: pip install 'minigpt4[cpu]'") from None
    return ort
