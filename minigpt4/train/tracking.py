"""Where numbers go: always a JSON Lines file, and trackers for those who want them."""

from pathlib import Path
from typing import Any, Protocol

from ..errors import UserError
from ..io.atomic import saying, write_text
from ..io.jsonl import to_json, whole_rows


class Tracker(Protocol):
    """Something that takes numbers by step."""

    def log(self, step: int, values: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """One line a record, ``{"step": ..., ...}``. On resuming, records of steps that are done again are taken off."""

    def __init__(self, path: Path, step: int):
        self.path = path
        self.records = [record for record in read_records(path) if record["step"] <= step]
        """Those of earlier runs."""
        write_text(path, "".join(to_json(record) + "\n" for record in self.records))

    def log(self, step: int, values: dict[str, Any]) -> None:
        line = to_json({"step": step} | values) + "\n"
        kept = "the checkpoints are kept, and the same command goes on from the last"
        with saying(self.path, kept), self.path.open("ab") as file:
            file.write(line.encode())

    def close(self) -> None:
        """Nothing is held open."""


def read_records(path: Path) -> list[dict[str, Any]]:
    """What `JsonLines` has written, as far as it is whole; nothing if there is no such file.

    Raises:
        UserError: the file cannot be read.
    """
    return [row for row in whole_rows(path) if isinstance(row.get("step"), int)]


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


def in_short(values: dict[str, float]) -> str:
    """The numbers of a step that people watch, in one line."""
    text = (
        f"loss {values['loss']:.3f}  lr {values['lr']:.1e}  {values['tokens_per_s']:,.0f} tokens/s  "
        f"{values['samples_per_s']:.1f} samples/s  {values['mfu']:.0%} of peak"
    )
    return f"{text}  {memory:.1f} GB" if (memory := values.get("memory_gb")) else text
