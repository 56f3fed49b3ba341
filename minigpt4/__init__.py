"""MiniGPT-4 and its family: a frozen eye, a frozen mind, and one trained projection between them.

Nothing heavy is imported until it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "load": ".assistant",
    "Assistant": ".assistant",
    "Chat": ".chat",
    "Answer": ".prompt.answer",
    "UserError": ".errors",
    "MiniGPT4Config": ".model.config",
    "MiniGPT4ForConditionalGeneration": ".model.minigpt4",
    "MiniGPT4ImageProcessor": ".model.processor",
    "MiniGPT4Processor": ".model.processor",
}
__all__ = list(_HOMES)

if TYPE_CHECKING:
    from .assistant import Assistant, load
    from .chat import Chat
    from .errors import UserError
    from .model.config import MiniGPT4Config
    from .model.minigpt4 import MiniGPT4ForConditionalGeneration
    from .model.processor import MiniGPT4ImageProcessor, MiniGPT4Processor
    from .prompt.answer import Answer


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
