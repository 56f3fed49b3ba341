"""A prepared graph of `checkpoints.onnx_graph`, run by ONNX Runtime on arrays; nothing here needs torch.

Shapes: R rows, Q new positions, S positions a block has room for, N heads of keys and values, D their width, H the language
model's width, V the vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .limits import out_of_memory

Arrays = Sequence[tuple[np.ndarray, np.ndarray]]
"""Keys and values (R, N, S, D) of each layer, float32, written in place."""


class CannotRun(UserError):
    """ONNX Runtime does not take the graph: it is gone, damaged, or of operators that this version has not."""


class LanguageModelSession:
    """The language model's graph.

    Args:
        graph: ``model.onnx``, its weights beside it; they are mapped into memory.
        threads, packed: as in `session`.

    Raises:
        UserError: ONNX Runtime is not installed.
    """

    def __init__(self, graph: Path, threads: int, packed: bool = True):
        self._session = session(graph, threads, packed)
        keys = [one for one in self._session.get_inputs() if one.name.startswith("keys_")]
        self.layers = len(keys)
        _, self.heads, _, self.width = keys[0].shape
        self.vocabulary: int = self._session.get_outputs()[0].shape[1]

    def new_block(self, rows: int, positions: int) -> Arrays:
        """Room for so many rows and positions."""
        shape = (rows, self.heads, positions, self.width)
        return [(np.zeros(shape, np.float32), np.zeros(shape, np.float32)) for _ in range(self.layers)]

    def run(self, block: Arrays, embeds: np.ndarray, totals: Sequence[int], keep: Sequence[int], logits: np.ndarray) -> None:
        """New positions (R, Q, H), float32, fill each row of a block to its total; the logits at some flat places are written
        to `logits` (kept, V), float32."""
        binding = self._session.io_binding()
        given = {
            "embeds": np.ascontiguousarray(embeds),
            "seqlens": np.array(totals, np.int32) - np.int32(1),
            "total": np.array(max(totals), np.int32),
            "keep": np.array(keep, np.int64),
        }
        for name, array in given.items():
            binding.bind_input(name, *_place(array))
        binding.bind_output("logits", *_place(logits))
        for layer, pair in enumerate(block):
            for name, array in zip((f"keys_{layer}", f"values_{layer}"), pair, strict=True):
                place = _place(array)
                binding.bind_input(name, *place)
                binding.bind_output(f"new_{name}", *place)
        self._session.run_with_iobinding(binding)


def _place(array: np.ndarray) -> tuple:
    return "cpu", 0, array.dtype.type, array.shape, array.ctypes.data


def session(graph: Path, threads: int, packed: bool = True) -> Any:
    """A graph ready to be run on the CPU.

    Args:
        threads: of one step.
        packed: lay float32 weights out anew for long products. That takes longer than one prompt gains by it, and weights that
            are read as they lie in the file need no memory of this process.

    Raises:
        CannotRun: the graph's file is gone or damaged, or this ONNX Runtime does not know its operators.
        UserError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime as ort
    except ImportError:
        raise UserError("backend onnx needs the packages onnxruntime and onnx: pip install 'minigpt4[cpu]'") from None
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Threads that wait by turning round and round take the cores from who else is there.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_prepacking", "0" if packed else "1")
    try:
        return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common base
        if out_of_memory(error) is not error:
            raise
        said = " ".join(str(error).split())[:200]
        raise CannotRun(
            f"{graph}: ONNX Runtime {ort.__version__} cannot run it ({said}); remove {graph.parent}, or take backend torch"
        ) from error
