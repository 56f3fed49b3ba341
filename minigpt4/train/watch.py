"""Stops a run whose loss is of no use any more, and keeps the batch that did it."""

import math
from collections import deque
from pathlib import Path
from typing import Any

import torch

from ..data.collate import Batch
from ..errors import UserError

_WINDOW = 50  # steps whose mean loss is looked at: enough to hold some of every dataset of a mixture


class Watch:
    """Looks at every step's loss.

    Args:
        folder: where the batch of a bad step is kept for inspection.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.recent: deque[float] = deque(maxlen=_WINDOW)
        self.best = math.inf

    def check(self, step: int, loss: float, batches: list[Batch]) -> None:
        """Raises UserError where the loss is no number, or where its mean over many steps has gone far above the best one.

        Single losses say little: where a step's samples come from one dataset, short answers cost a tenth of what stories
        cost, and rewards may be below nought.
        """
        if not math.isfinite(loss):
            self._stop(step, batches, f"the loss is {loss}")
        self.recent.append(loss)
        if len(self.recent) < _WINDOW:
            return
        mean = math.fsum(self.recent) / _WINDOW
        self.best = min(self.best, mean)
        if mean > self.best + abs(self.best) + 0.5:
            self._stop(step, batches, f"the mean loss of {_WINDOW} steps has grown from {self.best:.3f} to {mean:.3f}")

    def check_gradient(self, step: int, norm: float, batches: list[Batch]) -> None:
        """Raises UserError where the gradient is no number: the step would break the weights."""
        if not math.isfinite(norm):
            self._stop(step, batches, f"the gradient's norm is {norm}")

    def state_dict(self) -> dict[str, Any]:
        return {"recent": list(self.recent), "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.recent, self.best = (
            deque(state.get("recent", []), maxlen=_WINDOW),
            state["best"] if "recent" in state else math.inf,
        )

    def _stop(self, step: int, batches: list[Batch], why: str) -> None:
        path = self.folder / f"bad-batch-step-{step}.pt"
        try:
            torch.save([{"inputs": batch.inputs, "ids": batch.ids} for batch in batches], path)
            kept = f"its batch is in {path}"
        except (OSError, RuntimeError):  # a full disk; the loss is what matters
            path.unlink(missing_ok=True)
            kept = f"its batch could not be written to {path}"
        raise UserError(f"step {step}: {why}; {kept}. Try a lower schedule.lr, a longer warm-up, or precision fp32")
