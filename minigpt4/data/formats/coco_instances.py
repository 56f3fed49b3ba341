"""Boxes of COCO's object annotations: detection of one category in a picture."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

from ...errors import UserError
from ...prompt.boxes import Box
from ..schema import Phrase, Row
from ..source import Problem, Remark
from ..values import kind_of
from .fields import Entry, Fields, each
from .files import Paths, files, load_json

log = logging.getLogger(__name__)


def coco_instances(annotations: Paths, *, max_boxes: int = 20) -> Iterator[Row | Problem]:
    """``instances_train2017.json``: {"images", "annotations", "categories"}; a sample asks for all things of one category.

    A category of which a picture has a crowd (many things under one box) or an empty box is not asked for there. Boxes are in
    the order of their size.

    Args:
        max_boxes: a category with more things in a picture is not asked for there.
    """
    if not isinstance(max_boxes, int) or max_boxes < 1:
        raise UserError(f"max_boxes: expected a whole number from 1 on, found {max_boxes!r}")
    expected = 'instances_train2017.json, {"images", "annotations", "categories"}'
    counts: Counter[str] = Counter()
    for path in files(annotations, "annotations", expected):
        data = load_json(path)
        parts = ("images", "annotations", "categories")
        if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in parts):
            raise UserError(f"{path}: expected {expected}, found {kind_of(data)}")
        categories = {}
        for i, row in enumerate(data["categories"]):
            category = Fields(row, f"{path}.categories[{i}]")
            categories[category.code("id")] = category.text("name")
        yield from each(_images(data, path), partial(_read, categories=categories, max_boxes=max_boxes, counts=counts))
    if counts["too many"]:
        log.info("coco_instances: %d times a picture has more than %d of a category", counts["too many"], max_boxes)


def _images(data: dict[str, Any], path: str) -> Iterator[Entry]:
    """The images with their annotations; annotations of an image that is not listed come as one that has a number alone."""
    of_image = defaultdict(list)
    for i, row in enumerate(data["annotations"]):
        annotation = Fields(row, f"{path}.annotations[{i}]")
        of_image[annotation.code("image_id")].append(annotation)
    for row in data["images"]:
        number = str(row.get("id")) if isinstance(row, dict) else ""
        row = {**row, "annotations": of_image.pop(number, [])} if isinstance(row, dict) else row
        yield Entry(f"{path}[{number!r}]", number, row)
    for number in of_image:
        yield Entry(f"{path}[{number!r}]", number, {"id": number})


def _read(row: Fields, categories: dict[str, str], max_boxes: int, counts: Counter[str]) -> Iterator[Row | Problem]:
    if "file_name" not in row:
        raise UserError(f'{row.where}: no picture of this number with a "file_name" in "images"')
    width, height = row.number("width"), row.number("height")
    if width <= 0 or height <= 0:
        raise UserError(f'{row.where}: "width" and "height" must be above 0, found {width:g} and {height:g}')
    boxes: dict[str, list[Box]] = defaultdict(list)
    unclear = set()
    for annotation in row.row["annotations"]:
        category = categories.get(annotation.code("category_id"))
        if category is None:
            raise UserError(f'{annotation.where}: "category_id" {annotation.row["category_id"]} is not in "categories"')
        x, y, w, h = annotation.numbers("bbox", 4)
        if annotation.row.get("iscrowd"):
            unclear.add(category)
        elif w > 0 and h > 0 and (box := Box.from_xywh(x, y, w, h, width, height).clipped()).area:
            boxes[category].append(box)
        else:  # COCO has a few of these
            unclear.add(category)
            message = f'{annotation.where}: "bbox" {annotation.row["bbox"]} is empty or outside the picture'
            yield Remark(kind="malformed row", where=annotation.where, message=message)
    name = row.text("file_name")
    common = {**row.place, "images": (name,), "aliases": (name.rpartition("/")[2],), "size": (width, height)}
    for category, found in boxes.items():
        if category not in unclear and len(found) <= max_boxes:
            found.sort(key=lambda box: -box.area)
            yield Phrase(**common, phrase=category, places=tuple(found), task="detection")
        elif category not in unclear:
            counts["too many"] += 1
