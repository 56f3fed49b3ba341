"""Questions with short answers: VQAv2, OK-VQA, A-OKVQA, GQA, OCR-VQA. An answer is drawn as often as people gave it.

Option of all of them: ``clean``, whether texts are cleaned as the published processor does it.
"""

import os
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from ...errors import UserError
from ...prompt.text import clean_text
from ..schema import Question, Row
from ..source import Problem
from .fields import Fields, choose, coco_names, each, listed, malformed, named
from .files import Paths, files, load_json

_SPLITS = ("train", "val", "test")  # OCR-VQA numbers them from 1


def coco_vqa(annotations: Paths, *, clean: bool = True) -> Iterator[Row | Problem]:
    """VQAv2 and OK-VQA as LAVIS publishes them: a list of {"image", "question", "answer": [...]}."""
    expected = "a list of {image, question, answer: [...]}"
    read = partial(_coco_vqa, clean=choose("clean", clean, (True, False)))
    for path in files(annotations, "annotations", expected):
        yield from each(listed(load_json(path), path, expected), read)


def _coco_vqa(row: Fields, clean: bool) -> Iterator[Row]:
    image = row.text("image")
    yield _question(row, (image, os.path.basename(image)), row.texts("answer", blank=True), "answer", clean)


def aok_vqa(annotations: Paths, *, clean: bool = True) -> Iterator[Row | Problem]:
    """A-OKVQA: a list of {"image" or "image_id", "question", "direct_answers": [...]}; the choices are not used."""
    expected = "aokvqa_v1p0_train.json, a list of {image, question, direct_answers: [...]}"
    read = partial(_aok_vqa, clean=choose("clean", clean, (True, False)))
    for path in files(annotations, "annotations", expected):
        yield from each(listed(load_json(path), path, expected), read)


def _aok_vqa(row: Fields, clean: bool) -> Iterator[Row]:
    image = row.text("image") if "image" in row else None
    names = coco_names(row.code("image_id")) if image is None else (image, os.path.basename(image))
    yield _question(row, names, row.texts("direct_answers", blank=True), "direct_answers", clean)


def gqa(annotations: Paths, *, clean: bool = True) -> Iterator[Row | Problem]:
    """GQA: a list of {"image", "question", "answer"}, or the official object of {"imageId", "question", "answer"} by number."""
    expected = "train_balanced_questions.json, a list of {image, question, answer}"
    read = partial(_gqa, clean=choose("clean", clean, (True, False)))
    for path in files(annotations, "annotations", expected):
        data = load_json(path)
        yield from each((named if isinstance(data, dict) else listed)(data, path, expected), read)


def _gqa(row: Fields, clean: bool) -> Iterator[Row]:
    image = row.text("image") if "image" in row else f"{row.code('imageId')}.jpg"
    types = row.row.get("types")
    kind = types.get("structural") if isinstance(types, dict) else None
    extra = {"structural": kind} if isinstance(kind, str) else {}
    yield _question(row, (image, os.path.basename(image)), [row.text("answer")], "answer", clean, extra=extra)


def ocrvqa(annotations: Paths, *, split: str = "train", clean: bool = True) -> Iterator[Row | Problem]:
    """OCR-VQA: {id: {"imageURL", "questions", "answers", "split"}}; pictures are named by id, with the address' ending.

    Args:
        split: ``train`` (as published), ``val`` or ``test``.
    """
    expected = "dataset.json, {id: {imageURL, questions, answers, split}}"
    number = _SPLITS.index(choose("split", split, _SPLITS)) + 1
    read = partial(_book, split=number, clean=choose("clean", clean, (True, False)))
    for path in files(annotations, "annotations", expected):
        yield from each(named(load_json(path), path, expected), read)


def _book(row: Fields, split: int, clean: bool) -> Iterator[Row | Problem]:
    if row.number("split") != split:
        return
    number = row.code("id") if "id" in row.row else row.id
    names = (number + os.path.splitext(row.text("imageURL"))[1],)
    questions, answers = row.texts("questions", blank=True), row.texts("answers", blank=True)
    if len(questions) != len(answers):
        raise UserError(f"{row.where}: {len(questions)} questions, but {len(answers)} answers")
    for i, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        one = Fields({"question": question}, f"{row.where}.questions[{i}]", row.id)
        try:
            yield _question(one, names, [answer], "answers", clean, row.where)
        except UserError as error:  # the book's other questions are none the worse for it
            yield malformed(one.where, error)


def _question(
    row: Fields, names: tuple[str, ...], answers: Iterable[str], key: str, clean: bool, where: str | None = None, **extra: Any
) -> Row:
    # Answers that are punctuation alone say nothing.
    prepared = tuple(answer for answer in (map(clean_text, answers) if clean else map(str.strip, answers)) if answer)
    if not prepared:
        raise UserError(f'{row.where}: "{key}" has no words in it')
    cleaned, question = row.cleaned("question"), row.text("question")
    return Question(
        where=where or row.where,
        id=row.id,
        images=names[:1],
        aliases=names[1:],
        question=cleaned if clean else question,
        answers=prepared,
        task="vqa",
        **extra,
    )
