"""Regions of Visual Genome: from a phrase to the box of a small region."""

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

from ...errors import UserError
from ...prompt.text import clean_text
from ..schema import Row
from ..source import Problem
from ..values import is_number, kind_of
from .fields import Entry, Fields, each, listed
from .files import Paths, files, load_json
from .forms import ThingInPixels

Images = dict[str, tuple[tuple[str, str], tuple[float, float]]]
"""Names and sizes of images, by number."""


def refvg(annotations: Paths, *, max_area: float = 128 * 128, official: bool = False) -> Iterator[Row | Problem]:
    """``region_descriptions.json`` and ``image_data.json``; pictures in ``VG_100K`` and ``VG_100K_2``.

    Args:
        annotations: the folder with both files.
        max_area: regions of so many square pixels or more are no samples (the published reader takes small ones only);
            0 takes all.
        official: as in `refer.refcoco`.
    """
    if not isinstance(annotations, str | os.PathLike):
        raise UserError(f"annotations: expected the folder with region_descriptions.json, found {annotations!r}")
    if not is_number(max_area) or max_area < 0:
        raise UserError(f"max_area: expected a number of square pixels, or 0 for all, found {max_area!r}")
    facts = os.path.join(annotations, "image_data.json")
    images = _images(load_json(facts), facts)
    expected = "region_descriptions.json, a list of {id, regions: [{phrase, x, y, width, height}]}"
    (path,) = files(os.path.join(annotations, "region_descriptions.json"), "annotations", expected)
    entries = _regions(listed(load_json(path), path, expected))
    yield from each(entries, partial(_read, images=images, max_area=max_area, official=official))


def _images(data: Any, path: str) -> Images:
    if not isinstance(data, list):
        raise UserError(f"{path}: expected a list of {{image_id, url, width, height}}, found {kind_of(data)}")
    found = {}
    for i, row in enumerate(data):
        fields = Fields(row, f"{path}[{i}]")
        folder, name = fields.text("url").split("/")[-2:]
        number = fields.code("image_id" if "image_id" in fields else "id")
        size = (fields.number("width"), fields.number("height"))
        if not all(side > 0 for side in size):
            raise UserError(f'{fields.where}: "width" and "height" must be above 0, found {size[0]:g} and {size[1]:g}')
        found[number] = ((f"{folder}/{name}", name), size)
    return found


def _regions(images: Iterator[Entry]) -> Iterator[Entry]:
    """The regions, each in the place of its image; an image without any as it is."""
    for where, id, image in images:
        if not isinstance(image, dict) or not isinstance(image.get("regions"), list):
            yield Entry(where, id, image if not isinstance(image, dict) else {"regions": image.get("regions")})
            continue
        for region in image["regions"]:
            yield Entry(where, id, {"image_id": image.get("id"), **region} if isinstance(region, dict) else region)


def _read(row: Fields, images: Images, max_area: float, official: bool) -> Iterator[Row]:
    if "regions" in row.row:
        raise UserError(f'{row.where}: "regions" must be a list, found {kind_of(row.row["regions"])}')
    x, y, w, h = (row.number(key) for key in ("x", "y", "width", "height"))
    if max_area and w * h >= max_area:
        return
    phrase, number = clean_text(row.text("phrase")), row.code("image_id")
    if not phrase:
        raise UserError(f'{row.where}: "phrase" {row.text("phrase")!r} has no words in it')
    if number not in images:
        raise UserError(f'{row.where}: "image_id" {number} is not in image_data.json')
    (name, base), size = images[number]
    if w <= 0 or h <= 0 or not (x < size[0] and y < size[1] and x + w > 0 and y + h > 0):
        raise UserError(f"{row.where}: the region {phrase!r} lies outside the picture or is empty")
    yield ThingInPixels(
        **row.place,
        images=(name,),
        aliases=(base,),
        size=size,
        task="refer",
        phrases=(phrase,),
        xywh=(x, y, w, h),
        over_edges=official,
    )
