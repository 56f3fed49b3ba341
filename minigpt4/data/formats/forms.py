"""Forms of rows that published datasets have beside those of our schema."""

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ...media.images import open_image
from ...prompt.boxes import Box
from ...prompt.tasks import TASKS
from ..sample import ask
from ..schema import Row, phrase_turns


@dataclass(frozen=True, kw_only=True)
class Written(Row):
    """What is answered to the instruction of a task is written out already, boxes and all."""

    subject: str = ""
    """What the instruction is about."""
    answer: str

    def turns(self, task, rng, style):
        return ask(TASKS[task].instruction(self.subject, rng), self.answer)


@dataclass(frozen=True, kw_only=True)
class Thing(Row):
    """A thing in an image: where it is, and what people call it, of which one is drawn."""

    phrases: tuple[str, ...]
    places: tuple[Box, ...]

    def turns(self, task, rng, style):
        return phrase_turns(task, rng.choice(self.phrases), self.places, rng, style.rounding)

    @property
    def boxes(self):
        return self.places


@dataclass(frozen=True, kw_only=True)
class ThingInPixels(Row):
    """A thing in an image whose size may have to be looked up in the image itself."""

    phrases: tuple[str, ...]
    xywh: tuple[float, ...]
    over_edges: bool = False
    """Whether a box that reaches over the image's edge stays as it is."""

    def seen(self, image):
        box = Box.from_xywh(*self.xywh, *(self.size or _size(image)))
        common = {name: getattr(self, name) for name in ("where", "images", "aliases", "task", "id", "size", "phrases")}
        return Thing(**common, places=(box if self.over_edges else box.clipped(),))

    def turns(self, task: str | None, rng: random.Random, style: Any):
        raise TypeError("the row has no box before its image is seen")


@lru_cache(100_000)
def _size(image: Any) -> tuple[int, int]:
    return open_image(image).size
