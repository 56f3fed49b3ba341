"""Datasets that are too large to index, read from their beginning to their end: WebDataset tars, and what any stream has."""

import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from ...errors import UserError
from ...io.jsonl import load_json
from ...media.images import ImageInput, decode_image
from ...prompt.boxes import Rounding
from ...prompt.tasks import TASKS
from ...prompt.text import clean_text
from ..sample import Sample, ask
from ..schema import Description, parse_row
from ..source import Problem, Record
from .fields import choose
from .files import Paths, files
from .rows import style_of
from .tars import NEXT_TO_IT, Group, Shard, group_fault, image_endings, order_fault

log = logging.getLogger(__name__)


class Stream(ABC):
    """Shards of records.

    Args:
        shards: their names.
        missing: what becomes of incomplete records and of shards that are missing or cut short: ``error`` raises, ``skip``
            leaves them out and says so once a shard.
    """

    def __init__(self, name: str, shards: Sequence[str], missing: str):
        self.name = name
        self.missing = choose("missing", missing, ("error", "skip"))
        self.shards = shards

    @abstractmethod
    def records(self, shard: str, skip: int = 0) -> Iterator[Record]: ...

    @abstractmethod
    def survey(self) -> Iterator[Problem | None]:
        """For each record None, or what is wrong with it; and for each shard that cannot be read to its end what is wrong."""

    @abstractmethod
    def sample(self, record: Record, rng: random.Random) -> Sample: ...

    @abstractmethod
    def _check(self, parts: dict[str, bytes], images: tuple[Any, ...], where: str) -> Any:
        """What the texts of a record say. Raises UserError if it cannot be used."""

    def is_whole(self, record: Record) -> bool:
        """Whether a record has a text and a picture that go together; whether the picture can be opened is not looked at."""
        try:
            self._check(record.parts, tuple(image_endings(record.parts)), record.where)
        except UserError:
            return False
        return True

    def problems(self) -> Iterator[Problem]:
        return (problem for problem in self.survey() if problem)

    def _images(self, record: Record) -> tuple[ImageInput, ...]:
        return tuple(decode_image(record.parts[e], f"{record.where}.{e}") for e in image_endings(record.parts))


class RowStream(Stream):
    """Rows of our schema, each a ``.json`` with its images beside it.

    Of a description with several answers one is drawn; the other options are those of `rows.own_rows`.
    """

    def __init__(
        self,
        name: str,
        shards: Sequence[str],
        *,
        missing: str = "error",
        task: str | None = None,
        captions: str = "one",
        prompts: str | list[str] | None = None,
        rounding: Rounding = "nearest",
    ):
        super().__init__(name, shards, missing)
        self.task = choose("task", task, (None, *TASKS))
        self.captions = choose("captions", captions, ("one", "all"))
        self.style = style_of(prompts, rounding)

    def _check(self, parts: dict[str, bytes], images: tuple[Any, ...], where: str) -> Any:
        fault = group_fault(Group("", parts=dict.fromkeys(parts)), where)  # type: ignore[arg-type]
        raw = fault or load_json(parts["json"], where, ".json is ")
        if isinstance(raw, UserError):
            raise raw
        row = parse_row(raw, where, images)
        row.must_serve(self.task)
        return row

    def sample(self, record: Record, rng: random.Random) -> Sample:
        row = self._check(record.parts, tuple(image_endings(record.parts)), record.where)
        task = row.as_task(self.task)
        turns = row.turns(task, rng, self.style)
        if isinstance(row, Description) and self.captions == "one":
            turns = ask(turns[0].question, rng.choice(turns[0].answers))
        return row.sample(turns, self._images(record), task, f"{self.name}:{row.id or record.key}")


