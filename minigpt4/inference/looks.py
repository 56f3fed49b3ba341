"""Asking about images: once, several times, in a mirror. Every question of the product goes through here to the engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import ImageOps

from ..engine.completion import EncodedImage, Request
from ..engine.params import SamplingParams
from ..media.images import ImageInput, open_image
from ..prompt.mirror import mirror_text
from ..prompt.templates import Message, with_images
from .task_settings import Plan, text_of

if TYPE_CHECKING:
    from ..engine.engine import Engine


@dataclass(frozen=True, eq=False)
class Look:
    """A question about images, and the conversation before it.

    Args:
        images: all of the conversation, in order.
        question: the last message without the places of its images.
        encoded: the same images as they were encoded before, where they were.
        plain: makes a question safe to be said (`MiniGPT4Processor.plain`); `messages` are so already.
    """

    images: Sequence[ImageInput]
    question: str
    messages: Sequence[Message]
    encoded: Sequence[EncodedImage] | None = None
    plain: Callable[[str], str] = str

    @classmethod
    def at(cls, images: Sequence[ImageInput], question: str, plain: Callable[[str], str] = str) -> "Look":
        """A single question about images.

        Raises:
            UserError: the question is not text.
        """
        said = with_images(plain(text_of(question)), len(images))
        return cls(images, question, [{"role": "user", "content": said}], plain=plain)

    def request(self, params: SamplingParams) -> Request:
        """What the engine is asked."""
        images = self.encoded if self.encoded is not None else self.images
        return Request(messages=self.messages, images=images, params=params)

    def mirrored(self) -> "Look":
        """The same before the images in a mirror: left is right in all that was said."""
        images = [ImageOps.mirror(open_image(image)) for image in self.images]
        messages = [message | {"content": mirror_text(message["content"])} for message in self.messages]
        return Look(images, mirror_text(self.question), messages, plain=self.plain)


def ask(engine: "Engine", looks: Sequence[Look], plan: Plan, batch_size: int = 16) -> list[list[str]]:
    """As many answers to each question as the plan says.

    Args:
        batch_size: how many questions run at a time. A question about an image and the same about its mirror image are one.
    """
    if not plan.mirrored:
        done = engine.generate(_requests(looks, plan, plan.samples), batch_size)
        return [[one.text for one in some] for some in done]
    half = plan.samples // 2
    plain, turned = _requests(looks, plan, plan.samples - half), _requests([look.mirrored() for look in looks], plan, half)
    both = engine.generate([one for pair in zip(plain, turned, strict=True) for one in pair], 2 * batch_size)
    return [
        [one.text for one in some] + [mirror_text(one.text) for one in more]
        for some, more in zip(both[::2], both[1::2], strict=True)
    ]


def _requests(looks: Sequence[Look], plan: Plan, samples: int) -> list[Request]:
    params = plan.params if plan.samples == 1 else plan.sampled(samples)
    return [look.request(params) for look in looks]
