"""Rows of our own schema: what a training item looks like in a file (documented in docs/data.md).

A row is a JSON object in one of five forms, told apart by their keys::

    {"image": "a.jpg", "answers": ["A dog runs.", "A dog on a beach."], "task": "caption"}        description
    {"image": "a.jpg", "question": "What runs?", "answer": "a dog", "task": "vqa"}                question
    {"image": "a.jpg", "phrase": "the dog", "boxes": [[0.1, 0.2, 0.5, 0.9]], "task": "refer"}     phrase
    {"image": "a.jpg", "text": "A dog runs.", "phrases": [{"phrase": "A dog", "boxes": [...]}]}   grounded text
    {"image": "a.jpg", "conversation": [{"role": "user", "content": "..."}, ...]}                 conversation

Boxes are [x1, y1, x2, y2] as fractions of the picture's width and height.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..errors import UserError
from ..media.images import ImageInput
from ..prompt.boxes import Box, Rounding, render_boxes, render_phrases
from ..prompt.tasks import TASKS
from ..prompt.templates import PLACEHOLDER
from .sample import Sample, Turn, ask
from .values import is_number, kind_of, nearest, quoted, text_of, texts_of

DESCRIBE = (  # the wordings of MiniGPT-4's second stage (paper, section 3.2)
    "Describe this image in detail.",
    "Take a look at this image and describe what you notice.",
    "Please provide a detailed description of the picture.",
    "Could you describe the contents of this image for me?",
)


@dataclass(frozen=True, kw_only=True)
class Style:
    """How rows are turned into text, where the row leaves it open."""

    prompts: Sequence[str] = DESCRIBE
    """Questions to draw from for a description that names no task."""
    rounding: Rounding = "nearest"
    """How the corners of boxes are put on the grid of 0 to 100; ``truncate`` is what the published weights learnt."""


@dataclass(frozen=True, kw_only=True)
class Row(ABC):
    """What all forms have in common."""

    serves: ClassVar[tuple[str, ...]] = ()
    """Tasks that this form can be used for."""
    unasked: ClassVar[str | None] = None
    """The task of a row that names none, where nobody has asked for another; such a row is free of tasks if None."""
    needs_task: ClassVar[bool] = False
    """Whether a row cannot be free of tasks."""

    placing: ClassVar[bool] = False
    """Whether questions of this form may say with `PLACEHOLDER` where the pictures stand."""

    where: str
    images: tuple[Any, ...] = ()
    """Names of files, or images that are stored with the row."""
    aliases: tuple[str, ...] = ()
    """Other names of its one image: as it is called where its folder was left out, or another year."""
    size: tuple[float, float] | None = None
    """Width and height of the image that was annotated, where the annotations say so."""
    placed: bool = False
    """Whether a question has placeholders that are places, whoever wrote the others."""
    task: str | None = None
    id: str = ""
    split: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def as_task(self, wanted: str | None) -> str | None:
        """The task that the row is used for where `wanted` is asked for. Call it for rows that `can` do so."""
        return wanted or self.task or self.unasked

    def can(self, wanted: str | None) -> bool:
        """Whether the row can be used where `wanted` is asked for: None takes every row as what it says it is."""
        return wanted is None or (self.task == wanted if self.task else wanted in self.serves)

    def must_serve(self, wanted: str | None) -> None:
        """Raises UserError if the row cannot be used as asked for."""
        if not self.can(wanted):
            kind = f"is of the task {self.task}" if self.task else f"serves {', '.join(self.serves) or 'no task'}"
            raise UserError(f"{self.where}: {kind}, but the option task asks for {wanted!r}")
        if self.needs_task and self.as_task(wanted) is None:
            raise UserError(
                f'{self.where}: no "task" ({", ".join(self.serves)}); give the row one, or the dataset the option task'
            )

    def seen(self, image: ImageInput | None) -> "Row":
        """The row where its first image has been found, for rows that need to know more of it than they say."""
        return self

    @abstractmethod
    def turns(self, task: str | None, rng: random.Random, style: Style) -> tuple[Turn, ...]:
        """Questions and answers of the row, used for `task`."""

    def sample(
        self, turns: tuple[Turn, ...], images: tuple[ImageInput, ...], task: str | None, id: str, placing: bool = True
    ) -> Sample:
        """The row as a sample, with the pictures found for it; `placing`: whether it may say where they stand."""
        boxes = {"boxes": self.boxes} if self.boxes else {}
        placed = self.says_where(turns, placing)
        return Sample(turns=turns, images=images, task=task, id=id, placed=placed, extra={**self.extra, **boxes})

    def says_where(self, turns: tuple[Turn, ...], placing: bool = True) -> bool:
        """Whether these turns of the row say where its images stand, `placing` as in `sample`."""
        return self.placed or (placing and self.placing and any(PLACEHOLDER in turn.question for turn in turns))

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The ground truth of a row that has one answer in boxes."""
        return ()


