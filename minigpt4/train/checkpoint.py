"""Checkpoints: everything that the next step depends on, on disk whole or not at all.

    checkpoints/step-00000500/
        config.json, trained.safetensors, ...   what minigpt4.load reads
        optimizer.safetensors                   AdamW's two moments, and the running average of the weights
        state.json                              step, position in the data, random states, what was best, by process
        recipe.yaml                             the recipe in force
        manifest.json                           size and digest of each file; written last

A checkpoint is written beside its place and moved there when its manifest is on disk. One that does not agree with its
manifest is moved aside (``damaged-step-...``), with a warning, and the one before it is taken.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ..io.atomic import saying, write_folder, write_text

log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
STATE = "state.json"
OPTIMIZER = "optimizer.safetensors"
CHECKPOINTS = "checkpoints"
"""The folder of a run's checkpoints in its output."""


def set_aside(output: Path) -> Path:
    """Give the folder of a run's checkpoints another name, so that the run begins anew; returns that name.

    Raises:
        UserError: it cannot be renamed.
    """
    folder = output / CHECKPOINTS
    names = (folder.with_name(f"{CHECKPOINTS}-before-{number}") for number in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    with saying(folder):
        folder.rename(aside)
    return aside


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: where they are.
        keep: how many to keep beside the best one.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep

    def save(self, step: int, write: Callable[[Path], None], best: bool = False) -> None:
        """Make a checkpoint with what `write` puts into the folder that it is given; older ones are removed afterwards.

        Raises:
            UserError: it cannot be written (a full disk, say); earlier ones stay.
        """
        final = self.folder / f"step-{step:08d}"
        work = self.folder / f".step-{step:08d}"

        def with_manifest(folder: Path) -> None:
            write(folder)
            manifest = {p.name: [p.stat().st_size, _digest(p)] for p in sorted(folder.iterdir())}
            (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1))

        with saying(final, "earlier ones are kept"):
            for left in self.folder.glob(".step-*"):  # by runs that were killed while they wrote
                shutil.rmtree(left, ignore_errors=True)
            write_folder(final, work, with_manifest)
        if best:
            self.mark_best(step)
        self._tidy(final)

    def latest(self) -> Path | None:
        """The newest checkpoint that is whole; damaged ones are named and moved aside, or they would count as the newest when
        older ones are removed."""
        damaged = 0
        for folder in sorted(self.folder.glob("step-*"), reverse=True):
            fault = _fault(folder)
            if fault is None:
                return folder
            damaged += 1
            aside = folder.with_name(f"damaged-{folder.name}")
            log.warning("%s is damaged (%s): going back to the checkpoint before it", folder, fault)
            with contextlib.suppress(OSError):
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
        if damaged:
            log.warning("%s: no checkpoint is whole; the run begins anew", self.folder)
        return None

    def best(self) -> Path | None:
        """The checkpoint with the best validation loss so far, if one was marked."""
        mark = self.folder / "best"
        folder = self.folder / mark.read_text().strip() if mark.exists() else None
        return folder if folder is not None and folder.is_dir() else None

    def mark_best(self, step: int) -> None:
        """Say of a checkpoint that it is the best so far; nothing if it is not there."""
        name = f"step-{step:08d}"
        if (self.folder / name).is_dir():
            write_text(self.folder / "best", name)

    def _tidy(self, newest: Path) -> None:
        best = self.best()
        kept = [*sorted(self.folder.glob("step-*"))[-self.keep :], newest]
        for folder in self.folder.glob("step-*"):
            if folder not in kept and folder != best:
                shutil.rmtree(folder, ignore_errors=True)


def save_optimizer(
    optimizer: torch.optim.Optimizer, names: dict[torch.Tensor, str], average: dict[str, torch.Tensor] | None, path: Path
) -> None:
    """AdamW's state by parameter name, with the running average of the weights if there is one."""
    tensors = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            tensors[f"{key}:{names[parameter]}"] = torch.as_tensor(value).detach().cpu().contiguous()
    for name, value in (average or {}).items():
        tensors[f"average:{name}"] = value.detach().cpu().contiguous()
    save_file(tensors, path)


def load_optimizer(
    optimizer: torch.optim.Optimizer, names: dict[torch.Tensor, str], average: dict[str, torch.Tensor] | None, path: Path
) -> None:
    """The inverse of `save_optimizer`."""
    tensors = load_file(path)
    state = optimizer.state_dict()
    flat = [p for group in optimizer.param_groups for p in group["params"]]
    state["state"] = {
        number: {key: tensors[f"{key}:{names[p]}"] for key in ("step", "exp_avg", "exp_avg_sq")}
        for number, p in enumerate(flat)
        if f"step:{names[p]}" in tensors
    }
    optimizer.load_state_dict(state)
    for name, value in (average or {}).items():
        value.copy_(tensors[f"average:{name}"])


def random_state() -> dict[str, Any]:
    """The states of the generators that a training step draws from."""
    states = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return {name: state.numpy().tobytes().hex() for name, state in states.items()}


def set_random_state(saved: dict[str, Any]) -> None:
    """The inverse of `random_state`."""
    states = {name: torch.from_numpy(np.frombuffer(bytes.fromhex(text), np.uint8).copy()) for name, text in saved.items()}
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        if not isinstance(manifest, dict) or not {STATE, OPTIMIZER} <= set(manifest):
            return f"{_MANIFEST} is none of a checkpoint"
        for name, (size, digest) in manifest.items():
            path = folder / name
            if path.stat().st_size != size:
                return f"{name} is cut short"
            if _digest(path) != digest:
                return f"{name} has changed"
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return str(error)
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
