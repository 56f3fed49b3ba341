"""How much an engine takes on at once, and what it has done."""

from dataclasses import dataclass

from ..errors import UserError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much an engine takes on at once."""

    rows: int = 64
    """Answers that are decoded together."""
    tokens: int = 65_536
    """Positions of keys and values: rows times the longest of them."""
    waiting: int = 1024
    """Requests that wait; one more is refused."""
    prefill: int = 512
    """Tokens of prompts that are read between two tokens of running answers."""
    image_bytes: int = 256 << 20
    """Memory for encoded images."""
    prefix_bytes: int = 256 << 20
    """Memory for beginnings of prompts that were read before."""

    def __post_init__(self) -> None:
        for name in ("rows", "tokens", "waiting", "prefill"):
            if getattr(self, name) < 1:
                raise UserError(f"an engine's {name} must be at least 1, not {getattr(self, name)}")


@dataclass
class Stats:
    """What an engine has done so far, and what it is doing."""

    waiting: int = 0
    running: int = 0
    requests: int = 0
    cancelled: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    images_encoded: int = 0
    images_known: int = 0


def out_of_memory(error: Exception) -> Exception:
    """The same error, or what to do where memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error):
        return UserError("the memory does not suffice for this question: ask with fewer or smaller images, or a shorter text")
    return error
