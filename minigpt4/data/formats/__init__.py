"""Datasets by the name of their format."""

import inspect
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ...errors import UserError
from ...prompt.boxes import Rounding
from ..schema import Row
from ..source import Problem, Source, StreamSource
from ..values import nearest
from .captions import aligned_images, cc_sbu_align, coco_caption, textcaps_caption
from .coco_instances import coco_instances
from .files import Folders, Paths
from .flickr import flickr_caption_to_phrase, flickr_grounded_caption, flickr_object_to_phrase
from .flickr30k_entities import flickr30k_entities
from .hf import hf
from .index import Indexed, Kept, Store
from .jsonl import jsonl
from .llava import llava_conversation, llava_single
from .parquet import parquet
from .refer import refcoco
from .rows import own_rows, style_of
from .streams import CaptionStream, StreamRows
from .tars import webdataset
from .unnatural import unnatural_instruction
from .visual_genome import refvg
from .vqa import aok_vqa, coco_vqa, gqa, ocrvqa

log = logging.getLogger(__name__)


def build_source(format: str, /, **options: Any) -> Source | StreamSource:
    """The dataset of a recipe.

    Args:
        format: a key of `SOURCES`.
        options: ``name`` is what the dataset is called (the format's name when not given); ``malformed`` says what becomes
            of rows that cannot be understood: ``error`` (the default) refuses the dataset, ``skip`` leaves them out and says
            how many. All others are the arguments of the format's class.

    Raises:
        UserError: an unknown format or option, a file that is missing or malformed, or nothing to learn from in it.
    """
    malformed = options.pop("malformed", "error")
    if malformed not in ("error", "skip"):
        raise UserError(f"{format}: malformed must be error or skip, found {malformed!r}")
    source = open_source(format, **options)
    if isinstance(source, Indexed):
        bad = source.malformed
        if bad and malformed == "error":
            more = f"; and {len(bad) - 1} more rows like it" if len(bad) > 1 else ""
            raise UserError(f"{bad[0].message}{more} (to leave such rows out: malformed: skip)")
        if bad:
            log.warning("%s: %d malformed rows are left out, the first: %s", source.name, len(bad), bad[0].message)
        if not len(source):
            given = ", ".join(f"{key}={value}" for key, value in options.items())
            raise UserError(f"{source.name}: no samples ({given})")
    return source


def open_source(format: str, /, **options: Any) -> Source | StreamSource:
    """The dataset with whatever is in it: malformed rows are no more than a list of problems, and it may be empty."""
    if format not in SOURCES:
        raise UserError(f"unknown dataset format {format!r}; {nearest(format, SOURCES)}")
    known = options_of(SOURCES[format])
    for option in options:
        if option not in known:
            raise UserError(f"{format}: unknown option {option!r}; {nearest(option, [*known, 'malformed'])}")
    for option, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and option not in options and option != "name":
            raise UserError(f"{format}: the option {option!r} is needed")
    return SOURCES[format](**{"name": format} | options)


class Own:
    """A way of storing rows of our own schema.

    Args:
        stores: opens what its arguments name; they are options of the format, beside those of `own_rows`.
    """

    def __init__(self, stores: Callable[..., list[Store]]):
        self.stores = stores
        self.options = _parameters(stores) | _options(own_rows)

    def __call__(self, **options: Any) -> Indexed:
        where = {key: options.pop(key) for key in _parameters(self.stores) if key in options}
        return own_rows(self.stores(**where), **options)


class Published:
    """A published dataset.

    Args:
        rows: a generator of its rows from its ``annotations``; the arguments it takes by name are options of the format.
        style: options of `style_of` that the format has too.
        rounding: how the corners of boxes go on the grid where that is no option.
        folder: the folder of images where none is given, by the annotations.
        text: whether it has no images.
    """

    def __init__(
        self,
        rows: Callable[..., Iterator[Row | Problem]],
        *style: str,
        rounding: Rounding = "nearest",
        folder: Callable[[Paths], str | None] | None = None,
        text: bool = False,
    ):
        self.rows, self.style, self.rounding, self.folder = rows, style, rounding, folder
        given = {key: p for key, p in _options(type(self).__call__).items() if not (text and key in ("images", "missing"))}
        worded = {key: p for key, p in _parameters(style_of).items() if key in style}
        self.options = given | _options(getattr(rows, "func", rows)) | worded

    def __call__(
        self, *, name: str, annotations: Paths, images: Paths | None = None, missing: str = "error", **options: Any
    ) -> Indexed:
        style = style_of(**{"rounding": self.rounding} | {key: options.pop(key) for key in self.style if key in options})
        if images is None and self.folder is not None:
            images = self.folder(annotations)
        rows = Kept(self.rows(annotations, **options), Folders(images) if images is not None else None)
        return Indexed(name, [rows], missing=missing, style=style)


def options_of(make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The options of a format of `SOURCES`, by name."""
    return make.options if isinstance(make, Own | Published) else _options(make)


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def _options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return {name: p for name, p in _parameters(function).items() if p.kind is p.KEYWORD_ONLY}


SOURCES: dict[str, Callable[..., Any]] = {
    # Our own schema
    "jsonl": Own(jsonl),
    "parquet": Own(parquet),
    "webdataset": Own(webdataset),
    "webdataset_stream": StreamRows,
    "hf": hf,
    # The published datasets, under their published names
    "laion": CaptionStream,
    "cc_sbu": CaptionStream,
    "cc_sbu_align": Published(cc_sbu_align, "prompts", folder=aligned_images),
    "coco_caption": Published(coco_caption),
    "textcaps_caption": Published(textcaps_caption),
    "coco_vqa": Published(coco_vqa),
    "ok_vqa": Published(coco_vqa),
    "aok_vqa": Published(aok_vqa),
    "gqa": Published(gqa),
    "ocrvqa": Published(ocrvqa),
    "refcoco": Published(partial(refcoco, dataset="refcoco", task="refer"), rounding="truncate"),
    "refcocop": Published(partial(refcoco, dataset="refcoco+", task="refer"), rounding="truncate"),
    "refcocog": Published(partial(refcoco, dataset="refcocog", task="refer", by="umd"), rounding="truncate"),
    "invrefcoco": Published(partial(refcoco, dataset="refcoco", task="identify"), rounding="truncate"),
    "invrefcocop": Published(partial(refcoco, dataset="refcoco+", task="identify"), rounding="truncate"),
    "invrefcocog": Published(partial(refcoco, dataset="refcocog", task="identify", by="umd"), rounding="truncate"),
    "refvg": Published(refvg, rounding="truncate"),
    "flickr_grounded_caption": Published(flickr_grounded_caption),
    "flickr_CaptionToPhrase": Published(flickr_caption_to_phrase),
    "flickr_ObjectToPhrase": Published(flickr_object_to_phrase),
    "llava_detail": Published(llava_single),
    "llava_reason": Published(llava_single),
    "llava_conversation": Published(llava_conversation),
    "multitask_conversation": Published(llava_conversation),
    "unnatural_instruction": Published(unnatural_instruction, text=True),
    # Others in their official layout
    "flickr30k_entities": Published(flickr30k_entities, "rounding"),
    "coco_instances": Published(coco_instances, "rounding"),
}
