"""What a model can see of a text in its image: things that its [detection] finds, and sentences that the image makes likelier.

Source: ScaleCap (arXiv 2506.19848) takes out sentences whose likelihood does not rise with the image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..dialogue.nouns import nouns
from ..engine.completion import Request
from ..engine.engine import Engine
from ..errors import UserError
from ..io.jsonl import Row
from ..media.images import ImageInput
from ..prompt.templates import with_images
from .recipe import Recipe
from .rules import sentences


class System(Protocol):
    """What of `inference.assistant.Assistant` is needed here."""

    engine: Engine

    def detect(self, image: ImageInput, phrase: str, *, self_consistency: int) -> Any:
        """An answer with ``phrases``: (phrase, boxes) pairs."""
        ...


@dataclass(frozen=True)
class Check:
    """The checks of a recipe. Each is None where the recipe names nobody for it.

    Args:
        finds: (image, thing) -> whether it is found there.
        gains: (image, sentences) -> how much likelier the image makes each.
    """

    finds: Callable[[str, str], bool] | None = None
    gains: Callable[[str, Sequence[str]], list[float]] | None = None

    def of(self, row: Row) -> Row:
        """``unfound`` (things that are found nowhere, with ``things`` of how many), ``gains`` (nats a token, by sentence)."""
        added: Row = {}
        try:
            if self.finds is not None:
                things = nouns(row["text"])
                added |= {"things": len(things), "unfound": [thing for thing in things if not self.finds(row["image"], thing)]}
            if self.gains is not None:
                said = sentences(row["text"])
                added["gains"] = [round(gain, 4) for gain in self.gains(row["image"], said)] if said else []
        except UserError as error:
            return {"error": str(error)}
        return added


def check_of(recipe: Recipe, system: Callable[[str], System]) -> Check:
    """The checks that a recipe names, by systems of ours."""
    detector, scorer = recipe.check.detector, recipe.check.scorer
    return Check(
        finds=None if detector is None else finder(system(detector)),
        gains=None if scorer is None else gain_of(system(scorer).engine, recipe.describe.prompt),
    )


def finder(system: System) -> Callable[[str, str], bool]:
    """Whether a system's [detection] finds a thing in an image. One answer tells; where exactly it is does not matter, which is
    what a system's own sixteen are for."""
    return lambda image, thing: any(boxes for _, boxes in system.detect(image, thing, self_consistency=1).phrases)


def gain_of(engine: Engine, question: str) -> Callable[[str, Sequence[str]], list[float]]:
    """How much likelier an image makes each of several sentences as the answer to a question: the difference of their
    log-probabilities with the image and without it, in nats a token. The answer's end is not counted."""

    def score(images: Sequence[ImageInput], said: Sequence[str]) -> list[list[float]]:
        content = with_images(engine.plain(question), len(images))
        found = engine.score(
            Request(
                messages=[{"role": "user", "content": content}],
                images=images,
                candidates=[engine.plain(sentence) for sentence in said],
            )
        )
        return [[one.logprob for one in answer.logprobs or ()][:-1] for answer in found]

    def gains(image: str, said: Sequence[str]) -> list[float]:
        seen, unseen = score([image], said), score([], said)
        return [(sum(a) - sum(b)) / max(len(a), 1) for a, b in zip(seen, unseen, strict=True)]

    return gains
