"""Importing `transformers` in two thirds of the time, for commands that only want an answer.

Half of what ``from transformers import PreTrainedModel`` imports serves compilation (``torch._dynamo``, with sympy) and
distributed execution (``torch.distributed.tensor``, FSDP); on a laptop that is about 0.8 s before a single token. Neither
is used to answer a question. While `transformers` is being imported

- ``torch._dynamo`` is a stand-in whose decorators hand functions back as they are. They mark functions for the compiler, in
  modules for quantised experts and continuous batching that a command like ``ask`` never runs;
- ``torch.distributed`` says that it is not available, which is what it says on builds without it.

Both are put back afterwards, so that later code which wants the compiler gets the real one. Only the command line does
this, in processes that end with the answer; ``import minigpt4`` changes nothing.

`without_collector` saves a fifth of what is left, and is for every command: a million objects are made by these imports, none
of them garbage, and the collector looks at all of them again whenever they have become a quarter more.
"""

import gc
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"


@contextmanager
def without_collector() -> Iterator[None]:
    """Inside, no garbage is looked for: for imports, which make none. What the first of them made is not looked at later."""
    was, first = gc.isenabled(), "torch" not in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if first:
            gc.freeze()
        if was:
            gc.enable()


def import_transformers_quickly() -> None:
    """Import what answering needs; the plain way if anything about the quick way fails."""
    if "transformers.modeling_utils" in sys.modules or _COMPILER in sys.modules:
        return
    try:
        with without_collector(), _without_compiler_and_cluster():
            from transformers.models.llama import modeling_llama  # noqa: F401

            from .. import model  # noqa: F401
    except Exception:  # a version of these libraries that does more with them while it is imported
        for name in list(sys.modules):  # begun in the quick way: import it afresh
            if name.partition(".")[0] == "transformers" or name.startswith("minigpt4.model"):
                del sys.modules[name]


@contextmanager
def _without_compiler_and_cluster() -> Iterator[None]:
    import torch
    import torch.compiler
    import torch.distributed

    stand_in = _stand_in()
    was_available, was_disable = torch.distributed.is_available, torch.compiler.disable
    sys.modules[_COMPILER] = stand_in
    torch.distributed.is_available = lambda: False
    torch.compiler.disable = _as_it_is  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.distributed.is_available, torch.compiler.disable = was_available, was_disable
        if sys.modules.get(_COMPILER) is stand_in:
            del sys.modules[_COMPILER]
            torch.__dict__.pop("_dynamo", None)  # bound by the import; the next one binds the real module


def _stand_in() -> ModuleType:
    spec = importlib.util.find_spec(_COMPILER)
    if spec is None:
        raise ImportError(_COMPILER)
    module = ModuleType(_COMPILER)
    module.__spec__, module.__path__ = spec, spec.submodule_search_locations or []

    def attribute(name: str) -> Callable:
        if name.startswith("__"):
            raise AttributeError(name)
        return _as_it_is

    module.__getattr__ = attribute  # type: ignore[method-assign]
    return module


def _as_it_is(function: Any = None, *_: Any, **__: Any) -> Any:
    """A decorator, with or without arguments, that changes nothing."""
    return function if callable(function) else lambda f: f
