"""The six tasks of MiniGPT-v2: their identifiers, how each is asked, and how its answers are written and read.

Source: MiniGPT-v2 paper, section 2.2 and table 1; the wordings are those that the published weights were trained with. An
instruction here is the text after the picture, without the blank that the published data code leaves at its end. How each
task is scored is in `evaluate.benchmarks`.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from .boxes import Box, Phrase, parse_boxes, parse_phrases, render_boxes, render_phrases, without_boxes


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task: what its instructions and its answers look like."""

    name: str
    wordings: tuple[str, ...]
    """Ways to ask, drawn at random in training; ``{}`` is the subject."""
    plain: str
    """The wording used where nothing is drawn: for evaluation, and for the verbs."""
    subject: str = ""
    """What is asked about: a question, a phrase, a box; nothing for tasks about the whole picture."""
    write: Callable[..., str] = str.strip
    """What is to be answered, as text: the inverse of `parse`."""
    parse: Callable[[str], Any] = str.strip
    """An answer's text -> what it says; an empty value where it says nothing of use. Never fails."""
    max_new_tokens: int | None = None
    """Room for answers that are longer than a system's usual ones."""

    @property
    def identifier(self) -> str:
        return f"[{self.name}]"

    def instruction(self, subject: str = "", rng: random.Random | None = None) -> str:
        """The instruction about a subject, worded at random by `rng`, or plainly without it."""
        wording = rng.choice(self.wordings) if rng else self.plain
        return f"{self.identifier} {wording.replace('{}', subject)}".rstrip()

    def subject_of(self, words: str) -> str:
        """What an instruction (without its identifier) asks about, whichever way it is worded."""
        for wording in sorted({self.plain, *self.wordings}, key=len, reverse=True):
            if "{}" in wording and (match := re.fullmatch(_pattern(wording), words.strip(), re.IGNORECASE)):
                return match[1]
        return ""


def _pattern(wording: str) -> str:
    return re.escape(wording).replace(r"\{\}", "(.+?)")


def _write_detection(found: Sequence[Phrase], **rounding) -> str:
    return " ".join(render_phrases([phrase], **rounding) for phrase in found)


def _parse_detection(text: str) -> list[Phrase]:
    """Phrases with boxes; boxes without a phrase go under an empty one."""
    return parse_phrases(text) or [("", boxes) for boxes in [parse_boxes(text)] if boxes]


TASKS = {
    task.name: task
    for task in (
        Task(
            name="caption",
            plain="Briefly describe this image.",
            wordings=(
                "Briefly describe this image.",
                "Provide a concise depiction of this image.",
                "Present a short description of this image.",
                "Summarize this image in a few words.",
                "A short image caption:",
                "A short image description:",
                "A photo of",
                "An image that shows",
                "Write a short description for the image.",
                "Write a description for the photo.",
                "Provide a description of what is presented in the photo.",
                "Briefly describe the content of the image.",
                "Can you briefly explain what you see in the image?",
                "Could you use a few words to describe what you perceive in the photo?",
                "Please provide a short depiction of the picture.",
                "Using language, provide a short account of the image.",
                "Use a few words to illustrate what is happening in the picture.",
            ),
        ),
        Task(
            name="vqa",
            subject="question",
            plain="Based on the image, respond to this question with a short answer: {}",
            wordings=("{}", "Based on the image, respond to this question with a short answer: {}"),
        ),
        Task(
            name="refer",
            subject="phrase",
            write=render_boxes,
            parse=parse_boxes,
            plain="give me the location of {}",
            wordings=(
                "{}",
                "give me the location of {}",
                "where is {} ?",
                "from this image, tell me the location of {}",
                "the location of {} is",
                "could you tell me the location for {} ?",
                "where can I locate the {} ?",
            ),
        ),
        Task(
            name="identify",
            subject="box",
            parse=without_boxes,
            plain="what is this {}",
            wordings=(
                "{}",
                "what object is in this location {}",
                "identify the object present at this location {}",
                "what is it in {}",
                "describe this object in {}",
                "this {} is",
                "the object in {} is",
            ),
        ),
        Task(
            name="grounding",
            write=render_phrases,
            parse=parse_phrases,
            max_new_tokens=400,
            plain="please describe this image in details",  # as in training; the published page's own words are not among these
            wordings=(
                "please describe this image in details",
                "describe this image as detailed as possible",
                "summarize this image in details",
                "give a thorough description of what you see in this image",
            ),
        ),
        Task(
            name="detection",
            subject="phrase",
            write=_write_detection,
            parse=_parse_detection,
            max_new_tokens=256,
            plain="{}",
            wordings=("{}",),
        ),
    )
}


NO_TASK = "question"
"""What questions that name no task are called where something is said by task."""


def get_task(name: str) -> Task:
    """The task of that name, with or without the brackets of its identifier."""
    task = TASKS.get(name.strip("[]"))
    if task is None:
        raise UserError(f"unknown task {name!r}; there are {', '.join(TASKS)}")
    return task


def split_identifier(question: str) -> tuple[Task | None, str]:
    """The task that a question names at its beginning, and the words after it; no task for free questions.

    Raises:
        UserError: an identifier that does not exist, or that lacks what it asks about.
    """
    match = re.match(r"\s*\[([A-Za-z]+)\]", question)
    if match is None:
        return None, question
    if match[1] not in TASKS:
        known = ", ".join(task.identifier for task in TASKS.values())
        raise UserError(f"unknown task identifier [{match[1]}]; there are {known}")
    task, words = TASKS[match[1]], question[match.end() :].strip()
    if task.subject == "box" and not parse_boxes(words):
        raise UserError(f"{task.identifier} needs a box after it, like {Box.from_grid(25, 25, 75, 75).render()}")
    if task.subject and not words:
        raise UserError(f"{task.identifier} needs a {task.subject} after it")
    return task, words