@dataclass(frozen=True, kw_only=True)
class Description(Row):
    """Pictures and what may be said about them; several answers are several people's."""

    serves = ("caption",)
    answers: tuple[str, ...]

    def turns(self, task, rng, style):
        question = TASKS[task].instruction("", rng) if task else rng.choice(style.prompts) if style.prompts else ""
        return ask(question, *self.answers)


@dataclass(frozen=True, kw_only=True)
class Question(Row):
    """A question with its answer, or with the answers of several people: one is drawn, as often as people gave it."""

    serves = ("vqa",)
    placing = True
    question: str
    answers: tuple[str, ...]

    def turns(self, task, rng, style):
        question = TASKS[task].instruction(self.question, rng) if task else self.question
        return ask(question, rng.choice(self.answers))


@dataclass(frozen=True, kw_only=True)
class Phrase(Row):
    """A phrase and where in the picture its things are."""

    serves = ("refer", "identify", "detection")
    needs_task = True
    phrase: str
    places: tuple[Box, ...]

    def turns(self, task, rng, style):
        return phrase_turns(task, self.phrase, self.places, rng, style.rounding)

    @property
    def boxes(self):
        return self.places


@dataclass(frozen=True)
class Span:
    """A phrase of a text: characters `start` to `end` (exclusive), and its boxes."""

    start: int
    end: int
    boxes: tuple[Box, ...]
    kinds: tuple[str, ...] = ()
    """What kinds of thing it is, where the annotations say so."""


@dataclass(frozen=True, kw_only=True)
class GroundedText(Row):
    """A text with boxes for its phrases."""

    serves = ("grounding", "detection", "caption")
    unasked = "grounding"
    text: str
    spans: tuple[Span, ...]

    def turns(self, task, rng, style):
        if task == "caption":
            return ask(TASKS[task].instruction("", rng), self.text)
        if task == "detection":
            found = [(self.text[span.start : span.end], list(span.boxes)) for span in self.spans]
            return ask(TASKS[task].instruction(self.text, rng), TASKS[task].write(found, rounding=style.rounding))
        return ask(TASKS["grounding"].instruction("", rng), ground(self.text, self.spans, style.rounding))


@dataclass(frozen=True, kw_only=True)
class Conversation(Row):
    """Questions and answers in turn, as they stand."""

    placing = True
    pairs: tuple[tuple[str, str], ...]

    def turns(self, task, rng, style):
        return tuple(Turn(question=question, answers=(answer,)) for question, answer in self.pairs)


def phrase_turns(task: str, phrase: str, boxes: Iterable[Box], rng: random.Random, rounding: Rounding) -> tuple[Turn, ...]:
    """What is asked and answered about a phrase and its boxes: ``refer``, ``identify`` or ``detection``."""
    boxes = list(boxes)
    if task == "identify":
        return ask(TASKS[task].instruction(render_boxes(boxes, rounding), rng), phrase)
    found = [(phrase, boxes)] if task == "detection" else boxes
    return ask(TASKS[task].instruction(phrase, rng), TASKS[task].write(found, rounding=rounding))


def ground(text: str, spans: Iterable[Span], rounding: Rounding) -> str:
    """A text with its boxes written in: ``<p>A dog</p> {<1><2><3><4>} runs.`` Spans are in order and apart."""
    pieces: list[str | tuple[str, list[Box]]] = []
    done = 0
    for span in spans:
        pieces += [text[done : span.start], (text[span.start : span.end], list(span.boxes))]
        done = span.end
    return render_phrases([*pieces, text[done:]], rounding)


