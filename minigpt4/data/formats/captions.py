"""Captions: COCO (Karpathy's split, or the official file), TextCaps, and the second-stage descriptions of MiniGPT-4."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from ...errors import UserError
from ..schema import Description, Row
from ..source import Problem
from .fields import Entry, Fields, choose, each, listed
from .files import Paths, files, load_json


def coco_caption(
    annotations: Paths, *, split: str = "train", captions: str = "one", clean: bool = True
) -> Iterator[Row | Problem]:
    """COCO captions: a list of {"image", "caption"} in Karpathy's split, as LAVIS publishes it; or COCO's own file of one part.

    Args:
        split: of a list, rows whose picture's path contains ``train`` (as published), the others (``restval``), or ``all``.
        captions: ``one`` makes a sample of each caption, as published; ``all`` one of each picture, with its captions side by
            side.
        clean: whether texts are cleaned as the published processor does it.
    """
    choose("split", split, ("train", "restval", "all"))
    rows = _coco_rows(annotations, split, choose("clean", clean, (True, False)))
    yield from _as_wanted(captions, rows)


def _coco_rows(annotations: Paths, split: str, clean: bool) -> Iterator[Row | Problem]:
    expected = "coco_karpathy_train.json, a list of {image, caption}"
    for path in files(annotations, "annotations", expected):
        data = load_json(path)
        if isinstance(data, dict) and "annotations" in data:
            if split == "restval":
                raise UserError(f"{path}: has no parts to choose from; leave out the option split")
            yield from each(_official(data, path), partial(_coco, split="all", clean=clean))
        else:
            yield from each(listed(data, path, f"{expected}, or COCO's captions"), partial(_coco, split=split, clean=clean))


def _official(data: dict[str, Any], path: str) -> Iterator[Entry]:
    """The annotations of COCO's own file, each with the name of its image."""
    expected = 'captions_train2017.json, {"images": [{id, file_name}], "annotations": [{image_id, caption}]}'
    names = {}
    for place, _, image in listed(data, path, expected, "images"):
        fields = Fields(image, place)
        names[fields.code("id")] = fields.text("file_name")
    for i, (_, id, value) in enumerate(listed(data, path, expected, "annotations")):
        if isinstance(value, dict):
            value = {"image": names.get(str(value.get("image_id"))), "caption": value.get("caption")}
        yield Entry(f"{path}.annotations[{i}]", id, value)


def _coco(row: Fields, split: str, clean: bool) -> Iterator[Row]:
    image = row.text("image")
    texts = row.texts("caption") if isinstance(row.row.get("caption"), list) else (row.text("caption"),)
    if split != "all" and ("train" in image) != (split == "train"):
        return
    for text in texts:
        answer = row.cleaned("caption", text)
        yield _caption(row, answer if clean else text.strip(), image, os.path.basename(image))


def textcaps_caption(annotations: Paths, *, captions: str = "one", clean: bool = True) -> Iterator[Row | Problem]:
    """TextCaps: {"data": [{"image_id", "caption_str"}]}; options as those of COCO."""
    read = partial(_textcaps, clean=choose("clean", clean, (True, False)))
    expected = 'TextCaps_0.1_train.json, {"data": [{image_id, caption_str}]}'
    paths = files(annotations, "annotations", expected)
    yield from _as_wanted(
        captions, (row for path in paths for row in each(listed(load_json(path), path, expected, "data"), read))
    )


def _textcaps(row: Fields, clean: bool) -> Iterator[Row]:
    image, answer = f"{row.code('image_id')}.jpg", row.cleaned("caption_str")
    yield _caption(row, answer if clean else row.text("caption_str").strip(), image)


def cc_sbu_align(annotations: Paths) -> Iterator[Row | Problem]:
    """The descriptions of MiniGPT-4's second stage: {"annotations": [{"image_id", "caption"}]}, answered as they stand.

    Args:
        annotations: ``filter_cap.json``, or the folder with it and the folder ``image``.
    """
    expected = 'filter_cap.json, {"annotations": [{image_id, caption}]}'
    if aligned_images(annotations) is not None:
        annotations = os.path.join(annotations, "filter_cap.json")  # type: ignore[arg-type]
    for path in files(annotations, "annotations", expected):
        yield from each(listed(load_json(path), path, expected, "annotations"), _aligned)


def aligned_images(annotations: Paths) -> str | None:
    """The folder of images, where the annotations are given as the folder of both."""
    folder = isinstance(annotations, str | os.PathLike) and os.path.isdir(annotations)
    return os.path.join(annotations, "image") if folder else None  # type: ignore[arg-type]


def _aligned(row: Fields) -> Iterator[Row]:
    image, caption = f"{row.code('image_id')}.jpg", row.text("caption")
    yield Description(**row.place, images=(image,), answers=(caption,))


def _caption(row: Fields, text: str, image: str, *aliases: str) -> Row:
    return Description(**row.place, images=(image,), aliases=aliases, answers=(text,), task="caption")


def _as_wanted(captions: str, rows: Iterable[Row | Problem]) -> Iterator[Row | Problem]:
    """Captions one by one, or those of an image in one row, where its first one stands."""
    if choose("captions", captions, ("one", "all")) == "one":
        yield from rows
        return
    of_image: dict[tuple[str, ...], Description] = {}
    for row in rows:
        if not isinstance(row, Description):
            yield row
            continue
        names = (*row.images, *row.aliases)
        first = of_image.get(names)
        of_image[names] = row if first is None else replace(first, answers=first.answers + row.answers)
    yield from of_image.values()
