"""What goes into the network: pictures as pixels, text as ids with room for the pictures."""

import re
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from ..errors import UserError
from ..media.images import ImageInput, open_image
from ..prompt.templates import PLACEHOLDER, ChatTemplate, Message, TokenizerTemplate, get_template

# OpenAI CLIP's statistics, used by EVA-CLIP and so by all published systems of this family.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class MiniGPT4ImageProcessor(BaseImageProcessor):
    """Any picture -> (3, size, size): RGB, bicubic resize that ignores the aspect, scale to [0, 1], normalise.

    Relative positions survive, so a box in relative coordinates is the same before and after.
    """

    model_input_names = ["pixel_values"]

    def __init__(
        self,
        size: int = 224,
        image_mean: Sequence[float] = CLIP_MEAN,
        image_std: Sequence[float] = CLIP_STD,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.size, self.image_mean, self.image_std = size, list(image_mean), list(image_std)

    def preprocess(self, images: ImageInput | Sequence[ImageInput], return_tensors: str = "pt") -> BatchFeature:
        """Pictures (paths or PIL images) -> ``pixel_values`` (P, 3, size, size), float32."""
        if isinstance(images, str | Image.Image) or not isinstance(images, Sequence):
            images = [images]
        pixels_BHWC = np.stack([self.resize(image) for image in images])
        mean, std = torch.tensor(self.image_mean), torch.tensor(self.image_std)
        # The order of operations is that of torchvision's ToTensor and Normalize, so the values agree to the last bit.
        x = torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2).float().div_(255)
        x = x.sub_(mean[:, None, None]).div_(std[:, None, None]).contiguous()
        return BatchFeature({"pixel_values": x}, tensor_type=return_tensors)

    def resize(self, image: ImageInput) -> np.ndarray:
        """One picture as (size, size, 3) bytes."""
        rgb = open_image(image)
        return np.asarray(rgb.resize((self.size, self.size), Image.Resampling.BICUBIC))


