"""Which backend computes a system's language model, and in how many bits: decided here, whoever is to load it."""

from collections.abc import Callable

from ..checkpoints.onnx_graph import BITS
from ..checkpoints.onnx_parts import missing
from ..errors import UserError

BACKENDS = ("auto", "torch", "onnx")
DEFAULT_BITS = "8bit"
"""Of ONNX Runtime where no precision is named: twice as fast as float32, and captions are as good (benchmarks/precision.py)."""


def choose(
    backend: str, quantize: str | None, *, named: bool, placed: bool, official: bool, fits: Callable[[], bool]
) -> tuple[str, str | None]:
    """``torch`` or ``onnx``, and how its weights are to be stored: in so many bits, or as they are.

    Args:
        named: a precision was asked for by name.
        placed: the weights are wanted on another device than the CPU, or in another precision than float32.
        fits: whether the system is one that ``auto`` may give to onnx.

    Raises:
        UserError: an unknown backend or number of bits, a backend that is not installed, or one that does not go with the rest.
    """
    if backend not in BACKENDS:
        raise UserError(f"there is no backend {backend!r}; there are {', '.join(BACKENDS)}")
    if quantize not in BITS:
        raise UserError(f"a language model can be stored in {' or '.join(filter(None, BITS))}, not {quantize!r}")
    bits = quantize or (None if named else DEFAULT_BITS)
    if backend == "onnx":
        if why := missing():
            raise UserError(why)
        if official:
            raise UserError("official behaviour is torch's; leave backend onnx out")
        if placed:
            raise UserError(
                "backend onnx runs on the CPU in float32, or with quantize 8bit or 4bit; leave device and dtype out"
            )
        return "onnx", bits
    if backend == "torch" or placed or official or quantize is not None or missing():
        return "torch", quantize
    return ("onnx", bits) if fits() else ("torch", None)
