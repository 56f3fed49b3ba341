"""Stops a run whose loss is of no use any more, and keeps the batch that did it."""

import math
from pathlib import Path
from typing import Any

import torch

from ..data.collate import Batch
from ..errors import UserError

_PATIENCE = 50  # steps that the smoothed loss may stay far above its best
_FAR = 2.0  # times the best


class Watch:
    """Looks at every step's loss.

    Args:
        folder: where the batch of a bad step is kept for inspection.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.smooth: float | None = None
        self.best, self.bad = math.inf, 0

    def check(self, step: int, loss: float, batches: list[Batch]) -> None:
        """Raises UserError where the loss is no number, or has been far above its best for long."""
        if not math.isfinite(loss):
            self._stop(step, batches, f"the loss is {loss}")
        self.smooth = loss if self.smooth is None else 0.9 * self.smooth + 0.1 * loss
        self.best = min(self.best, self.smooth)
        self.bad = self.bad + 1 if self.smooth > _FAR * self.best + 0.5 else 0
        if self.bad > _PATIENCE:
            self._stop(step, batches, f"the loss has grown from {self.best:.3f} to {self.smooth:.3f}")

    def check_gradient(self, step: int, norm: float, batches: list[Batch]) -> None:
        """Raises UserError where the gradient is no number: the step would break the weights."""
        if not math.isfinite(norm):
            self._stop(step, batches, f"the gradient's norm is {norm}")

    def state_dict(self) -> dict[str, Any]:
        return {"smooth": self.smooth, "best": self.best, "bad": self.bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.smooth, self.best, self.bad = state["smooth"], state["best"], state["bad"]

    def _stop(self, step: int, batches: list[Batch], why: str) -> None:
        path = self.folder / f"bad-batch-step-{step}.pt"
        try:
            torch.save([{"inputs": batch.inputs, "ids": batch.ids} for batch in batches], path)
            kept = f"its batch is in {path}"
        except (OSError, RuntimeError):  # a full disk; the loss is what matters
            path.unlink(missing_ok=True)
            kept = f"its batch could not be written to {path}"
        raise UserError(f"step {step}: {why}; {kept}. Try a lower schedule.lr, a longer warm-up, or precision fp32")
