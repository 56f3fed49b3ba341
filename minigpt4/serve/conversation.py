"""A request's messages as the engine takes them: texts with places for images, and the images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from ..errors import UserError
from ..prompt.templates import IMAGE, PLACEHOLDER, Message
from .errors import ApiError
from .images import read_image
from .schema import AssistantMessage, ImagePart, TextPart, UserMessage
from .settings import Allowed


@dataclass(frozen=True, eq=False)
class Conversation:
    """What was said.

    Args:
        messages: with `IMAGE` where an image stands.
        images: in order of their places, upright RGB.
        question: the last message without its images.
    """

    messages: list[Message]
    images: list[Image.Image]
    question: str


def conversation(
    given: Sequence[UserMessage | AssistantMessage],
    allowed: Allowed,
    plain: Callable[[str], str],
    field: str = "messages",
) -> Conversation:
    """Read a request's messages, which were in this field of it.

    Args:
        plain: makes text from people safe to be said (`Engine.plain`).

    Raises:
        ApiError: an image that cannot be taken, with its place in the request.
    """
    count = sum(isinstance(part, ImagePart) for m in given if not isinstance(m.content, str) for part in m.content)
    if count > allowed.images:
        raise ApiError(400, f"{field}: {count} images are more than the {allowed.images} allowed", param=field)
    length = sum(len(text) for message in given for text in _texts(message))
    if length > allowed.text_characters:
        text = f"{field}: {length:,} characters are more than the {allowed.text_characters:,} allowed"
        raise ApiError(400, text, param=field, code="context_length_exceeded")
    messages: list[Message] = []
    images: list[Image.Image] = []
    question = ""
    for i, message in enumerate(given):
        if isinstance(message.content, str):
            question = plain(message.content)
            messages.append({"role": message.role, "content": question})
            continue
        pieces: list[str] = []
        words: list[str] = []
        for j, part in enumerate(message.content):
            if isinstance(part, TextPart):
                words.append(plain(part.text))
                pieces.append(words[-1])
                continue
            try:
                images.append(read_image(part.image_url.url, allowed))
            except UserError as error:
                where = f"{field}[{i}].content[{j}].image_url" + (".url" if field == "messages" else "")
                raise ApiError(400, f"{where}: {error}", param=where, code="invalid_image") from None
            pieces.append(IMAGE)
        question = " ".join(words)
        if len(words) <= 1:  # images before the question, as the systems were trained, whichever was sent first
            pieces = [IMAGE] * (len(pieces) - len(words)) + words
        messages.append({"role": message.role, "content": " ".join(pieces)})
    if not question.strip() and PLACEHOLDER not in messages[-1]["content"]:
        raise ApiError(400, f"{field}[{len(given) - 1}].content: is empty", param=f"{field}[{len(given) - 1}].content")
    return Conversation(messages, images, question)


def _texts(message: UserMessage | AssistantMessage) -> list[str]:
    if isinstance(message.content, str):
        return [message.content]
    return [part.text for part in message.content if isinstance(part, TextPart)]
