"""What a dataset is to the rest of the house: samples that can be drawn, and a list of what is wrong with them."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from ..media.images import ImageInput
from .sample import Sample


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is missing or broken in a dataset."""

    kind: str
    """``malformed row``, ``missing picture``, ``broken picture``, ``broken shard``, ``duplicate`` or ``unreadable``."""
    where: str
    """File and line, index or key: ``captions.jsonl:17``, ``vqa_train.json[17]``, ``00003.tar:000031``."""
    message: str
    """What is wrong and what was expected, in one line that names `where` too."""


class Remark(Problem):
    """A mistake that a dataset is known to have; its samples do without what is wrong."""


@runtime_checkable
class Source(Protocol):
    """A dataset of known length whose samples can be drawn in any order."""

    name: str

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: random.Random) -> Sample:
        """One sample; every random choice (wording, which answer, which sentence) is made by `rng`.

        Raises:
            UserError: its picture is missing, or its annotation has changed since the source was made.
        """
        ...

    def images(self, index: int) -> tuple[ImageInput, ...]:
        """The pictures of a sample, without making the sample. Raises UserError as `sample` does."""
        ...

    def where(self, index: int) -> str:
        """Where a sample is written: file and line, index or key."""
        ...

    def problems(self) -> Iterator[Problem]:
        """All that is malformed or missing, whether it was left out or not. Pictures are looked for, not opened."""
        ...


@dataclass(frozen=True, kw_only=True)
class Record:
    """One record of a shard as it is stored: what a stream hands from the reader to whoever makes a sample of it."""

    shard: str
    key: str
    parts: dict[str, bytes] = field(repr=False)
    """File endings, in lower case and without the first dot, to contents: ``{"jpg": ..., "json": ...}``."""

    @property
    def where(self) -> str:
        return f"{self.shard}:{self.key}"


@runtime_checkable
class StreamSource(Protocol):
    """A dataset too large to index: shards that are read from their beginning to their end."""

    name: str
    shards: Sequence[str]

    def records(self, shard: str, skip: int = 0) -> Iterator[Record]:
        """The records of a shard in file order, from number `skip` on.

        What is skipped is not read where the shard is a local, uncompressed file.

        Raises:
            UserError: the shard is missing, is no tar file, or is cut short (after its whole records were handed out).
        """
        ...

    def sample(self, record: Record, rng: random.Random) -> Sample:
        """The sample of a record.

        Raises:
            UserError: the record has no picture or no text, or they cannot be read.
        """
        ...

    def problems(self) -> Iterator[Problem]:
        """Shards that cannot be read and records that are incomplete; every shard is read for this, no picture is opened."""
        ...
