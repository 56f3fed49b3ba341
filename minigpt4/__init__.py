"""MiniGPT-4 and its family: a frozen vision encoder, a frozen language model, and one trained projection between them.

Nothing heavy is imported until it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "load": ".inference.assistant",
    "Assistant": ".inference.assistant",
    "Chat": ".inference.chat",
    "Answer": ".inference.answer",
    "UserError": ".errors",
    "MiniGPT4Config": ".model.configuration",
    "MiniGPT4ForConditionalGeneration": ".model.modeling",
    "MiniGPT4ImageProcessor": ".model.processing",
    "MiniGPT4Processor": ".model.processing",
}
__all__ = list(_HOMES)

if TYPE_CHECKING:
    from .errors import UserError
    from .inference.answer import Answer
    from .inference.assistant import Assistant, load
    from .inference.chat import Chat
    from .model.configuration import MiniGPT4Config
    from .model.modeling import MiniGPT4ForConditionalGeneration
    from .model.processing import MiniGPT4ImageProcessor, MiniGPT4Processor


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
