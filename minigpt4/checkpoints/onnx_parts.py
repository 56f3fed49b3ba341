"""The language model's graph for ONNX Runtime, made once for a system and kept in the cache folder.

What makes it may put more beside it: all that answering a question takes, for `inference.quick`. Nothing here needs torch.
"""

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..io.cache_dir import cache_folder
from ..io.hub import commit_of
from . import pocket
from .onnx_graph import BITS, GRAPH, unsupported, write_graph

log = logging.getLogger(__name__)

_FORMAT = 4  # of the prepared folder; a change makes every graph anew
_KEPT = 3_000_000_000  # bytes of prepared graphs, four of the pocket model; who tries many weights shall not fill the disk
EMBEDDINGS = "embeddings.npy"
"""Beside the graph: the word embeddings, float32."""


class NotPrepared(UserError):
    """There is no room for the graph, or the cache folder cannot be written to."""


_DECISIVE = (".safetensors", ".bin", ".json", ".jinja", ".txt", ".model")  # weights, configurations, tokenizers
_STATE = "state.json"


def missing() -> str | None:
    """What has to be installed for it; none if nothing has."""
    if all(importlib.util.find_spec(name) for name in ("onnxruntime", "onnx")):
        return None
    return "backend onnx needs the packages onnxruntime and onnx: pip install 'minigpt4[cpu]'"


def prepared_graph(folders: list[Path], config: Any, quantize: str | None, make: Callable[[Path], Any]) -> Path:
    """The graph's file, made if it is not there, damaged, or of other weights.

    Args:
        folders: where the weights are, the system's own first and then those of its parts; their sizes and times, of hub ids
        the commit, tell one system from another. config: the language model's.
        quantize: none for float32, or ``"8bit"``, ``"4bit"``.
        make: gives the language model with its weights, adapters added; called if the graph has to be made, with the new
        folder, in which it may put more.

    Raises:
        NotPrepared: no room on the disk, or a cache folder that cannot be written to.
        UserError: a language model that there is no graph of.
    """
    if why := unsupported(config):
        raise UserError(f"backend onnx cannot run this system: {why}; use backend torch")
    folders = [folder.absolute() if folder.is_dir() else folder for folder in folders]
    kept, state = _place(folders[0], quantize), _state(folders)
    if _is_of(kept, state):
        _mark_as_used(kept)
        return kept / GRAPH
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        from filelock import FileLock

        with FileLock(kept.with_suffix(".lock")):  # another process may be making it
            if not _is_of(kept, state):
                _make(kept, state, config, BITS[quantize], make)
                _tidy(kept)
    except OSError as error:
        raise NotPrepared(
            f"cannot prepare the language model in {kept.parent} ({error.strerror or error}): it needs room there; "
            f"MINIGPT4_CACHE names another folder, and backend torch needs none"
        ) from error
    return kept / GRAPH


def prepared_folder(folder: Path, quantize: str | None) -> Path | None:
    """The prepared folder of a system, if it is there, whole, and of these weights, without anything being read that
    `prepared_graph` would have to know; none too where weights lie on the hub, which alone knows whether they have changed."""
    kept = _place(folder, quantize)
    try:
        folders = [Path(name) for name in json.loads((kept / _STATE).read_text())["folders"]]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if not all(folder.is_dir() for folder in folders) or not _is_of(kept, _state(folders)):
        return None
    _mark_as_used(kept)
    return kept


def _place(folder: Path, quantize: str | None) -> Path:
    """Where what is prepared of a system is kept."""
    name = hashlib.sha256(repr((os.path.realpath(folder), str(pocket.place()))).encode()).hexdigest()[:16]
    return cache_folder() / f"onnx-{_FORMAT}-{name}-{BITS[quantize]}"


def _state(folders: list[Path]) -> dict[str, Any]:
    """What changes when weights or configurations do."""
    paths = sorted(path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.suffix in _DECISIVE)
    files = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # a link to nothing, as editors make, or gone by now
            stat = path.stat()
            files.append([path.name, stat.st_size, stat.st_mtime_ns])
    return {
        "folders": [str(folder) for folder in folders],
        "real": [os.path.realpath(folder) if folder.is_dir() else commit_of(folder.as_posix()) for folder in folders],
        "files": files,
    }


def _is_of(kept: Path, state: dict[str, Any]) -> bool:
    try:
        return json.loads((kept / _STATE).read_text()) == state and pocket.is_intact(kept)
    except (OSError, ValueError):
        return False


def _make(kept: Path, state: dict[str, Any], config: Any, bits: int, make: Callable[[Path], Any]) -> None:
    """Write it beside its place, and move it there when it is whole."""
    for left_over in kept.parent.glob(f".{kept.name}-*"):  # of a run that was killed; we hold the lock
        shutil.rmtree(left_over, ignore_errors=True)
    log.warning("preparing the language model for ONNX Runtime, once (half a minute) ...")
    with tempfile.TemporaryDirectory(prefix=f".{kept.name}-", dir=kept.parent) as folder:
        result = Path(folder) / "result"
        result.mkdir()
        language_model = make(result)
        weights = {name: weight.detach().float().numpy() for name, weight in language_model.state_dict().items()}
        write_graph(weights, config, bits, result)
        np.save(result / EMBEDDINGS, weights["model.embed_tokens.weight"])
        (result / _STATE).write_text(json.dumps(state))
        pocket.seal(result)
        if kept.exists():
            shutil.rmtree(kept)
        os.replace(result, kept)


def _mark_as_used(kept: Path) -> None:
    with contextlib.suppress(OSError):  # a cache that may only be read
        os.utime(kept)


def _tidy(newest: Path) -> None:
    """Remove what has gone unused for longest, beyond `_KEPT`. Who has one open goes on with it: its files are mapped."""
    with contextlib.suppress(OSError):  # another process tidies at the same time
        others = [path for path in newest.parent.glob("onnx-*-*") if path.is_dir() and path != newest]
        room = _KEPT - _size(newest)
        for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
            room -= _size(path)
            if room < 0:
                shutil.rmtree(path, ignore_errors=True)


def _size(folder: Path) -> int:
    """The bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.iterdir())
