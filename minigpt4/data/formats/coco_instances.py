"""Boxes of COCO's object annotations: detection of one category in a picture."""

import logging
from collections import defaultdict
from collections.abc import Iterable

from ...errors import UserError
from ...prompt.boxes import Box, Rounding
from ..schema import Phrase, phrase_turns
from ..source import Problem
from ..values import kind_of
from .base import Annotated, Fields, choose

log = logging.getLogger(__name__)


class CocoInstances(Annotated):
    """``instances_train2017.json``: {"images", "annotations", "categories"}; a sample asks for all things of one category.

    A category of which a picture has a crowd (many things under one box) or an empty box is not asked for there. Boxes are in
    the order of their size. Items are (name of the picture, category, boxes, size of the picture).

    Args:
        max_boxes: a category with more things in a picture is not asked for there.
        rounding: how box corners go on the grid of 0 to 100.
    """

    task = "detection"
    expected = 'instances_train2017.json, {"images", "annotations", "categories"}'

    def __init__(self, *, max_boxes: int = 20, rounding: Rounding = "nearest", **options):
        if not isinstance(max_boxes, int) or max_boxes < 1:
            raise UserError(f"max_boxes: expected a whole number from 1 on, found {max_boxes!r}")
        self.max_boxes = max_boxes
        self.rounding: Rounding = choose("rounding", rounding, ("nearest", "truncate"))
        self._too_many = 0
        super().__init__(**options)
        if self._too_many:
            log.info("%s: %d times a picture has more than %d of a category", self.name, self._too_many, self.max_boxes)

    def _rows(self, data, path):
        parts = ("images", "annotations", "categories")
        if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in parts):
            raise UserError(f"{path}: expected {self.expected}, found {kind_of(data)}")
        self._categories = {}
        for i, row in enumerate(data["categories"]):
            category = Fields(row, f"{path}.categories[{i}]")
            self._categories[category.code("id")] = category.text("name")
        of_image = defaultdict(list)
        for i, row in enumerate(data["annotations"]):
            annotation = Fields(row, f"{path}.annotations[{i}]")
            of_image[annotation.code("image_id")].append(annotation)
        for row in data["images"]:
            number = str(row.get("id")) if isinstance(row, dict) else ""
            yield number, {**row, "annotations": of_image.pop(number, [])} if isinstance(row, dict) else row
        for number in of_image:
            yield number, {"id": number}

    def _read(self, row: Fields) -> Iterable[tuple]:
        if "file_name" not in row:
            raise UserError(f'{row.where}: no picture of this number with a "file_name" in "images"')
        width, height = row.number("width"), row.number("height")
        boxes: dict[str, list[Box]] = defaultdict(list)
        crowds = set()
        for annotation in row.row["annotations"]:
            category = self._categories.get(annotation.code("category_id"))
            if category is None:
                raise UserError(f'{annotation.where}: "category_id" {annotation.row["category_id"]} is not in "categories"')
            x, y, w, h = annotation.numbers("bbox", 4)
            if annotation.row.get("iscrowd"):
                crowds.add(category)
            elif w > 0 and h > 0 and (box := Box.from_xywh(x, y, w, h, width, height).clipped()).area:
                boxes[category].append(box)
            else:  # COCO has a few of these
                crowds.add(category)
                message = f'{annotation.where}: "bbox" {annotation.row["bbox"]} is empty or outside the picture'
                self.remarks.append(Problem(kind="malformed row", where=annotation.where, message=message))
        for category, found in boxes.items():
            if category not in crowds and len(found) <= self.max_boxes:
                found.sort(key=lambda box: -box.area)
                yield row.text("file_name"), category, tuple(found), (width, height)
            elif category not in crowds:
                self._too_many += 1

    def _names(self, item):
        return (item[0], item[0].rpartition("/")[2])

    def _turns(self, item, image, rng):
        return phrase_turns("detection", item[1], item[2], rng, self.rounding)

    def _extra(self, item, image):
        return {"boxes": item[2]}

    def _as_row(self, item, where):
        return Phrase(where=where, images=(item[0],), phrase=item[1], places=item[2], extra={"size": item[3]})
