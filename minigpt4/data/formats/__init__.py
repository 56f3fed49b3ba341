"""Datasets by the name of their format."""

import inspect
import logging
from typing import Any

from ...errors import UserError
from ..source import Source, StreamSource
from ..values import nearest
from .base import Items
from .captions import CcSbuAlign, CocoCaption, TextCaps
from .coco_instances import CocoInstances
from .flickr import CaptionToPhrase, GroundedCaption, ObjectToPhrase
from .flickr30k_entities import Flickr30kEntities
from .jsonl import JsonLines
from .llava import LlavaConversation, LlavaSingle
from .parquet import Parquet
from .refer import InvRefCoco, InvRefCocoG, InvRefCocoPlus, RefCoco, RefCocoG, RefCocoPlus
from .streams import CaptionStream, StreamRows
from .tars import TarRows
from .unnatural import UnnaturalInstruction
from .visual_genome import RefVg
from .vqa import AokVqa, CocoVqa, Gqa, OcrVqa

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
    if isinstance(source, Items):
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


def options_of(cls: type) -> dict[str, inspect.Parameter]:
    """The arguments of a class, with those that it passes on to its parents."""
    found: dict[str, inspect.Parameter] = {}
    for one in cls.__mro__:
        if "__init__" not in vars(one):
            continue
        parameters = inspect.signature(vars(one)["__init__"]).parameters
        found = {key: p for key, p in parameters.items() if p.kind is p.KEYWORD_ONLY} | found
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return found


SOURCES: dict[str, Any] = {
    # Our own schema
    "jsonl": JsonLines,
    "parquet": Parquet,
    "webdataset": TarRows,
    "webdataset_stream": StreamRows,
    # The published datasets, under their published names
    "laion": CaptionStream,
    "cc_sbu": CaptionStream,
    "cc_sbu_align": CcSbuAlign,
    "coco_caption": CocoCaption,
    "textcaps_caption": TextCaps,
    "coco_vqa": CocoVqa,
    "ok_vqa": CocoVqa,
    "aok_vqa": AokVqa,
    "gqa": Gqa,
    "ocrvqa": OcrVqa,
    "refcoco": RefCoco,
    "refcocop": RefCocoPlus,
    "refcocog": RefCocoG,
    "invrefcoco": InvRefCoco,
    "invrefcocop": InvRefCocoPlus,
    "invrefcocog": InvRefCocoG,
    "refvg": RefVg,
    "flickr_grounded_caption": GroundedCaption,
    "flickr_CaptionToPhrase": CaptionToPhrase,
    "flickr_ObjectToPhrase": ObjectToPhrase,
    "llava_detail": LlavaSingle,
    "llava_reason": LlavaSingle,
    "llava_conversation": LlavaConversation,
    "multitask_conversation": LlavaConversation,
    "unnatural_instruction": UnnaturalInstruction,
    # Others in their official layout
    "flickr30k_entities": Flickr30kEntities,
    "coco_instances": CocoInstances,
}
