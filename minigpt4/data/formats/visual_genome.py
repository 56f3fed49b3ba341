"""Regions of Visual Genome: from a phrase to the box of a small region."""

import os
from array import array
from collections.abc import Iterable
from typing import Any

from ...errors import UserError
from ...prompt.text import clean_text
from ..values import is_number, kind_of
from .base import Fields
from .files import Paths, load_json
from .refer import Referring


class RefVg(Referring):
    """``region_descriptions.json`` and ``image_data.json``; pictures in ``VG_100K`` and ``VG_100K_2``.

    Args:
        annotations: the folder with both files.
        images: the folder with both folders of pictures.
        max_area: regions of so many square pixels or more are no samples (the published reader takes small ones only);
            0 takes all.
    """

    expected = "region_descriptions.json, a list of {id, regions: [{phrase, x, y, width, height}]}"

    def __init__(self, *, annotations: Paths, max_area: int = 128 * 128, **options):
        if not isinstance(annotations, str | os.PathLike):
            raise UserError(f"annotations: expected the folder with region_descriptions.json, found {annotations!r}")
        if not is_number(max_area) or max_area < 0:
            raise UserError(f"max_area: expected a number of square pixels, or 0 for all, found {max_area!r}")
        self.max_area = max_area
        self._container = _Regions
        path = os.path.join(annotations, "image_data.json")
        self._facts = self._image_data(load_json(path), path)
        super().__init__(annotations=os.path.join(annotations, "region_descriptions.json"), **options)
        del self._facts

    @staticmethod
    def _image_data(data: Any, path: str) -> dict[str, tuple[tuple[str, str], tuple[float, float]]]:
        """Names and sizes of the pictures, by number."""
        if not isinstance(data, list):
            raise UserError(f"{path}: expected a list of {{image_id, url, width, height}}, found {kind_of(data)}")
        found = {}
        for i, row in enumerate(data):
            fields = Fields(row, f"{path}[{i}]")
            folder, name = fields.text("url").split("/")[-2:]
            number = fields.code("image_id" if "image_id" in fields else "id")
            found[number] = ((f"{folder}/{name}", name), (fields.number("width"), fields.number("height")))
        return found

    def _rows(self, data, path):
        for i, image in super()._rows(data, path):
            if not isinstance(image, dict) or not isinstance(image.get("regions"), list):
                yield i, image if not isinstance(image, dict) else {"regions": image.get("regions")}
                continue
            for region in image["regions"]:
                yield i, {"image_id": image.get("id"), **region} if isinstance(region, dict) else region

    def _read(self, row: Fields) -> Iterable[tuple]:
        if "regions" in row.row:
            raise UserError(f'{row.where}: "regions" must be a list, found {kind_of(row.row["regions"])}')
        x, y, w, h = (row.number(key) for key in ("x", "y", "width", "height"))
        if self.max_area and w * h >= self.max_area:
            return
        phrase, number = clean_text(row.text("phrase")), row.code("image_id")
        if not phrase:
            raise UserError(f'{row.where}: "phrase" {row.text("phrase")!r} has no words in it')
        if number not in self._facts:
            raise UserError(f'{row.where}: "image_id" {number} is not in image_data.json')
        names, size = self._facts[number]
        if w <= 0 or h <= 0 or not (x < size[0] and y < size[1] and x + w > 0 and y + h > 0):
            raise UserError(f"{row.where}: the region {phrase!r} lies outside the picture or is empty")
        yield names, (phrase,), (x, y, w, h), size


class _Regions:
    """Items by the million, kept in a fifth of the memory that tuples would take."""

    def __init__(self) -> None:
        self._facts: dict[tuple, int] = {}
        self._names: list[tuple] = []
        self._phrases: list[str] = []
        self._image_of, self._boxes = array("l"), array("d")

    def append(self, item: tuple) -> None:
        names, phrases, box, size = item
        image = self._facts.setdefault(names, len(self._names))
        if image == len(self._names):
            self._names.append((names, size))
        self._image_of.append(image)
        self._boxes.extend(box)
        self._phrases.append(phrases[0])

    def __len__(self) -> int:
        return len(self._phrases)

    def __getitem__(self, i: int) -> tuple:
        names, size = self._names[self._image_of[i]]
        return names, (self._phrases[i],), tuple(self._boxes[4 * i : 4 * i + 4]), size