class TarStream(Stream):
    """Tars of records (``s3://bucket/{00000..01255}.tar``)."""

    def records(self, shard: str, skip: int = 0) -> Iterator[Record]:
        passed, left_out, fault = 0, 0, None
        try:
            with Shard(shard) as tar:
                for group in tar:
                    if self.missing == "skip" and (wrong := self._fault(tar, group)):
                        left_out, fault = left_out + 1, wrong
                        continue
                    if group.again:
                        raise order_fault(group, f"{tar.path}:{group.key}")  # type: ignore[misc]
                    passed += 1
                    if passed > skip:
                        yield Record(shard=shard, key=group.key, parts={e: tar.read(group, e) for e in group.parts})
        except UserError as error:
            if self.missing == "error":
                raise
            log.warning("%s: the rest of a shard is left out: %s", self.name, error)
        if left_out:
            log.warning("%s: %s: %d records are left out, the last: %s", self.name, shard, left_out, fault)

    def survey(self) -> Iterator[Problem | None]:
        for shard in self.shards:
            try:
                with Shard(shard) as tar:
                    for group in tar:
                        fault = self._fault(tar, group)
                        where = f"{shard}:{group.key}"
                        yield Problem(kind="malformed row", where=where, message=str(fault)) if fault else None
            except UserError as error:
                yield Problem(kind="broken shard", where=shard, message=str(error))

    def _fault(self, tar: Shard, group: Group) -> UserError | None:
        """What is wrong with a record; its pictures are not read for this."""
        where = f"{tar.path}:{group.key}"
        if fault := order_fault(group, where):
            return fault
        texts: dict[str, bytes] = {e: tar.read(group, e) for e in ("json", "txt") if e in group.parts}
        try:
            self._check(texts, tuple(image_endings(group.parts)), where)
        except UserError as error:
            return error
        return None


class StreamRows(RowStream, TarStream):
    """Rows in tars; `shards` are the tars, or patterns of their names, or addresses that fsspec can read."""

    def __init__(
        self,
        *,
        name: str,
        shards: Paths,
        missing: str = "error",
        task: str | None = None,
        captions: str = "one",
        prompts: str | list[str] | None = None,
        rounding: Rounding = "nearest",
    ):
        found = files(shards, "shards", "WebDataset tars")
        super().__init__(name, found, missing=missing, task=task, captions=captions, prompts=prompts, rounding=rounding)


class CaptionStream(TarStream):
    """Pictures with captions as img2dataset downloads them: ``.jpg`` with a ``.json`` that has a "caption", or a ``.txt``.

    MiniGPT-4's first stage learns these (``laion``, ``cc_sbu``; paper, section 3.1): the answer is the cleaned caption, and
    nothing is asked.

    Args:
        task: ``caption`` asks for it as MiniGPT-v2 does.
    """

    def __init__(self, *, name: str, shards: Paths, missing: str = "error", task: str | None = None):
        super().__init__(name, files(shards, "shards", "WebDataset tars"), missing)
        self.task = choose("task", task, (None, "caption"))

    def _check(self, parts: dict[str, bytes], images: tuple[Any, ...], where: str) -> str:
        if len(images) != 1:
            raise UserError(f"{where}: has {len(images)} pictures {NEXT_TO_IT}; expected one (jpg, png, webp, ...)")
        caption = None
        if "json" in parts:
            row = load_json(parts["json"], where, ".json is ")
            if isinstance(row, UserError):
                raise row
            caption = row.get("caption") if isinstance(row, dict) else None
        if caption is None and "txt" in parts:
            caption = parts["txt"].decode("utf-8-sig", errors="replace")
        caption = clean_text(caption) if isinstance(caption, str) else ""
        if not caption:
            raise UserError(f'{where}: no caption; expected a .json with "caption", or a .txt, {NEXT_TO_IT}')
        return caption

    def sample(self, record: Record, rng: random.Random) -> Sample:
        caption = self._check(record.parts, tuple(image_endings(record.parts)), record.where)
        question = TASKS[self.task].instruction("", rng) if self.task else ""
        return Sample(turns=ask(question, caption), images=self._images(record), task=self.task, id=f"{self.name}:{record.key}")
