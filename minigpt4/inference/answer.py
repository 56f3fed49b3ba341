"""What the language model said: text, and the boxes in it."""

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from ..errors import UserError
from ..io.atomic import saying, whole_file
from ..media.draw_boxes import draw_boxes
from ..prompt.boxes import Box, Phrase, parse_boxes, parse_phrases, without_boxes
from ..prompt.tasks import TASKS


def _open(image: Any) -> Image.Image:
    return ImageOps.exif_transpose(image if isinstance(image, Image.Image) else Image.open(image)).convert("RGB")


class Answer(str):
    """An answer: a string that is the text as the language model wrote it.

    Args:
        text: what the language model wrote.
        picture: what was asked about, a file or a PIL image, if it was one picture.
        question: what was asked, with its task identifier if it had one.
        opener: how `image` is opened to be drawn on.
    """

    image: Any
    question: str
    _opener: Callable[[Any], Image.Image]

    def __new__(
        cls, text: str, image: Any = None, question: str = "", opener: Callable[[Any], Image.Image] = _open
    ) -> "Answer":
        self = super().__new__(cls, text)
        self.image, self.question, self._opener = image, question, opener
        return self

    @property
    def text(self) -> str:
        """The text as the language model wrote it, boxes and markup included."""
        return str(self)

    @cached_property
    def plain_text(self) -> str:
        """The text as a person reads it: boxes and markup removed."""
        return without_boxes(str(self))

    @cached_property
    def boxes(self) -> list[Box]:
        """Every meaningful box in the text, in order; none if there is none."""
        return parse_boxes(self)

    @cached_property
    def phrases(self) -> list[Phrase]:
        """Phrases with their boxes, in order. Boxes that the text ties to no phrase belong to what was asked about."""
        found = parse_phrases(self)
        if not found and self.boxes:
            return [(self._subject, self.boxes)]
        return found

    def draw(self, path: str | os.PathLike | None = None) -> Image.Image:
        """The picture with the answer's boxes on it, labelled with their phrases; written to `path` if one is given.

        For a question about a box (``[identify]``), that box is drawn, labelled with the answer. A picture without boxes
        comes back as it is.

        Raises:
            UserError: the answer belongs to no picture or to several, or the file cannot be written.
        """
        if self.image is None:
            raise UserError("there is nothing to draw on: the answer is about no picture, or about several")
        drawn = draw_boxes(self._opener(self.image), self.phrases or self._asked_about())
        if path is not None:
            _save(drawn, Path(path))
        return drawn

    @property
    def _subject(self) -> str:
        """The phrase that was asked about, if the question's task has one."""
        for task in TASKS.values():
            if task.subject == "phrase" and self.question.startswith(task.identifier):
                return task.subject_of(self.question.removeprefix(task.identifier))
        return ""

    def _asked_about(self) -> list[Phrase]:
        boxes = parse_boxes(self.question)
        return [(self.plain_text, boxes)] if boxes else []


def check_writable(path: Path) -> str:
    """The picture format that a file's name asks for; the file's folder is made.

    Raises:
        UserError: no format of that name can be written, or no such folder can be made.
    """
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise UserError(f"{path}: name a picture file to draw to, such as {path.stem or 'drawn'}.png")
    with saying(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return kind


def _save(image: Image.Image, path: Path) -> None:
    """Write a picture whole or not at all, in the format that the file's name asks for."""
    kind = check_writable(path)
    with whole_file(path) as part:
        image.save(part, format=kind)
