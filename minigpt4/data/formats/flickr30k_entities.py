"""Flickr30k Entities in its official layout: captions whose phrases have boxes, for five tasks.

``Sentences/ID.txt`` has a caption a line, with its phrases marked: ``[/EN#5/people A man] rides [/EN#6/other a bike] .``
``Annotations/ID.xml`` has the boxes of each number, in pixels counted from 1; a number may have several boxes, a box several
numbers. ``train.txt``, ``val.txt`` and ``test.txt`` list the pictures of each split.
"""

import os
import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...prompt.boxes import Box
from ...prompt.tasks import TASKS
from ...prompt.text import join_tokens
from ..sample import ask
from ..schema import Description, GroundedText, Row, Span, ground
from ..source import Problem
from .fields import Entry, Fields, choose, each
from .files import Paths
from .forms import Thing

MARK = re.compile(r"\[/EN#(\d+)(/\S*) ([^\]]+)\]")
NOT_VISUAL = "0"


@dataclass(frozen=True, kw_only=True)
class Caption(GroundedText):
    """A caption as a tokeniser has left it, with blanks before commas; it is written without them."""

    def turns(self, task, rng, style):
        if task == "grounding":
            answer = join_tokens(ground(self.text, self.spans, style.rounding))
            return ask(TASKS[task].instruction("", rng), answer)
        found = [(join_tokens(self.text[span.start : span.end]), list(span.boxes)) for span in self.spans]
        answer = TASKS["detection"].write(found, rounding=style.rounding)
        return ask(TASKS["detection"].instruction(join_tokens(self.text), rng), answer)


def flickr30k_entities(
    annotations: Paths,
    *,
    task: str,
    split: str | None = None,
    captions: str = "one",
    query: str = "phrase",
    min_phrases: int = 1,
) -> Iterator[Row | Problem]:
    """Rows of one task; phrases are used if they have boxes.

    Args:
        annotations: the folder with ``Sentences``, ``Annotations`` and the lists of the splits.
        task: ``caption``, ``grounding`` (captions with boxes), ``refer``, ``identify`` or ``detection`` (of a thing of the
            picture, by one of the phrases for it; to point at it, a phrase must not stand for several things of the picture).
        split: ``train``, ``val``, ``test``; all pictures when not given.
        captions: for the task caption, ``one`` or ``all`` of a picture in one sample.
        query: what a detection asks for, a ``phrase`` or all phrases of a ``caption``.
        min_phrases: for the task grounding, captions with fewer phrases that have boxes are left out.
    """
    choose("task", task, ("caption", "refer", "identify", "grounding", "detection"))
    together = choose("captions", captions, ("one", "all")) == "all"
    whole = choose("query", query, ("phrase", "caption")) == "caption"
    if not isinstance(annotations, str | os.PathLike) or not os.path.isdir(annotations):
        raise UserError(f"annotations: expected the folder of Flickr30k Entities, found {annotations!r}")
    paths = [os.path.join(annotations, "Sentences", f"{number}.txt") for number in _numbers(annotations, split)]
    if not paths:
        raise UserError("annotations: names no file; expected Sentences/*.txt of Flickr30k Entities")
    for path in paths:
        if not os.path.exists(path):
            raise UserError(f"{path}: no such file; expected Sentences/*.txt of Flickr30k Entities (annotations)")
    read = partial(_read, folder=annotations, task=task, together=together, whole=whole, least=min_phrases)
    yield from each((Entry(path, Path(path).stem, {}) for path in paths), read)


def _numbers(folder: str | os.PathLike, split: str | None) -> list[str]:
    """The numbers of the pictures of a split."""
    if split is None:
        return sorted(path.stem for path in Path(folder, "Sentences").glob("*.txt"))
    return read_text(os.path.join(folder, f"{choose('split', split, ('train', 'val', 'test'))}.txt")).split()


def _read(picture: Fields, folder: str | os.PathLike, task: str, together: bool, whole: bool, least: int) -> Iterable[Row]:
    size, boxes = read_boxes(os.path.join(folder, "Annotations", f"{picture.id}.xml"))
    common = {**picture.place, "images": (f"{picture.id}.jpg",), "size": size}
    lines = enumerate(read_text(picture.where).split("\n"), 1)
    captions = [_caption(line, boxes, f"{picture.where}:{i}", common) for i, line in lines if line.strip()]
    if not captions:
        raise UserError(f"{picture.where}: no captions")
    if task == "caption":
        texts = tuple(join_tokens(caption.text) for caption in captions)
        return [Description(**common, answers=one, task=task) for one in ([texts] if together else [(text,) for text in texts])]
    if task == "grounding":
        return [replace(caption, task=task) for caption in captions if len(caption.spans) >= least]
    if task == "detection" and whole:
        return [replace(caption, task=task) for caption in captions if caption.spans]
    things = _things(captions, alone=task != "identify")
    return [Thing(**common, phrases=phrases, places=places, task=task) for phrases, places in things]


def _caption(line: str, boxes: dict[str, tuple[Box, ...]], where: str, common: dict[str, Any]) -> Caption:
    """A marked line."""
    parts: list[str] = []
    spans, length, done = [], 0, 0
    for mark in MARK.finditer(line):
        parts += [line[done : mark.start()], mark[3]]
        start = length + mark.start() - done
        length = start + len(mark[3])
        done = mark.end()
        if mark[1] in boxes:
            spans.append(Span(start, length, boxes[mark[1]], tuple(mark[2][1:].split("/"))))
    text = "".join([*parts, line[done:]])
    if "[/EN#" in text:
        raise UserError(f"{where}: a phrase is not marked as [/EN#NUMBER/KIND WORDS]")
    return Caption(**common, text=text, spans=tuple(spans))


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
    if width <= 0 or height <= 0:
        raise UserError(f"{path}: <size> must be above 0, found {width} x {height}")
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
