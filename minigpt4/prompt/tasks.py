"""The six tasks of MiniGPT-v2: their identifiers and the ways their instructions are worded.

Source: MiniGPT-v2 paper, section 2.2 and table 1; the wordings are those that the published weights were trained with. An
instruction here is the text after the picture, without the blank that the published data code leaves at its end.
"""

import random
from dataclasses import dataclass

from ..errors import UserError


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task: what its instructions look like."""

    name: str
    wordings: tuple[str, ...]
    """Ways to ask, drawn at random in training; ``{}`` is the subject: a question, a phrase, or a box."""
    plain: str
    """The wording used where nothing is drawn: for evaluation, and for the verbs."""

    @property
    def identifier(self) -> str:
        return f"[{self.name}]"

    def instruction(self, subject: str = "", rng: random.Random | None = None) -> str:
        """The instruction about a subject, worded at random by `rng`, or plainly without it."""
        wording = rng.choice(self.wordings) if rng else self.plain
        return f"{self.identifier} {wording.replace('{}', subject)}".rstrip()


TASKS = {
    task.name: task
    for task in (
        Task(
            name="caption",
            plain="",
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
            plain="Based on the image, respond to this question with a short answer: {}",
            wordings=("{}", "Based on the image, respond to this question with a short answer: {}"),
        ),
        Task(
            name="refer",
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
            plain="describe this image in detail",
            wordings=(
                "please describe this image in details",
                "describe this image as detailed as possible",
                "summarize this image in details",
                "give a thorough description of what you see in this image",
            ),
        ),
        Task(name="detection", plain="{}", wordings=("{}",)),
    )
}


def get_task(name: str) -> Task:
    """The task of that name, with or without the brackets of its identifier."""
    task = TASKS.get(name.strip("[]"))
    if task is None:
        raise UserError(f"unknown task {name!r}; there are {', '.join(TASKS)}")
    return task