def parse_row(row: Any, where: str, stored: tuple[Any, ...] | None = None) -> Row:
    """A row as one of the five forms.

    Args:
        where: file and line, for messages.
        stored: the row's pictures, where they are stored beside the row instead of named in it.

    Raises:
        UserError: with `where`, the key, and what was expected.
    """
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: expected a JSON object, found {kind_of(row)}")
    row = {key: value for key, value in row.items() if value is not None}
    for key in row:
        if key not in KEYS:
            raise UserError(f'{where}: unknown key "{key}"; {nearest(key, KEYS)} (put what is yours under "extra")')
    heads = [key for key in FORMS if key in row]
    if not heads and ("answer" in row or "answers" in row):
        heads = ["answers"]
    elif "question" in heads and "answers" in heads:
        heads.remove("answers")
    if len(heads) != 1:
        found = f"has {' and '.join(map(quoted, heads))}" if heads else "has none of them"
        raise UserError(f'{where}: a row has one of "answer(s)", "question", "phrase", "text", "conversation"; this {found}')
    form, keys, parse = FORMS[heads[0]]
    for key in row:
        if key not in keys and key not in _COMMON:
            raise UserError(f'{where}: "{key}" does not go with "{heads[0]}"; {nearest(key, (*keys, *_COMMON))}')
    common = _common(row, where, form, stored)
    return form(where=where, **common, **parse(row, where, len(common["images"])))


def _common(row: dict, where: str, form: type[Row], stored: tuple[Any, ...] | None) -> dict[str, Any]:
    if "image" in row and "images" in row:
        raise UserError(f'{where}: "image" or "images", not both')
    images = stored
    if images is None:
        images = (row["image"],) if "image" in row else row.get("images", ())
        if isinstance(images, str | bytes) or not isinstance(images, Sequence):
            raise UserError(f'{where}: "images" must be a list of file names, found {kind_of(images)}')
        for image in images:
            if not isinstance(image, str) or not image:
                raise UserError(f'{where}: "image" must be a file name, found {kind_of(image)}')
    elif "image" in row or "images" in row:
        raise UserError(f'{where}: "image" is for rows that name files; here the pictures are stored with the row')
    task = row.get("task")
    if task is not None and task not in form.serves:
        among = f"one of {', '.join(form.serves)}" if form.serves else "left out"
        raise UserError(f'{where}: "task" must be {among} for a row of this form, found {task!r}')
    if form is not Question and form is not Conversation and not images:
        raise UserError(f'{where}: no "image"')
    number = row.get("id", "")
    if not isinstance(number, str | int):
        raise UserError(f'{where}: "id" must be text or a whole number, found {kind_of(number)}')
    extra = row.get("extra", {})
    if not isinstance(extra, Mapping):
        raise UserError(f'{where}: "extra" must be an object, found {kind_of(extra)}')
    split = text_of(row, "split", where) if "split" in row else None
    return {"images": tuple(images), "task": task, "id": str(number), "split": split, "extra": dict(extra)}


def _description(row: dict, where: str, images: int) -> dict[str, Any]:
    return {"answers": _answers(row, where)}


def _question(row: dict, where: str, images: int) -> dict[str, Any]:
    question = text_of(row, "question", where)
    _count_placeholders([question], images, where)
    return {"question": question, "answers": _answers(row, where)}


def _phrase(row: dict, where: str, images: int) -> dict[str, Any]:
    _one_image(images, where)
    return {"phrase": text_of(row, "phrase", where), "places": boxes_of(row, where)}


def _grounded(row: dict, where: str, images: int) -> dict[str, Any]:
    _one_image(images, where)
    text = text_of(row, "text", where)
    phrases = row.get("phrases")
    if not isinstance(phrases, Sequence) or isinstance(phrases, str) or not phrases:
        raise UserError(f'{where}: "phrases" must be a list of {{"phrase", "boxes"}}, found {kind_of(phrases)}')
    spans, done = [], 0
    for i, entry in enumerate(phrases):
        at = f"{where}: phrases[{i}]"
        if not isinstance(entry, Mapping):
            raise UserError(f'{at}: expected {{"phrase", "boxes"}}, found {kind_of(entry)}')
        entry = {key: value for key, value in entry.items() if value is not None}
        for key in entry:
            if key not in ("phrase", "boxes", "start"):
                raise UserError(f'{at}: unknown key "{key}"; {nearest(key, ("phrase", "boxes", "start"))}')
        phrase = text_of(entry, "phrase", at)
        start = entry.get("start", text.find(phrase, done))
        if not isinstance(start, int) or start < done or text[start : start + len(phrase)] != phrase:
            place = f"at character {start}" if "start" in entry else f"after character {done}"
            raise UserError(f"{at}: {phrase!r} does not stand in the text {place}; phrases go in the order of the text")
        done = start + len(phrase)
        spans.append(Span(start, done, boxes_of(entry, at)))
    return {"text": text, "spans": tuple(spans)}


