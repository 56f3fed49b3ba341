"""A conversation about pictures: its history, its encoded pictures, and answers that are streamed."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from ..errors import UserError
from ..media.images import ImageInput, open_image
from ..prompt.templates import Message, with_images
from .answer import Answer

if TYPE_CHECKING:
    from .assistant import Assistant


class Chat:
    """Messages in order, and what the language model received for each picture in them.

    A picture that is shown belongs to the next question. It is encoded when it is shown, and never again.
    """

    def __init__(self, assistant: "Assistant"):
        self.assistant = assistant
        self.messages: list[Message] = []
        self.images: list[ImageInput] = []
        self._embeds: list[torch.Tensor] = []  # (1, K, H) for each picture shown so far
        self._asked = 0  # pictures that belong to questions already asked

    def show(self, image: ImageInput) -> None:
        """Add a picture to the conversation."""
        embeds = self.assistant.encode([image])
        assert embeds is not None
        self._embeds.append(embeds)
        self.images.append(image)

    def ask(self, question: str, **generation) -> Answer:
        """Say something and get the answer, which draws on the picture shown last; both become part of the history."""
        for setting in ("mirrored", "zoom_in"):
            if generation.get(setting):
                raise UserError(
                    f"{setting} is for single questions: the pictures of a conversation have been looked at already"
                )
        settings = self.assistant.settings_for(question, generation)
        conversation = self._with(question)
        answer = self.assistant.complete([conversation], self._images(), **settings)[0]
        self._remember(conversation, answer)
        return about(answer, self.images[-1:], question)

    def stream(self, question: str, **generation) -> Iterator[str]:
        """The same, piece by piece. What was written so far is remembered even if the reader stops early."""
        settings = self.assistant.settings_for(question, generation, streamed=True)
        conversation = self._with(question)
        pieces: list[str] = []
        try:
            for piece in self.assistant.complete_streaming(conversation, self._images(), **settings):
                pieces.append(piece)
                yield piece
        finally:
            if pieces:
                self._remember(conversation, "".join(pieces).rstrip())

    def forget(self) -> None:
        """Begin anew, without pictures."""
        self.messages, self.images, self._embeds, self._asked = [], [], [], 0

    def _with(self, question: str) -> list[Message]:
        new = len(self._embeds) - self._asked
        return [*self.messages, {"role": "user", "content": with_images(question, new)}]

    def _images(self) -> torch.Tensor | None:
        return torch.cat(self._embeds) if self._embeds else None

    def _remember(self, conversation: list[Message], answer: str) -> None:
        self.messages = [*conversation, {"role": "assistant", "content": str(answer)}]
        self._asked = len(self._embeds)


def about(text: str, images: Sequence[ImageInput], question: str) -> Answer:
    """The answer to a question about pictures; it can draw itself if there is one picture."""
    return Answer(text, image=images[0] if len(images) == 1 else None, question=question, opener=open_image)
