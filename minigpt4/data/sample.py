"""The one sample schema: a training item before it is tokenised."""

from dataclasses import dataclass, field
from typing import Any

from ..media.images import ImageInput, Part


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A question and what should be answered to it.

    Several answers to one question (five captions of a picture) are learnt side by side, without seeing each other; only a
    sample of a single turn may have them.
    """

    question: str
    answers: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.answers:
            raise ValueError("a turn needs at least one answer")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A conversation about no, one or several pictures.

    Pictures stand before the first question, or where questions of a `placed` sample have placeholders
    (`prompt.templates.PLACEHOLDER`), in the order of `images`.
    """

    turns: tuple[Turn, ...]
    images: tuple[ImageInput, ...] = ()
    task: str | None = None
    """One of `prompt.tasks.TASKS`, or none; the identifier is already part of the question."""
    id: str = ""
    """Where the sample comes from: a dataset's name and the item's number or key in it."""
    mirrored: bool = False
    """The pictures are to be mirrored left to right (the text already is)."""
    crop: Part | None = None
    """The part of the pictures to be seen (before mirroring)."""
    placed: bool = False
    """Placeholders in the questions are places for the images. In any other sample they are text, as they are in answers."""
    apart: bool = False
    """The turns are no conversation: questions about the same pictures, learnt side by side without seeing each other."""
    extra: dict[str, Any] = field(default_factory=dict, compare=False)
    """What evaluation may want to know beside (picture size, ground truth boxes)."""

    def __post_init__(self) -> None:
        if not self.turns:
            raise ValueError(f"sample {self.id}: no turns")
        if len(self.turns) > 1 and not self.apart and any(len(turn.answers) > 1 for turn in self.turns):
            raise ValueError(f"sample {self.id}: several answers to one question are for samples of a single turn")
        if self.apart and self.placed:
            raise ValueError(f"sample {self.id}: where questions share their pictures, these stand before the questions")


def ask(question: str, *answers: str) -> tuple[Turn, ...]:
    """The turns of a single-turn sample."""
    return (Turn(question=question, answers=answers),)
