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

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..data.formats import open_source
from ..data.formats.files import Folders, load_json
from ..data.formats.index import Indexed
from ..data.schema import GroundedText, Phrase, Row, boxes_of, parse_row
from ..data.values import text_of, texts_of
from ..errors import UserError
from ..io.jsonl import read_rows
from ..prompt.boxes import Box

_ANY_NUMBER = 1_000_000_000


class Problems(list[str]):
    """What is wrong with rows of annotations that cannot be used, a line each; the other rows are none the worse for it."""

    def __init__(self) -> None:
        super().__init__()
        self.remarks: list[str] = []
        """What is to be told of annotations with which nothing is wrong."""

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note a UserError that is raised within, and go on."""
        try:
            yield
        except UserError as error:
            self.append(str(error))


@dataclass(frozen=True, kw_only=True)
class Place:
    """A phrase and the boxes of what it means, in one picture."""

    image: str
    """As the annotations name it, relative to the folder of pictures."""
    phrase: str
    boxes: tuple[Box, ...]
    size: tuple[float, float] | None = None
    """Width and height of the picture that was annotated, where known."""
    kinds: tuple[str, ...] = field(default=())
    """What kind of thing it is, where the annotation says so (``people``, ``animals``)."""


def read_places(path: Path, split: str | None, problems: Problems, images: Path | None = None) -> list[Place]:
    """All places in a file or folder, in order.

    Args:
        split: only pictures of this part (``dev``, ``val``, ``test``), where the annotations name parts.
        problems: takes what is wrong with rows that cannot be used.
        images: the folder of images, as `rows_in_format` takes it.

    Raises:
        UserError: none of the known layouts.
    """
    if path.is_dir():
        return list(_entities_folder(path, split, problems, images))
    if path.suffix != ".json":
        places: list[Place] = []
        for where, row in rows_of(path, split, problems):
            with problems.noting():
                places += list(_lines(row, where))
        return places
    data = load_json(str(path))
    refuse_split(path, split)
    return list(_coco(path, problems, images) if isinstance(data, dict) else _refcoco(data, path, problems))


def refuse_split(path: Path, split: str | None) -> None:
    """For files whose rows are all of one split. Raises UserError if one is asked for."""
    if split is not None:
        raise UserError(f"{path}: has no parts to choose from; leave out --split")


def rows_of(path: Path, split: str | None, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a JSON Lines file, each with its place.

    Raises:
        UserError: no row is of the split.
    """
    seen = set()
    for number, row in read_rows(path):
        if isinstance(row, UserError):
            problems.append(str(row))
            continue
        seen.add(str(row.get("split")))
        if split is None or row.get("split") == split:
            yield f"{path}:{number}", row
    if split is not None and split not in seen:
        parts = ", ".join(sorted(seen - {"None"})) or "none"
        raise UserError(f"{path}: no rows of split {split!r}; the splits in it are: {parts}")


def rows_in_format(format: str, path: Path, problems: Problems, images: Path | None = None, **options: Any) -> Iterator[Row]:
    """Rows of our schema out of annotations in a dataset's own format, as training reads them.

    Args:
        images: the folder of images. An image has the first of its possible names that is there, as in training; without a
            folder, or where none is there, the one that the annotations name.
    """
    source = open_source(format, name=str(path), annotations=str(path), **options)
    assert isinstance(source, Indexed)
    problems += [problem.message for problem in [*source.malformed, *source.remarks]]
    folders = Folders(str(images)) if images is not None and images.is_dir() else None
    for row in source.rows():
        image, *others = row.images
        if folders is not None and isinstance(image, str):
            found = next((name for name in source.possible(image, row) if folders.find((name,)) is not None), image)
            row = replace(row, images=(found, *others))
        yield row


# layouts -----------------------------------------------------------------------------------------------------------------


def _lines(row: dict[str, Any], where: str) -> Iterator[Place]:
    """One row of a JSON Lines file of any layout."""
    if "boxes_xyxy_norm" in row:
        yield from _entities_row(row, where)
        return
    if (
        not {"phrase", "text"} & row.keys()
        and isinstance(row.get("boxes"), list)
        and all(isinstance(box, dict) for box in row["boxes"])
    ):
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


