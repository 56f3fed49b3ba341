"""Learning rates by step.

The published schedules are kept under their published names, defects included: warm-up counts steps inside an epoch (so it
begins again in every epoch that it spans), and the cosine runs over the whole training as if there had been no warm-up.
"""

import math
from typing import Protocol


class Settings(Protocol):
    """What a schedule needs to know (see `recipe.Schedule`)."""

    lr: float
    min_lr: float
    warmup_lr: float
    warmup_steps: int
    steps_per_epoch: int | None
    decay_rate: float


def cosine(s: Settings, step: int, steps: int) -> float:
    """Linear warm-up from `warmup_lr`, then half a cosine from `lr` to `min_lr` over the steps that remain."""
    if step < s.warmup_steps:
        return s.warmup_lr + (s.lr - s.warmup_lr) * step / s.warmup_steps
    done = (step - s.warmup_steps) / max(steps - s.warmup_steps, 1)
    return s.min_lr + (s.lr - s.min_lr) * 0.5 * (1 + math.cos(math.pi * min(done, 1)))


def constant(s: Settings, step: int, steps: int) -> float:
    """Linear warm-up, then `lr`."""
    return s.warmup_lr + (s.lr - s.warmup_lr) * step / s.warmup_steps if step < s.warmup_steps else s.lr


def linear_warmup_cosine_lr(s: Settings, step: int, steps: int) -> float:
    """As published: see the head of this file."""
    if step < s.warmup_steps:
        return _official_warmup(s, step, steps)
    return (s.lr - s.min_lr) * 0.5 * (1 + math.cos(math.pi * step / steps)) + s.min_lr


def linear_warmup_step_lr(s: Settings, step: int, steps: int) -> float:
    """As published: warm-up inside the first epoch, then ``lr * decay_rate ** epoch``."""
    epoch = step // (s.steps_per_epoch or steps)
    if epoch == 0:
        return _official_warmup(s, step, steps)
    return max(s.min_lr, s.lr * s.decay_rate**epoch)


def _official_warmup(s: Settings, step: int, steps: int) -> float:
    in_epoch = step % (s.steps_per_epoch or steps)
    return min(s.lr, s.warmup_lr + (s.lr - s.warmup_lr) * in_epoch / max(s.warmup_steps, 1))


SCHEDULES = {
    "cosine": cosine,
    "constant": constant,
    "linear_warmup_cosine_lr": linear_warmup_cosine_lr,
    "linear_warmup_step_lr": linear_warmup_step_lr,
}
