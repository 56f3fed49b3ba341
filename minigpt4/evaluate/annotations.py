"""Phrases and the places they are tied to, read from whatever a benchmark comes in.

=========================================================== =============================================================
our own JSON Lines (docs/data.md)                           rows with ``phrase`` and ``boxes``, or ``text`` and ``phrases``
RefCOCO, RefCOCO+, RefCOCOg as published for evaluation     ``refcoco_val.json``: a list of {img_id, sents, bbox, height, width}
Flickr30k Entities                                          the folder with ``Annotations`` and ``Sentences``
Flickr30k Entities as JSON Lines                            rows with ``captions`` and ``boxes_xyxy_norm``
COCO instances                                              ``instances_val2017.json``
categories as JSON Lines                                    rows with ``boxes``: [{"category", "bbox_xyxy_norm"}]
=========================================================== =============================================================
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.formats.flickr30k_entities import MARK, read_boxes, read_text
from ..data.schema import GroundedText, Phrase, parse_row
from ..errors import UserError
from ..io.jsonl import read_rows
from ..prompt.boxes import Box


@dataclass(frozen=True, kw_only=True)
class Place:
    """A phrase and the boxes of what it means, in one picture."""

    image: str
    """As the annotations name it, relative to the folder of pictures."""
    phrase: str
    boxes: tuple[Box, ...]
    size: tuple[int, int] | None = None
    """Width and height of the picture that was annotated, where known."""
    kinds: tuple[str, ...] = field(default=())
    """What kind of thing it is, where the annotation says so (``people``, ``animals``)."""


def read_places(path: Path, split: str | None = None) -> list[Place]:
    """All places in a file or folder, in order.

    Args:
        split: only pictures of this part (``dev``, ``val``, ``test``), where the annotations name parts.

    Raises:
        UserError: none of the known layouts, a row that does not fit its layout, or nothing in it.
    """
    if path.is_dir():
        places = list(_entities_folder(path, split))
    elif path.suffix == ".json":
        data = load_json(path)
        if split is not None:
            raise UserError(f"{path}: has no parts to choose from; leave out --split")
        places = list(_coco(data, path) if isinstance(data, dict) else _refcoco(data, path))
    else:
        places = [place for number, row in rows_of(path, split) for place in _lines(row, f"{path}:{number}")]
    if not places:
        raise UserError(f"{path}: no phrases with boxes in it" + (f" for the split {split!r}" if split else ""))
    return places


def load_json(path: Path) -> Any:
    """What is in a JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None