def _refcoco(rows: Any, path: Path, problems: Problems) -> Iterator[Place]:
    """The published lists for evaluation; a picture's name is the first 27 characters of the expression's."""
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of {{img_id, sents, bbox, height, width}}")
    for i, row in enumerate(rows):
        try:
            width, height = row["width"], row["height"]
            x, y, w, h = row["bbox"]
            if not (w > 0 and h > 0):
                problems.append(f"{path}[{i}]: the box {row['bbox']} is empty")
                continue
            box = Box.from_xywh(x, y, w, h, width, height)
            sentences = [row["sents"]] if isinstance(row["sents"], str) else list(texts_of(row, "sents", "here"))
            image = row["img_id"][:27] + ".jpg"
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            why = error if isinstance(error, UserError) else repr(error)
            problems.append(f"{path}[{i}]: expected {{img_id, sents, bbox, height, width}} ({why})")
            continue
        for sentence in sentences:
            yield Place(image=image, phrase=sentence, boxes=(box,), size=(width, height))


def _coco(path: Path, problems: Problems, images: Path | None) -> Iterator[Place]:
    """COCO instances: every category that is in a picture, with all its boxes; pictures with a crowd of it are left out."""
    for row in rows_in_format("coco_instances", path, problems, images, max_boxes=_ANY_NUMBER):
        assert isinstance(row, Phrase)
        yield Place(image=row.images[0], phrase=row.phrase, boxes=row.places, size=row.size)


def _categories(row: dict[str, Any], where: str) -> Iterator[Place]:
    found: dict[str, list[Box]] = defaultdict(list)
    try:
        for i, box in enumerate(row["boxes"]):
            found[text_of(box, "category", f"{where}[{i}]")] += boxes_of(
                {"bbox_xyxy_norm": [box["bbox_xyxy_norm"]]}, f"{where}[{i}]", "bbox_xyxy_norm"
            )
        for category, boxes in found.items():
            yield Place(image=text_of(row, "image", where), phrase=category, boxes=tuple(boxes))
    except (KeyError, TypeError) as error:
        raise UserError(f"{where}: expected image and boxes of category and bbox_xyxy_norm ({error!r})") from None


# Flickr30k Entities --------------------------------------------------------------------------------------------------------


def _entities_row(row: dict[str, Any], where: str) -> Iterator[Place]:
    try:
        boxes = {thing: boxes_of(row["boxes_xyxy_norm"], where, thing) for thing in row["boxes_xyxy_norm"]}
        named = [(p["phrase"], p["id"], tuple(p.get("types", ()))) for c in row["captions"] for p in c["phrases"]]
        size = _size(row.get("width"), row.get("height"), where)
        yield from _distinct(text_of(row, "image", where), size, named, boxes)
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{where}: expected image, captions with phrases, and boxes_xyxy_norm ({error!r})") from None


def _entities_folder(folder: Path, split: str | None, problems: Problems, images: Path | None) -> Iterator[Place]:
    """The published folder: ``Sentences/ID.txt``, ``Annotations/ID.xml``, and lists of ids in ``val.txt`` and the like."""
    if not (folder / "Sentences").is_dir() or not (folder / "Annotations").is_dir():
        raise UserError(f"{folder}: expected the folder of Flickr30k Entities, with Annotations and Sentences in it")
    captions: dict[str, list[GroundedText]] = defaultdict(list)
    for row in rows_in_format("flickr30k_entities", folder, problems, images, task="grounding", split=split):
        assert isinstance(row, GroundedText)
        captions[row.images[0]].append(row)
    for image, rows in captions.items():
        spans = [(row, span) for row in rows for span in row.spans]
        named = [(row.text[span.start : span.end], str(span.boxes), span.kinds) for row, span in spans]
        yield from _distinct(image, rows[0].size, named, {str(span.boxes): span.boxes for _, span in spans})


def _distinct(
    image: str,
    size: tuple[float, float] | None,
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
