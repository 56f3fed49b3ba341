"""What is shown while training goes on: a bar in a terminal, a line now and then elsewhere."""

import logging
import sys
import time
from typing import Any

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Shows the last step's numbers.

    Args:
        shown: whether this process shows anything.
    """

    def __init__(self, step: int, steps: int, shown: bool):
        self.step, self.steps, self.shown = step, steps, shown
        self._bar: Any = None
        self._task: Any = None
        self._last_line = 0.0

    def __enter__(self) -> "Progress":
        if self.shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task("", total=self.steps, completed=self.step)
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, values: dict[str, float]) -> None:
        """A step is done."""
        self.step += 1
        text = (
            f"loss {values['loss']:.3f}  lr {values['lr']:.1e}  {values['tokens_per_s']:,.0f} tokens/s  "
            f"{values['samples_per_s']:.1f} samples/s  {values['mfu']:.0%} of peak"
        )
        if memory := values.get("memory_gb"):
            text += f"  {memory:.1f} GB"
        if self._bar is not None:
            self._bar.update(self._task, completed=self.step, description=text)
        elif self.shown and (time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES or self.step == self.steps):
            self._last_line = time.monotonic()
            log.info("step %d/%d  %s", self.step, self.steps, text)
