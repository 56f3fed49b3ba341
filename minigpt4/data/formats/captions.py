"""Captions: COCO (Karpathy's split), TextCaps, and the second-stage descriptions of MiniGPT-4."""

import os
from array import array
from collections.abc import Iterable

from ...errors import UserError
from ...prompt.text import clean_text
from ..sample import ask
from ..schema import Description
from ..values import kind_of
from .base import Annotated, Fields, choose, instruct
from .files import Paths
from .rows import prompts_of


class Captions(Annotated):
    """Short captions. Items are (names of the picture, answers).

    Args:
        captions: ``one`` makes a sample of each caption, as published; ``all`` one of each picture, with its captions side by
            side.
        clean: whether texts are cleaned as the published processor does it.
        options: those of `Annotated`.
    """

    task = "caption"

    def __init__(self, *, captions: str = "one", clean: bool = True, **options):
        self.captions = choose("captions", captions, ("one", "all"))
        self.clean = choose("clean", clean, (True, False))
        super().__init__(**options)

    def _text(self, text: str, key: str, row: Fields) -> str:
        words = cleaned(text, key, row)
        return words if self.clean else text.strip()

    def _as_row(self, item, where):
        return Description(where=where, images=item[0][:1], answers=item[1])

    def _arrange(self):
        if self.captions == "one":
            return
        first: dict[tuple[str, ...], int] = {}
        items: list[tuple] = []
        origin, rows = array("l"), []
        for i, (names, answers) in enumerate(self._items):
            if names in first:
                items[first[names]] = (names, items[first[names]][1] + answers)
            else:
                first[names] = len(items)
                items.append((names, answers))
                origin.append(self._origin[i])
                rows.append(self._row[i])
        self._items, self._origin, self._row = items, origin, rows

    def _names(self, item):
        return item[0]

    def _turns(self, item, image, rng):
        return ask(instruct("caption", "", rng), *item[1])


class CocoCaption(Captions):
    """COCO captions in Karpathy's split: a list of {"image", "caption"}, as LAVIS publishes it.

    Args:
        split: rows whose picture's path contains ``train`` (as published), the others (``restval``), or ``all``.
    """

    expected = "coco_karpathy_train.json, a list of {image, caption}"

    def __init__(self, *, split: str = "train", **options):
        self.split = choose("split", split, ("train", "restval", "all"))
        super().__init__(**options)

    def _read(self, row: Fields) -> Iterable[tuple]:
        image = row.text("image")
        texts = row.texts("caption") if isinstance(row.row.get("caption"), list) else (row.text("caption"),)
        if self.split != "all" and ("train" in image) != (self.split == "train"):
            return
        for text in texts:
            yield (image, os.path.basename(image)), (self._text(text, "caption", row),)


class TextCaps(Captions):
    """TextCaps: {"data": [{"image_id", "caption_str"}]}."""

    expected = 'TextCaps_0.1_train.json, {"data": [{image_id, caption_str}]}'

    def _rows(self, data, path):
        if not isinstance(data, dict) or not isinstance(data.get("data"), list):
            raise UserError(f"{path}: expected {self.expected}, found {kind_of(data)}")
        return enumerate(data["data"])

    def _read(self, row: Fields) -> Iterable[tuple]:
        yield (f"{row.code('image_id')}.jpg",), (self._text(row.text("caption_str"), "caption_str", row),)


class CcSbuAlign(Annotated):
    """The descriptions of MiniGPT-4's second stage: {"annotations": [{"image_id", "caption"}]}, answered as they stand.

    Args:
        annotations: ``filter_cap.json``, or the folder with it and the folder ``image``.
        prompts: questions to draw from, a file with one a line, or ``none``; the published four when not given.
    """

    expected = 'filter_cap.json, {"annotations": [{image_id, caption}]}'

    def __init__(self, *, annotations: Paths, images: Paths | None = None, prompts: str | list[str] | None = None, **options):
        self.prompts = prompts_of(prompts)
        if isinstance(annotations, str | os.PathLike) and os.path.isdir(annotations):
            folder, annotations = annotations, os.path.join(annotations, "filter_cap.json")
            images = images or os.path.join(folder, "image")
        super().__init__(annotations=annotations, images=images, **options)

    def _rows(self, data, path):
        if not isinstance(data, dict) or not isinstance(data.get("annotations"), list):
            raise UserError(f"{path}: expected {self.expected}, found {kind_of(data)}")
        return enumerate(data["annotations"])

    def _read(self, row: Fields) -> Iterable[tuple]:
        yield row.code("image_id"), row.text("caption")

    def _names(self, item):
        return (f"{item[0]}.jpg",)

    def _turns(self, item, image, rng):
        return ask(rng.choice(self.prompts) if self.prompts else "", item[1])


def cleaned(text: str, key: str, row: Fields) -> str:
    """A text as the published processor cleans it, of which something must be left."""
    text = clean_text(text)
    if not text:
        raise UserError(f'{row.where}: "{key}" has no words in it')
    return text
