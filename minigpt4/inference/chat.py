"""A conversation about images: its history, its encoded images, and answers that are streamed."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from ..engine.completion import EncodedImage, Piece, Request
from ..media.images import ImageInput, open_image
from ..prompt.templates import Message, with_images
from .answer import Answer
from .looks import Look
from .task_settings import Plan, check_text_alone, text_of

AskLook = Callable[[Look, dict[str, Any]], str]
"""Answers one question with settings, looking as often as the system wishes."""
PlanFor = Callable[..., Plan]


class Streams(Protocol):
    """What a conversation needs of an engine."""

    def encode(self, images: Sequence[ImageInput]) -> list[EncodedImage]:
        """Images as the language model receives them."""

    def plain(self, text: str) -> str:
        """What people say, without the texts that only the system may say."""

    def stream(self, request: Request) -> Iterator[Piece]:
        """An answer, piece by piece."""


class Chat:
    """Messages in order, and the images in them.

    An image that is shown belongs to the next question. It is encoded when it is shown, and never again.

    Args:
        answer: how a question is answered all at once.
        plan: how a question is decoded: (question, settings, streamed=...) -> `Plan`.
    """

    def __init__(self, engine: Streams, answer: AskLook, plan: PlanFor):
        self.engine, self._answer, self._plan = engine, answer, plan
        self.messages: list[Message] = []
        self.images: list[ImageInput] = []
        self._encoded: list[EncodedImage] = []
        self._asked = 0  # images that belong to questions already asked

    def show(self, image: ImageInput) -> None:
        """Add an image to the conversation."""
        self._encoded += self.engine.encode([image])
        self.images.append(image)

    def ask(self, question: str, **settings) -> Answer:
        """Say something and get the answer, which draws on the image shown last; both become part of the history."""
        look = self.look(question)
        answer = self._answer(look, settings)
        self.remember(look, answer)
        return about(answer, self.images[-1:], question)

    def stream(self, question: str, **settings) -> Iterator[str]:
        """The same, piece by piece. What was written so far is remembered even if the reader stops early."""
        check_text_alone(settings)
        plan = self._plan(question, settings, streamed=True)
        look = self.look(question)
        pieces: list[str] = []
        try:
            for piece in self.engine.stream(look.request(plan.params)):
                if piece.text:
                    pieces.append(piece.text)
                    yield piece.text
        finally:
            if pieces:
                self.remember(look, "".join(pieces).rstrip())

    def go_on(self, earlier: "Chat") -> None:
        """Take over a conversation of the same system that was answered in another way."""
        for image in earlier.images:
            self.show(image)
        self.messages, self._asked = earlier.messages.copy(), earlier._asked

    def forget(self) -> None:
        """Begin anew, without images."""
        self.messages, self.images, self._encoded, self._asked = [], [], [], 0

    def look(self, question: str) -> Look:
        """A question behind all that was said, with the images that were shown since."""
        new = len(self.images) - self._asked
        messages = [*self.messages, {"role": "user", "content": with_images(self.engine.plain(text_of(question)), new)}]
        return Look(self.images.copy(), question, messages, self._encoded.copy(), self.engine.plain)

    def remember(self, look: Look, answer: str) -> None:
        """A question and its answer become part of the history."""
        self.messages = [*look.messages, {"role": "assistant", "content": self.engine.plain(str(answer))}]
        self._asked = len(look.images)


def about(text: str, images: Sequence[ImageInput], question: str) -> Answer:
    """The answer to a question about images; it can draw itself if there is one image."""
    return Answer(text, image=images[0] if len(images) == 1 else None, question=question, opener=open_image)