def _conversation(row: dict, where: str, images: int) -> dict[str, Any]:
    messages = row["conversation"]
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages or len(messages) % 2:
        raise UserError(f'{where}: "conversation" must be a list of messages, from user and assistant in turn')
    said = []
    for i, message in enumerate(messages):
        at = f"{where}: conversation[{i}]"
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            raise UserError(f'{at}: expected {{"role", "content"}}, found {kind_of(message)}')
        role = ("user", "assistant")[i % 2]
        if message["role"] != role:
            raise UserError(f'{at}: "role" must be "{role}" here, found {message["role"]!r}')
        said.append(text_of(message, "content", at))
    _count_placeholders(said[::2], images, where)
    _no_placeholders(said[1::2], where)
    return {"pairs": tuple(zip(said[::2], said[1::2], strict=True))}


def _answers(row: dict, where: str) -> tuple[str, ...]:
    if "answer" in row and "answers" in row:
        raise UserError(f'{where}: "answer" or "answers", not both')
    answers = (text_of(row, "answer", where),) if "answer" in row else texts_of(row, "answers", where)
    _no_placeholders(answers, where)
    return answers


def boxes_of(row: Mapping, where: str, key: str = "boxes") -> tuple[Box, ...]:
    """The boxes under a key: a list of [x1, y1, x2, y2] in fractions."""
    boxes = row.get(key)
    if not isinstance(boxes, Sequence) or isinstance(boxes, str) or not boxes:
        raise UserError(f'{where}: "{key}" must be a list of [x1, y1, x2, y2], found {kind_of(boxes)}')
    return tuple(_box(box, f'{where}: "{key}"[{i}]') for i, box in enumerate(boxes))


def _box(box: Any, where: str) -> Box:
    numbers = isinstance(box, Sequence) and len(box) == 4 and all(is_number(v) for v in box)
    if not numbers:
        raise UserError(f"{where}: expected [x1, y1, x2, y2], found {kind_of(box)}")
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
        pixels = " (are these pixels? divide by width and height)" if max(box) > 2 else ""
        raise UserError(f"{where}: expected 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1, found {list(box)}{pixels}")
    return Box(x1, y1, x2, y2)


def _one_image(images: int, where: str) -> None:
    if images != 1:
        raise UserError(f"{where}: boxes are about one picture, found {images}")


def _count_placeholders(questions: Iterable[str], images: int, where: str) -> None:
    questions = list(questions)
    _no_markers(questions, where)
    count = sum(question.count(PLACEHOLDER) for question in questions)
    if count not in (0, images):
        raise UserError(f"{where}: {count} {PLACEHOLDER} for {images} pictures; expected one for each, or none")


def _no_placeholders(answers: Iterable[str], where: str) -> None:
    answers = list(answers)
    _no_markers(answers, where)
    if any(PLACEHOLDER in answer for answer in answers):
        raise UserError(f"{where}: an answer cannot have {PLACEHOLDER} in it")


def _no_markers(texts: Iterable[str], where: str) -> None:
    if any("<image>" in text for text in texts):
        raise UserError(
            f"{where}: <image> marks pictures in LLaVA's format (llava_conversation); here pictures stand first, "
            f"or where a question has {PLACEHOLDER}"
        )


FORMS: dict[str, tuple[type[Row], tuple[str, ...], Any]] = {  # by the key that tells them apart: form, keys, parser
    "conversation": (Conversation, ("conversation",), _conversation),
    "question": (Question, ("question", "answer", "answers"), _question),
    "phrase": (Phrase, ("phrase", "boxes"), _phrase),
    "text": (GroundedText, ("text", "phrases"), _grounded),
    "answers": (Description, ("answer", "answers"), _description),
}
_COMMON = ("image", "images", "task", "id", "split", "extra")
KEYS = tuple(dict.fromkeys([*_COMMON, *(key for _, keys, _ in FORMS.values() for key in keys)]))