def rows_of(path: Path, split: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered rows of a JSON Lines file; the first that is malformed is an error, since a benchmark is all its rows."""
    seen = set()
    for number, row in read_rows(path):
        if isinstance(row, UserError):
            raise row
        seen.add(str(row.get("split")))
        if split is None or row.get("split") == split:
            yield number, row
    if split is not None and split not in seen:
        parts = ", ".join(sorted(seen - {"None"})) or "none"
        raise UserError(f"{path}: no rows of split {split!r}; the splits in it are: {parts}")


# layouts -----------------------------------------------------------------------------------------------------------------


def _lines(row: dict[str, Any], where: str) -> Iterator[Place]:
    """One row of a JSON Lines file of any layout."""
    if "boxes_xyxy_norm" in row:
        yield from _entities_row(row, where)
        return
    if isinstance(row.get("boxes"), list) and all(isinstance(box, dict) for box in row["boxes"]):
        yield from _categories(row, where)
        return
    size = _size(row.pop("width", None), row.pop("height", None), where)
    parsed = parse_row(row, where)
    if isinstance(parsed, Phrase):
        yield Place(image=parsed.images[0], phrase=parsed.phrase, boxes=parsed.places, size=size)
    elif isinstance(parsed, GroundedText):
        for span in parsed.spans:
            phrase = parsed.text[span.start : span.end]
            yield Place(image=parsed.images[0], phrase=phrase, boxes=span.boxes, size=size)
    else:
        raise UserError(f'{where}: expected a row with "phrase" and "boxes", or with "text" and "phrases"')


def _size(width: Any, height: Any, where: str) -> tuple[int, int] | None:
    if width is None and height is None:
        return None
    if not all(isinstance(v, int) and v > 0 for v in (width, height)):
        raise UserError(f'{where}: "width" and "height" must be whole numbers above 0, found {width!r} and {height!r}')
    return width, height


def _refcoco(rows: Any, path: Path) -> Iterator[Place]:
    """The published lists for evaluation; a picture's name is the first 27 characters of the expression's."""
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of {{img_id, sents, bbox, height, width}}")
    for i, row in enumerate(rows):
        try:
            width, height = row["width"], row["height"]
            x, y, w, h = row["bbox"]
            box = Box.from_xywh(x, y, w, h, width, height)
            sentences = [row["sents"]] if isinstance(row["sents"], str) else row["sents"]
            image = row["img_id"][:27] + ".jpg"
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise UserError(f"{path}[{i}]: expected {{img_id, sents, bbox, height, width}} ({error!r})") from None
        for sentence in sentences:
            yield Place(image=image, phrase=sentence, boxes=(box,), size=(width, height))


def _coco(data: dict[str, Any], path: Path) -> Iterator[Place]:
    """COCO instances: every category that is in a picture, with all its boxes; pictures with a crowd of it are left out."""
    try:
        names = {category["id"]: category["name"] for category in data["categories"]}
        boxes: dict[tuple[int, int], list[Box]] = defaultdict(list)
        crowds = set()
        images = {image["id"]: image for image in data["images"]}
        for annotation in data["annotations"]:
            key = annotation["image_id"], annotation["category_id"]
            image = images[annotation["image_id"]]
            x, y, w, h = annotation["bbox"]
            boxes[key].append(Box.from_xywh(x, y, w, h, image["width"], image["height"]))
            if annotation.get("iscrowd"):
                crowds.add(key)
        for (image_id, category), found in boxes.items():
            image = images[image_id]
            if (image_id, category) not in crowds:
                size = image["width"], image["height"]
                yield Place(image=image["file_name"], phrase=names[category], boxes=tuple(found), size=size)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{path}: expected COCO's images, annotations and categories ({error!r})") from None


def _categories(row: dict[str, Any], where: str) -> Iterator[Place]:
    found: dict[str, list[Box]] = defaultdict(list)
    try:
        for box in row["boxes"]:
            found[box["category"]].append(Box(*box["bbox_xyxy_norm"]))
        for category, boxes in found.items():
            yield Place(image=row["image"], phrase=category, boxes=tuple(boxes))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: expected image and boxes of category and bbox_xyxy_norm ({error!r})") from None


# Flickr30k Entities --------------------------------------------------------------------------------------------------------


def _entities_row(row: dict[str, Any], where: str) -> Iterator[Place]:
    try:
        boxes = {thing: tuple(Box(*box) for box in found) for thing, found in row["boxes_xyxy_norm"].items()}
        named = [(p["phrase"], p["id"], tuple(p.get("types", ()))) for c in row["captions"] for p in c["phrases"]]
        size = _size(row.get("width"), row.get("height"), where)
        yield from _distinct(row["image"], size, named, boxes)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{where}: expected image, captions with phrases, and boxes_xyxy_norm ({error!r})") from None


def _entities_folder(folder: Path, split: str | None) -> Iterator[Place]:
    """The published folder: ``Sentences/ID.txt``, ``Annotations/ID.xml``, and lists of ids in ``val.txt`` and the like."""
    sentences, annotations = folder / "Sentences", folder / "Annotations"
    if not sentences.is_dir() or not annotations.is_dir():
        raise UserError(f"{folder}: expected the folder of Flickr30k Entities, with Annotations and Sentences in it")
    if split is None:
        numbers = sorted(path.stem for path in sentences.glob("*.txt"))
    else:
        listed = folder / f"{split}.txt"
        if not listed.is_file():
            raise UserError(f"{listed}: no such file, so the pictures of split {split!r} are not known")
        numbers = read_text(str(listed)).split()
    for number in numbers:
        size, boxes = read_boxes(str(annotations / f"{number}.xml"))
        text = read_text(str(sentences / f"{number}.txt"))
        named = [(words, thing, tuple(kinds[1:].split("/"))) for thing, kinds, words in MARK.findall(text)]
        yield from _distinct(f"{number}.jpg", size, named, boxes)


def _distinct(
    image: str,
    size: tuple[int, int] | None,
    named: Iterable[tuple[str, str, tuple[str, ...]]],
    boxes: dict[str, tuple[Box, ...]],
) -> Iterator[Place]:
    """Each phrase of a picture once. One that stands for several things ("a dog", twice) has the boxes of all."""
    places: dict[str, list[Box]] = defaultdict(list)
    kinds: dict[str, Sequence[str]] = {}
    for phrase, thing, types in named:
        phrase = " ".join(phrase.lower().split())
        places[phrase] += [box for box in boxes.get(thing, ()) if box not in places[phrase]]
        kinds[phrase] = types
    for phrase, found in places.items():
        if found:
            yield Place(image=image, phrase=phrase, boxes=tuple(found), size=size, kinds=tuple(kinds[phrase]))