class MiniGPT4Processor(ProcessorMixin):
    """Image processor, tokenizer and chat template of one system.

    Args:
        template: name of the chat template (see `prompt.templates`).
        num_image_tokens: how many ids one picture takes.
        image_token_id: the id that stands for an image token.
        extra_bos: begin every prompt with one more beginning-of-sequence token than its format has. The published
            inference of MiniGPT-v2 does so (training does not); published numbers were obtained with it.
    """

    def __init__(
        self,
        image_processor: MiniGPT4ImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        template: str = "tokenizer",
        num_image_tokens: int = 32,
        image_token_id: int | None = None,
        extra_bos: bool = False,
        **kwargs,
    ):
        super().__init__(image_processor, tokenizer)
        self.template = template
        self.num_image_tokens = num_image_tokens
        self.image_token_id = len(tokenizer) if image_token_id is None else image_token_id
        self.extra_bos = extra_bos
        self._special_of: tuple = ()
        self._special_texts = re.compile("")

    @property
    def chat(self) -> ChatTemplate | TokenizerTemplate:
        """The chat template that the language model was trained with."""
        return get_template(self.template, self.tokenizer)

    def plain(self, text: str) -> str:
        """Text from data or from people, which never becomes a place for an image, the end of an answer or a turn.

        Halves of characters are replaced by question marks. Every special text of the system (`PLACEHOLDER`, special tokens of
        the tokenizer, the chat format's end and stop texts) is broken by a blank after its first character. All other text
        stays byte for byte. Doing it twice changes nothing more.
        """
        text = text.encode(errors="replace").decode()
        special = self._special
        while (broken := special.sub(_break, text)) != text:  # of "####", what the blank leaves behind is special again
            text = broken
        return text

    @property
    def _special(self) -> re.Pattern[str]:
        """Any special text, the longest first."""
        named = tuple(self.tokenizer.all_special_tokens)
        state = (self.template, len(self.tokenizer), named)
        if state != self._special_of:
            chat = self.chat
            added = (token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special)
            texts = {text for text in (PLACEHOLDER, *named, *added, *chat.stop, chat.end.strip()) if text.strip()}
            self._special_of = state
            self._special_texts = re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))))
        return self._special_texts

    def encode(self, text: str) -> list[int]:
        """Ids of one text; each `PLACEHOLDER` becomes `num_image_tokens` times the image token.

        The text between pictures is tokenised piece by piece, as in training, and no special tokens are added. Special
        tokens written out in the text (``<s>``, ``<|im_start|>``) count as such.
        """
        text = text.encode(errors="replace").decode()  # halves of characters, as in names that are no text, are no text
        ids: list[int] = []
        for i, piece in enumerate(text.split(PLACEHOLDER)):
            if i:
                ids += [self.image_token_id] * self.num_image_tokens
            if piece:
                ids += self.tokenizer(piece, add_special_tokens=False)["input_ids"]
        return ids

    def prompt_ids(self, messages: Sequence[Message], official: bool = False) -> list[int]:
        """Ids of a conversation up to where the assistant is to speak, with one beginning-of-sequence token if its
        format has one (and another one with `extra_bos`). Answers of the past are tokenised by themselves, as in training.

        With `official`, the conversation is written as the published chat does (`ChatTemplate.render`) and tokenised as one
        text, and the tokenizer adds its beginning-of-sequence token whether or not the text has one already.
        """
        bos = self.tokenizer.bos_token_id
        if official:
            return [bos, *self.encode(self._official_chat().render(messages, official=True))]
        chat = self.chat
        parts = chat.parts(messages) if isinstance(chat, ChatTemplate) else [chat.render(messages)]
        ids = [i for part in parts for i in self.encode(part)]
        if chat.add_bos and ids[:1] != [bos]:
            ids = [bos, *ids]
        return [bos, *ids] if self.extra_bos else ids

    def _official_chat(self) -> ChatTemplate:
        if isinstance(self.chat, ChatTemplate) and self.chat.add_bos:
            return self.chat
        raise UserError(f"there is no published chat of the format {self.template!r}")

    def __call__(
        self,
        images: ImageInput | Sequence[ImageInput] | None = None,
        text: str | Sequence[str] | None = None,
        padding_side: str = "left",
        return_tensors: str = "pt",
        **kwargs,
    ) -> BatchFeature:
        """Texts with placeholders, and their pictures in order of appearance, as a padded batch.

        Args:
            images: all pictures of all texts, in order. Paths or PIL images.
            text: one text or several, each with one `PLACEHOLDER` per picture.

        Returns:
            ``input_ids`` and ``attention_mask`` (B, S), and ``pixel_values`` (P, 3, size, size) if there are pictures.

        Raises:
            UserError: placeholders and pictures differ in number.
        """
        if images is not None and (isinstance(images, str | Image.Image) or not isinstance(images, Sequence)):
            images = [images]
        data: dict[str, torch.Tensor] = {}
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            places, given = sum(t.count(PLACEHOLDER) for t in texts), len(images or ())
            if places != given:
                raise UserError(f"the text has {places} placeholder(s) {PLACEHOLDER}, but {given} picture(s) were given")
            data.update(self.pad([self.encode(t) for t in texts], padding_side))
        if images:
            data["pixel_values"] = self.image_processor(images)["pixel_values"]
        return BatchFeature(data, tensor_type=return_tensors)

    def pad(self, rows: Sequence[Sequence[int]], padding_side: str = "left") -> dict[str, torch.Tensor]:
        """Rows of ids of unequal length -> ``input_ids`` and ``attention_mask`` (B, longest)."""
        pad = self.tokenizer.pad_token_id or 0
        longest = max(map(len, rows))
        input_ids = torch.full((len(rows), longest), pad)
        attention_mask = torch.zeros_like(input_ids)
        for i, row in enumerate(rows):
            where = slice(longest - len(row), None) if padding_side == "left" else slice(len(row))
            input_ids[i, where] = torch.tensor(row)
            attention_mask[i, where] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def apply_chat_template(self, conversation, add_generation_prompt: bool = False, tokenize: bool = False, **kwargs):
        """Messages -> prompt text (or its batch of ids). A message's content is text, or a list of image and text parts."""
        messages = [{"role": m["role"], "content": _flat(m["content"])} for m in conversation]
        text = self.chat.render(messages, open_turn=add_generation_prompt)
        if not tokenize:
            return text
        images = [p["image"] for m in conversation if not isinstance(m["content"], str) for p in m["content"] if "image" in p]
        return self(images=images or None, text=text, **kwargs)


def _break(match: re.Match[str]) -> str:
    text = match[0]
    return f"{text[0]} {text[1:]}" if len(text) > 1 else " "


def _flat(content: str | Sequence[dict]) -> str:
    """Content in parts -> one text; pictures become ``<Img><ImageHere></Img>``."""
    if isinstance(content, str):
        return content
    return " ".join(f"<Img>{PLACEHOLDER}</Img>" if part["type"] == "image" else part["text"] for part in content)
