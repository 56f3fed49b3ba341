"""Flickr30k Entities in its official layout: captions whose phrases have boxes, for five tasks.

``Sentences/ID.txt`` has a caption a line, with its phrases marked: ``[/EN#5/people A man] rides [/EN#6/other a bike] .``
``Annotations/ID.xml`` has the boxes of each number, in pixels counted from 1; a number may have several boxes, a box several
numbers. ``train.txt``, ``val.txt`` and ``test.txt`` list the pictures of each split.
"""

import os
import random
import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...prompt.boxes import Box, Rounding
from ...prompt.tasks import TASKS
from ...prompt.text import join_tokens
from ..sample import ask
from ..schema import GroundedText, Span, ground, phrase_turns
from .base import Annotated, Fields, choose, instruct
from .files import Paths

MARK = re.compile(r"\[/EN#(\d+)(/\S*) ([^\]]+)\]")
NOT_VISUAL = "0"


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption without its marks, its phrases that have boxes, what kinds of things they are, and the size of the picture."""

    text: str
    spans: tuple[Span, ...]
    kinds: tuple[tuple[str, ...], ...]
    size: tuple[int, int]


class Flickr30kEntities(Annotated):
    """Samples of one task; phrases are used if they have boxes.

    Args:
        annotations: the folder with ``Sentences``, ``Annotations`` and the lists of the splits.
        task: ``caption``; ``grounding`` (a caption with its boxes); ``refer``, ``identify`` and ``detection`` (a thing of the
            picture, by one of the phrases for it; to point at it, a phrase must not stand for several things of the picture).
        split: ``train``, ``val``, ``test``; all pictures when not given.
        captions: for the task caption, ``one`` or ``all`` of a picture in one sample.
        query: what a detection asks for, a ``phrase`` or all phrases of a ``caption``.
        min_phrases: for the task grounding, captions with fewer phrases that have boxes are left out.
        rounding: how box corners go on the grid of 0 to 100.
    """

    task: str
    expected = "Sentences/*.txt of Flickr30k Entities"

    def __init__(
        self,
        *,
        annotations: Paths,
        task: str,
        split: str | None = None,
        captions: str = "one",
        query: str = "phrase",
        min_phrases: int = 1,
        rounding: Rounding = "nearest",
        **options: Any,
    ):
        self.task = choose("task", task, ("caption", "refer", "identify", "grounding", "detection"))
        self.captions = choose("captions", captions, ("one", "all"))
        self.query = choose("query", query, ("phrase", "caption"))
        self.min_phrases = min_phrases
        self.rounding: Rounding = choose("rounding", rounding, ("nearest", "truncate"))
        if not isinstance(annotations, str | os.PathLike) or not os.path.isdir(annotations):
            raise UserError(f"annotations: expected the folder of Flickr30k Entities, found {annotations!r}")
        self._folder = os.fspath(annotations)
        numbers = self._split(split)
        super().__init__(annotations=[os.path.join(self._folder, "Sentences", f"{n}.txt") for n in numbers], **options)

    def _split(self, split: str | None) -> list[str]:
        """The numbers of the pictures of a split."""
        if split is None:
            return sorted(path.stem for path in Path(self._folder, "Sentences").glob("*.txt"))
        path = os.path.join(self._folder, f"{choose('split', split, ('train', 'val', 'test'))}.txt")
        return read_text(path).split()

    def _load(self, path: str) -> Any:
        return path

    def _rows(self, data, path):
        return [(Path(path).stem, {"sentences": path})]

    def _place(self, path: str, row: int | str) -> str:
        return path

    def _read(self, row: Fields) -> Iterable[tuple]:
        number = Path(row.where).stem
        size, boxes = read_boxes(os.path.join(self._folder, "Annotations", f"{number}.xml"))
        lines = read_text(row.where).split("\n")
        captions = [_caption(line, boxes, size, f"{row.where}:{i}") for i, line in enumerate(lines, 1) if line.strip()]
        if not captions:
            raise UserError(f"{row.where}: no captions")
        if self.task == "caption":
            texts = [join_tokens(caption.text) for caption in captions]
            return [(number, tuple(texts))] if self.captions == "all" else [(number, (text,)) for text in texts]
        if self.task == "grounding":
            return [(number, caption) for caption in captions if len(caption.spans) >= self.min_phrases]
        if self.task == "detection" and self.query == "caption":
            return [(number, caption) for caption in captions if caption.spans]
        return [(number, *thing) for thing in _things(captions, alone=self.task != "identify")]

    def _names(self, item):
        return (f"{item[0]}.jpg",)

    def _turns(self, item, image, rng: random.Random):
        if self.task == "caption":
            return ask(instruct("caption", "", rng), *item[1])
        if self.task == "grounding":
            return ask(instruct("grounding", "", rng), join_tokens(ground(item[1].text, item[1].spans, self.rounding)))
        if len(item) == 2:
            text = item[1].text
            found = [(join_tokens(text[span.start : span.end]), list(span.boxes)) for span in item[1].spans]
            answer = TASKS["detection"].write(found, rounding=self.rounding)
            return ask(instruct("detection", join_tokens(text), rng), answer)
        _, phrases, boxes = item
        return phrase_turns(self.task, rng.choice(phrases), boxes, rng, self.rounding)

    def _extra(self, item, image):
        return {"boxes": item[2]} if len(item) == 3 else {}

    def _as_row(self, item, where):
        if self.task != "grounding":
            return super()._as_row(item, where)
        text, spans, kinds, size = item[1].text, item[1].spans, item[1].kinds, item[1].size
        return GroundedText(where=where, images=self._names(item), text=text, spans=spans, extra={"kinds": kinds, "size": size})


def _caption(line: str, boxes: dict[str, tuple[Box, ...]], size: tuple[int, int], where: str) -> Caption:
    """A marked line."""
    parts: list[str] = []
    spans, kinds, length, done = [], [], 0, 0
    for mark in MARK.finditer(line):
        parts += [line[done : mark.start()], mark[3]]
        start = length + mark.start() - done
        length = start + len(mark[3])
        done = mark.end()
        if mark[1] in boxes:
            spans.append(Span(start, length, boxes[mark[1]]))
            kinds.append(tuple(mark[2][1:].split("/")))
    text = "".join([*parts, line[done:]])
    if "[/EN#" in text:
        raise UserError(f"{where}: a phrase is not marked as [/EN#NUMBER/KIND WORDS]")
    return Caption(text, tuple(spans), tuple(kinds), size)


def _things(captions: list[Caption], alone: bool) -> Iterable[tuple[tuple[str, ...], tuple[Box, ...]]]:
    """The things of a picture: the phrases for each, and its boxes.

    Args:
        alone: leave out phrases that stand for several things of the picture.
    """
    phrases: dict[tuple[Box, ...], dict[str, None]] = defaultdict(dict)
    meant: dict[str, set[tuple[Box, ...]]] = defaultdict(set)
    for caption in captions:
        for span in caption.spans:
            phrase = join_tokens(caption.text[span.start : span.end])
            phrases[span.boxes][phrase] = None
            meant[phrase.casefold()].add(span.boxes)
    for boxes, found in phrases.items():
        usable = tuple(phrase for phrase in found if not alone or len(meant[phrase.casefold()]) == 1)
        if usable:
            yield usable, boxes


def read_boxes(path: str) -> tuple[tuple[int, int], dict[str, tuple[Box, ...]]]:
    """Width and height of the picture, and the boxes of each number, in an annotation file."""
    try:
        root = ElementTree.fromstring(read_text(path))
    except ElementTree.ParseError as error:
        raise UserError(f"{path}: not XML ({error})") from None
    width, height = (_number(root, f"size/{side}", path) for side in ("width", "height"))
    found: dict[str, list[Box]] = defaultdict(list)
    for thing in root.iter("object"):
        box = thing.find("bndbox")
        if box is None:
            continue
        x1, y1, x2, y2 = (_number(box, side, path) for side in ("xmin", "ymin", "xmax", "ymax"))
        whole = Box.from_pixels(x1 - 1, y1 - 1, x2, y2, width, height).clipped()  # pixels x1 to x2, both of them
        for name in thing.findall("name"):
            if name.text and whole.area:
                found[name.text.strip()].append(whole)
    return (width, height), {number: tuple(boxes) for number, boxes in found.items() if number != NOT_VISUAL}


def _number(element: ElementTree.Element, path: str, where: str) -> int:
    text = element.findtext(path) or ""
    if not text.strip().lstrip("-").isdecimal():
        raise UserError(f"{where}: <{path}> must be a whole number, found {text.strip()!r}")
    return int(text)


def read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"{path}: {reason}") from None
