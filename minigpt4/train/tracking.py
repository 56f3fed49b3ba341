"""Where numbers go: always a JSON Lines file, and trackers for those who want them."""

import json
import os
from pathlib import Path
from typing import Any, Protocol

from ..errors import UserError


class Tracker(Protocol):
    """Something that takes numbers by step."""

    def log(self, step: int, values: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """One line a record, ``{"step": ..., ...}``. On resuming, records of steps that are done again are taken off."""

    def __init__(self, path: Path, step: int):
        self.path = path
        if path.exists():
            kept = []
            for line in path.read_text().splitlines():
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line + "\n")
                except ValueError:  # cut short by a kill
                    continue
            work = path.with_suffix(".tmp")
            work.write_text("".join(kept))
            os.replace(work, path)

    def log(self, step: int, values: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step} | values, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Nothing is held open."""


class TensorBoard:
    """TensorBoard's event files, in ``tensorboard/`` beside the weights."""

    def __init__(self, folder: Path, settings: dict[str, Any]):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, step: int, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(name, value, step)
            elif isinstance(value, str):
                self.writer.add_text(name, value, step)

    def close(self) -> None:
        self.writer.close()


class Run:
    """A run of trackio or wandb, which have one interface."""

    def __init__(self, module: Any, folder: Path, settings: dict[str, Any]):
        self.module = module
        self.run = module.init(project="minigpt4", name=folder.name, config=settings)

    def log(self, step: int, values: dict[str, Any]) -> None:
        self.module.log(values, step=step)

    def close(self) -> None:
        self.module.finish()


def _trackio(folder: Path, settings: dict[str, Any]) -> Tracker:
    import trackio

    return Run(trackio, folder, settings)


def _wandb(folder: Path, settings: dict[str, Any]) -> Tracker:
    import wandb

    return Run(wandb, folder, settings)


TRACKERS = {"tensorboard": TensorBoard, "trackio": _trackio, "wandb": _wandb}


def open_tracker(name: str, folder: Path, settings: dict[str, Any]) -> Tracker:
    """A tracker by name; UserError if its package is not installed."""
    try:
        return TRACKERS[name](folder, settings)
    except ImportError:
        raise UserError(f"the recipe asks for the tracker {name}, which is not installed: pip install {name}") from None
