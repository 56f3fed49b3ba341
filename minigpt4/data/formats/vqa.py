"""Questions with short answers: VQAv2, OK-VQA, A-OKVQA, GQA, OCR-VQA."""

import os
import sys
from collections.abc import Iterable

from ...errors import UserError
from ...prompt.text import clean_text
from ..sample import ask
from ..schema import Question
from ..source import Problem
from ..values import kind_of
from .base import Annotated, Fields, choose, coco_names, instruct
from .captions import cleaned


class Vqa(Annotated):
    """Items are (names of the picture, question, answers); an answer is drawn as often as people gave it.

    Args:
        clean: whether texts are cleaned as the published processor does it.
    """

    task = "vqa"

    def __init__(self, *, clean: bool = True, **options):
        self.clean = choose("clean", clean, (True, False))
        super().__init__(**options)

    def _names(self, item):
        return item[0]

    def _turns(self, item, image, rng):
        return ask(instruct("vqa", item[1], rng), rng.choice(item[2]))

    def _as_row(self, item, where):
        return Question(where=where, images=item[0][:1], question=item[1], answers=item[2])

    def _item(self, names: tuple[str, ...], row: Fields, answers: Iterable[str], key: str) -> tuple:
        # Answers repeat by the hundred thousand: each is kept once. Those that are punctuation alone say nothing.
        prepared = map(clean_text, answers) if self.clean else (answer.strip() for answer in answers)
        answers = tuple(sys.intern(answer) for answer in prepared if answer)
        if not answers:
            raise UserError(f'{row.where}: "{key}" has no words in it')
        question = cleaned(row.text("question"), "question", row)
        return names, question if self.clean else row.text("question"), answers


class CocoVqa(Vqa):
    """VQAv2 and OK-VQA as LAVIS publishes them: a list of {"image", "question", "answer": [...]}."""

    expected = "a list of {image, question, answer: [...]}"

    def _read(self, row: Fields) -> Iterable[tuple]:
        image = row.text("image")
        yield self._item((image, os.path.basename(image)), row, row.texts("answer", blank=True), "answer")


class AokVqa(Vqa):
    """A-OKVQA: a list of {"image" or "image_id", "question", "direct_answers": [...]}; the choices are not used."""

    expected = "aokvqa_v1p0_train.json, a list of {image, question, direct_answers: [...]}"

    def _read(self, row: Fields) -> Iterable[tuple]:
        if "image" in row:
            names: tuple[str, ...] = (row.text("image"), os.path.basename(row.text("image")))
        else:
            names = coco_names(row.code("image_id"))
        yield self._item(names, row, row.texts("direct_answers", blank=True), "direct_answers")


class Gqa(Vqa):
    """GQA: a list of {"image", "question", "answer"}, or the official object of {"imageId", "question", "answer"} by number."""

    expected = "train_balanced_questions.json, a list of {image, question, answer}"

    def _rows(self, data, path):
        return data.items() if isinstance(data, dict) else super()._rows(data, path)

    def _read(self, row: Fields) -> Iterable[tuple]:
        image = row.text("image") if "image" in row else f"{row.code('imageId')}.jpg"
        yield self._item((image, os.path.basename(image)), row, [row.text("answer")], "answer")


class OcrVqa(Vqa):
    """OCR-VQA: {id: {"imageURL", "questions", "answers", "split"}}; pictures are named by id, with the address' ending.

    Args:
        split: ``train`` (as published), ``val`` or ``test``.
    """

    expected = "dataset.json, {id: {imageURL, questions, answers, split}}"

    def __init__(self, *, split: str = "train", **options):
        self.split = choose("split", split, _SPLITS)
        super().__init__(**options)

    def _rows(self, data, path):
        if not isinstance(data, dict):
            raise UserError(f"{path}: expected {self.expected}, found {kind_of(data)}")
        return ((key, {"id": key, **row} if isinstance(row, dict) else row) for key, row in data.items())

    def _read(self, row: Fields) -> Iterable[tuple]:
        if row.number("split") != _SPLITS.index(self.split) + 1:
            return
        names = (row.code("id") + os.path.splitext(row.text("imageURL"))[1],)
        questions, answers = row.texts("questions", blank=True), row.texts("answers", blank=True)
        if len(questions) != len(answers):
            raise UserError(f"{row.where}: {len(questions)} questions, but {len(answers)} answers")
        for i, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            one = Fields({"question": question}, f"{row.where}.questions[{i}]")
            try:
                yield self._item(names, one, [answer], "answers")
            except UserError as error:  # the book's other questions are none the worse for it
                self.malformed.append(Problem(kind="malformed row", where=one.where, message=str(error)))


_SPLITS = ("train", "val", "test")  # numbered from 1 in the file
