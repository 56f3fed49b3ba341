"""Questions about the same picture, side by side in one sample.

A question about a picture is short and the picture is long: asked one at a time, most of what the language model reads is the
same picture again. Side by side, the picture is read once and each question is a branch of its own that sees no other.
"""

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..errors import UserError
from ..media.images import ImageInput, image_digest
from .sample import Sample, Turn
from .source import Problem, Source

STREAMED = "together is not for streamed datasets"


def why_not_together(turns: Sequence[Turn], placed: bool) -> str | None:
    """Why a sample of these turns cannot share its image with others in a group; None if it can."""
    if len(turns) != 1:
        return "together is for single questions, this is a conversation"
    if placed:
        return "together shows images before the questions; this one says where they stand"
    return None


def _name(image: ImageInput) -> str:
    """What an image is told apart by: its file's name, or, if it was stored in a row, what it shows."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else image_digest(image)


class Together:
    """A dataset whose samples are up to `most` samples of another that have the same pictures.

    Args:
        source: a dataset of samples of one turn each.
        most: of one picture's samples, so many at a time; what is left over is a sample too.
    """

    def __init__(self, source: Source, most: int):
        self.source, self.name = source, source.name
        by_images: dict[tuple[str, ...], list[int]] = {}
        for i in range(len(source)):
            try:
                key = tuple(map(_name, source.images(i)))
            except UserError:  # a missing picture is the reader's to tell
                key = (source.where(i),)
            by_images.setdefault(key, []).append(i)
        self._groups = [found[k : k + most] for found in by_images.values() for k in range(0, len(found), most)]

    def __len__(self) -> int:
        return len(self._groups)

    def sample(self, index: int, rng: random.Random) -> Sample:
        """The samples of a group as one.

        Raises:
            UserError: one of them is a conversation of several turns, or says where its images stand.
        """
        samples = [self.source.sample(i, rng) for i in self._groups[index]]
        for sample in samples:
            if refused := why_not_together(sample.turns, sample.placed):
                raise UserError(f"{sample.id}: {refused}")
        turns = tuple(sample.turns[0] for sample in samples)
        return replace(samples[0], turns=turns, apart=True)

    def images(self, index: int) -> tuple[ImageInput, ...]:
        return self.source.images(self._groups[index][0])

    def where(self, index: int) -> str:
        return self.source.where(self._groups[index][0])

    def problems(self) -> Iterator[Problem]:
        return self.source.problems()
