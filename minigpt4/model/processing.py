"""What goes into the network: pictures as pixels, text as ids with room for the pictures."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from ..errors import UserError
from ..media.any_image import all_images, image_of_part
from ..media.images import ImageInput
from ..media.pixels import normalised, resized
from ..prompt import ids
from ..prompt.templates import IMAGE, PLACEHOLDER, ChatTemplate, Message, TokenizerTemplate, get_template

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

    def preprocess(self, images: Any, return_tensors: str | None = "pt") -> BatchFeature:
        """Pictures (in any form that `all_images` takes) -> ``pixel_values`` (P, 3, size, size), float32."""
        given = all_images(images)
        if not given:
            raise UserError("there are no images")
        pixels = torch.from_numpy(normalised([self.resize(image) for image in given], self.image_mean, self.image_std))
        return BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)

    def resize(self, image: ImageInput) -> np.ndarray:
        """One picture as (size, size, 3) bytes."""
        return resized(image, self.size)


class MiniGPT4Processor(ProcessorMixin):
    """Image processor, tokenizer and chat template of one system.

    Args:
        template: name of the chat template (see `prompt.templates`).
        num_image_tokens: how many ids one picture takes.
        image_token_id: the id that stands for an image token.
        extra_bos: begin every prompt with one more beginning-of-sequence token than its format has. The published
            inference of MiniGPT-v2 does so (training does not); published numbers were obtained with it.
        chat_template: the same format in Jinja, for others who read the folder (`prompt.jinja`).
    """

    def __init__(
        self,
        image_processor: MiniGPT4ImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        template: str = "tokenizer",
        num_image_tokens: int = 32,
        image_token_id: int | None = None,
        extra_bos: bool = False,
        chat_template: str | None = None,
    ):
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.template = template
        self.num_image_tokens = num_image_tokens
        self.image_token_id = len(tokenizer) if image_token_id is None else image_token_id
        self.extra_bos = extra_bos
        self._special_of: tuple = ()
        self._special_texts: tuple[str, ...] = ()
        self._any_special = re.compile("")

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
        return ids.plain(text, self._special)

    @property
    def special_texts(self) -> tuple[str, ...]:
        """What `plain` breaks, the longest first."""
        _ = self._special
        return self._special_texts

    @property
    def _special(self) -> re.Pattern[str]:
        """Any special text, the longest first."""
        named = tuple(self.tokenizer.all_special_tokens)
        state = (self.template, len(self.tokenizer), named)
        if state != self._special_of:
            chat = self.chat
            added = (token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special)
            texts = {text.strip() for text in (PLACEHOLDER, *named, *added, *chat.stop, chat.end)} - {""}
            texts = {text for text in texts if not text[1:2].isspace()}  # a further blank would not break these
            self._special_of = state
            self._special_texts = tuple(sorted(texts, key=lambda text: (-len(text), text)))
            self._any_special = ids.special_pattern(texts)
        return self._any_special

    def encode(self, text: str) -> list[int]:
        """Ids of one text; each `PLACEHOLDER` becomes `num_image_tokens` times the image token (`prompt.ids.text_ids`)."""
        return ids.text_ids(text, self._ids_of, [self.image_token_id] * self.num_image_tokens)

    def _ids_of(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def answer_ids(self, text: str) -> list[int]:
        """Ids of an answer with its end, as training writes it."""
        return self._ids_of(text + self.chat.end)

    def prompt_ids(self, messages: Sequence[Message], official: bool = False, open_turn: bool = True) -> list[int]:
        """Ids of a conversation up to where the assistant is to speak (with `open_turn`), with one beginning-of-sequence
        token if its format has one (and another one with `extra_bos`). Answers of the past are tokenised by themselves, as in
        training.

        With `official`, the conversation is written as the published chat does (`ChatTemplate.render`) and tokenised as one
        text, and the tokenizer adds its beginning-of-sequence token whether or not the text has one already.
        """
        bos = self.tokenizer.bos_token_id
        if official:
            return [bos, *self.encode(self._official_chat().render(messages, official=True))]
        return ids.prompt_ids(messages, self.chat, self.encode, bos, self.extra_bos, open_turn)

    def _official_chat(self) -> ChatTemplate:
        if isinstance(self.chat, ChatTemplate) and self.chat.add_bos:
            return self.chat
        raise UserError(f"there is no published chat of the format {self.template!r}")

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        *,
        padding: bool | str = True,
        truncation: bool | str | None = False,
        max_length: int | None = None,
        padding_side: str = "left",
        return_tensors: str | None = "pt",
        **others,
    ) -> BatchFeature:
        """Texts with placeholders, and their pictures in order of appearance, as a padded batch.

        Args:
            images: all pictures of all texts, in order, in any form that `media.any_image.all_images` takes; or a list
                of lists, one for each text.
            text: one text or several, each with one `PLACEHOLDER` per picture. No special tokens are added.
            padding: ``True`` to the longest, ``"max_length"``, or ``False``.
            truncation: cut texts at the end to `max_length` ids.
            others: what is for other modalities is taken if it is None; anything else is refused by name.

        Returns:
            ``input_ids`` and ``attention_mask`` (B, S), and ``pixel_values`` (P, 3, size, size) if there are pictures.

        Raises:
            UserError: placeholders and pictures differ in number, an unknown keyword, or a limit that cuts into a picture.
        """
        _refuse(others)
        given = all_images(images)
        data: dict[str, Any] = {}
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            counts = [t.count(PLACEHOLDER) for t in texts]
            if sum(counts) != len(given):
                raise UserError(
                    f"the text has {sum(counts)} placeholder(s) {PLACEHOLDER}, but {len(given)} picture(s) were given"
                )
            if isinstance(images, list | tuple) and any(isinstance(one, list | tuple) for one in images):
                each = [len(all_images(one)) for one in images]
                if len(each) == len(texts) and each != counts:
                    raise UserError(f"the texts have {counts} placeholder(s) {PLACEHOLDER}, but {each} picture(s) were given")
            rows = [self.encode(t) for t in texts]
            data |= self._batch(rows, padding, truncation, max_length, padding_side, return_tensors)
        if given:
            data["pixel_values"] = self.image_processor(given)["pixel_values"]
        return BatchFeature(data, tensor_type=return_tensors)

    def _batch(
        self,
        rows: list[list[int]],
        padding: bool | str,
        truncation: bool | str | None,
        max_length: int | None,
        padding_side: str,
        return_tensors: str | None,
    ) -> dict[str, Any]:
        """Rows of ids, cut and padded as asked for."""
        if padding not in (True, False, "longest", "max_length", "do_not_pad"):
            raise UserError(f"padding: {padding!r} is none of True, False, longest, max_length, do_not_pad")
        if truncation not in (True, False, None, "longest_first", "only_first", "do_not_truncate"):
            raise UserError(f"truncation: {truncation!r} is none of True, False, longest_first, do_not_truncate")
        if padding_side not in ("left", "right"):
            raise UserError(f"padding_side: {padding_side!r} is neither left nor right")
        most = self.tokenizer.model_max_length if max_length is None else max_length
        if most < 1:
            raise UserError(f"max_length must be at least 1, not {most}")
        if truncation and truncation != "do_not_truncate":
            if any(self.image_token_id in row[most:] for row in rows):
                raise UserError(f"max_length {most} would cut into a picture, which takes {self.num_image_tokens} tokens")
            rows = [row[:most] for row in rows]
        if padding in (False, "do_not_pad"):
            if return_tensors is not None and len(set(map(len, rows))) > 1:
                raise UserError("rows of unequal length make no tensor: ask for padding, or return_tensors=None")
            return {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
        if padding == "max_length" and max_length is None:
            raise UserError("padding to max_length needs max_length")
        padded = self.pad(rows, padding_side, most if padding == "max_length" else 0)
        return padded if return_tensors is not None else {key: value.tolist() for key, value in padded.items()}

    def pad(self, rows: Sequence[Sequence[int]], padding_side: str = "left", least: int = 0) -> dict[str, torch.Tensor]:
        """Rows of ids of unequal length -> ``input_ids`` and ``attention_mask`` (B, longest), `least` long at least."""
        pad = self.tokenizer.pad_token_id or 0
        longest = max(least, *map(len, rows))
        input_ids = torch.full((len(rows), longest), pad)
        attention_mask = torch.zeros_like(input_ids)
        for i, row in enumerate(rows):
            where = slice(longest - len(row), None) if padding_side == "left" else slice(len(row))
            input_ids[i, where] = torch.tensor(row, dtype=torch.long)
            attention_mask[i, where] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def apply_chat_template(
        self,
        conversation: Sequence[Any],
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = "pt",
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs,
    ) -> Any:
        """Messages -> prompt text, its ids (`tokenize`), or the model's inputs (`tokenize` and `return_dict`).

        Args:
            conversation: messages, or several conversations. A message's content is text, or a list of parts:
                ``{"type": "text", "text": ...}``, and images as `media.any_image.image_of_part` takes them. Texts are made
                `plain`; only image parts are places for images.
            processor_kwargs, kwargs: `padding`, `truncation`, `max_length` and `padding_side`, as in `__call__`.

        Raises:
            UserError: a part or a keyword that is not understood.
        """
        if chat_template not in (None, self.chat_template):
            raise UserError("chat_template: the format is the one that the system was trained with, and no other")
        given = {**(processor_kwargs or {}), **kwargs}
        limits = {key: given.pop(key) for key in ("padding", "truncation", "max_length", "padding_side") if key in given}
        _refuse(given)
        batched = bool(conversation) and isinstance(conversation[0], list | tuple)
        images: list[ImageInput] = []
        written = [self._written(one, images) for one in (conversation if batched else [conversation])]
        if not tokenize:
            texts = [self.chat.render(messages, open_turn=add_generation_prompt) for messages in written]
            return texts if batched else texts[0]
        settings: dict[str, Any] = {"padding": True, "truncation": False, "max_length": None, "padding_side": "left"} | limits
        rows = [self.prompt_ids(messages, open_turn=add_generation_prompt) for messages in written]
        data = self._batch(rows, **settings, return_tensors=return_tensors)
        if images:
            data["pixel_values"] = self.image_processor(images)["pixel_values"]
        batch = BatchFeature(data, tensor_type=return_tensors)
        return batch if return_dict else batch["input_ids"]

    def _written(self, conversation: Sequence[Mapping[str, Any]], images: list[ImageInput]) -> list[Message]:
        """Messages as one text each; their images are added to `images`."""
        messages = []
        for message in conversation:
            content, pieces = message["content"], []
            for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
                kind = part.get("type")
                if kind == "text" and isinstance(part.get("text"), str):
                    pieces.append(self.plain(part["text"]))
                elif kind in ("image", "image_url"):
                    images.append(image_of_part(part))
                    pieces.append(IMAGE)
                else:
                    raise UserError(f"a message's part is a text or an image, not {kind!r} with {', '.join(map(str, part))}")
            messages.append({"role": message["role"], "content": " ".join(pieces)})
        return messages


def _refuse(others: Mapping[str, Any]) -> None:
    """Keywords of `transformers` that ask for nothing are passed over, all others are named."""
    for name, value in others.items():
        if name not in _IDLE or value:
            close = difflib.get_close_matches(name, _KNOWN, 1)
            raise UserError(
                f"unknown keyword {name!r}" + (f"; did you mean {close[0]}?" if close else f"; known: {', '.join(_KNOWN)}")
            )


_KNOWN = ("images", "text", "padding", "truncation", "max_length", "padding_side", "return_tensors", "return_dict")
_IDLE = ("videos", "audio", "add_special_tokens", "continue_final_message", "return_mm_token_type_ids", "tools", "documents")
