"""What the language model is told: how a conversation is written down for each language model.

A conversation is a list of messages ``{"role": "user" | "assistant", "content": text}``; pictures are `PLACEHOLDER`s inside
a user's text, wrapped as `image_tag`. Sources: MiniGPT-4 paper section 3.2, MiniGPT-v2 paper section 2.2, and the prompts
that the published weights were trained with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError

PLACEHOLDER = "<ImageHere>"
IMAGE = f"<Img>{PLACEHOLDER}</Img>"

Message = dict[str, str]

CAPTION = "[caption] Briefly describe this image."
"""What a system that knows tasks is asked for a caption: the first of the published wordings, and the pocket model's own."""


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """A chat format: ``system + sep``, then ``user + text + sep`` and ``assistant + text + end + gap`` in turn."""

    name: str
    system: str = ""
    """Said before the first message; empty for none."""
    user: str
    """Opens a user's message."""
    assistant: str
    """Opens an assistant's message; a prompt ends with it."""
    sep: str
    """Closes the system sentence and every user's message."""
    end: str
    """Closes an assistant's message; in training it is part of what is learnt."""
    gap: str = ""
    """Stands between an assistant's message and the next one; not learnt."""
    stop: tuple[str, ...] = ()
    """Texts at which an answer ends, beside the language model's own end-of-sequence token."""
    add_bos: bool = False
    """Whether a prompt begins with the tokenizer's beginning-of-sequence token."""
    training: str | None = None
    """How a question is written in training where that differs; ``{}`` is the question."""
    training_later: str | None = None
    """The same for a question that follows an answer."""
    caption: str = CAPTION
    """What a system of this format is asked for a caption."""

    def render(self, messages: Sequence[Message], open_turn: bool = True, official: bool = False) -> str:
        """The conversation as one text; with `open_turn`, it ends where the assistant is to speak.

        With `official`, an answer of the past is closed as the published chat closes it: by `sep`, which is nothing for
        Llama-2 and v2 although both were trained with `end` there, and an empty one not at all.
        """
        return "".join(self.parts(messages, open_turn, official))

    def parts(self, messages: Sequence[Message], open_turn: bool = True, official: bool = False) -> list[str]:
        """The conversation in the pieces that training tokenises by themselves: questions, and answers with their end."""
        parts = [self.system + self.sep if self.system else ""]
        for message in messages:
            if not isinstance(message, Mapping) or not isinstance(content := message.get("content"), str):
                raise UserError(f'a message is {{"role": "user" or "assistant", "content": text}}, not {message!r:.80}')
            if message.get("role") == "user":
                parts[-1] += self.user + content + self.sep
            elif message.get("role") == "assistant":
                parts[-1] += self.assistant
                closed = content + self.sep if content else ""
                parts += [closed, ""] if official else [content + self.end, self.gap]
            else:
                raise UserError(f"unknown role {message.get('role')!r}: a message is from 'user' or 'assistant'")
        if open_turn:
            parts[-1] += self.assistant
        return parts

    def training_prompt(self, question: str, first: bool = True) -> str:
        """A question as training writes it, up to where its answer begins."""
        if self.training is not None:
            training = self.training if first else self.training_later or self.training
            return training.replace("{}", question)
        opening = self.system + self.sep if self.system and first else ""
        return opening + self.user + question + self.sep + self.assistant


class TokenizerTemplate:
    """The chat template that comes with a tokenizer, in the same form, for language models that have no published pairing."""

    name = "tokenizer"
    stop: tuple[str, ...] = ()
    gap = ""
    add_bos = False  # a tokenizer's template writes its own
    caption = CAPTION

    def __init__(self, tokenizer: Any):
        if not getattr(tokenizer, "chat_template", None):
            raise UserError("this language model's tokenizer has no chat template; name one of " + ", ".join(TEMPLATES))
        self._tokenizer = tokenizer
        asked = [{"role": "user", "content": "?"}]
        answered = [*asked, {"role": "assistant", "content": "!"}]
        before, after = self.render(asked), self.render(answered, open_turn=False)
        if not after.startswith(before + "!"):
            raise UserError("this tokenizer's chat template rewrites earlier turns; name another template")
        self.end = after[len(before) + 1 :]

    def render(self, messages: Sequence[Message], open_turn: bool = True) -> str:
        return self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=open_turn)

    @property
    def jinja(self) -> str:
        """The template as the tokenizer has it."""
        return self._tokenizer.get_chat_template()

    def training_prompt(self, question: str, first: bool = True) -> str:
        whole = self.render([{"role": "user", "content": question}])
        if first:
            return whole
        # A later turn is what the template adds to a conversation that is under way.
        past = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
        return self.render([*past, {"role": "user", "content": question}])[len(self.render(past, open_turn=False)) :]


_GIVE_IMAGE = (
    "Give the following image: <Img>ImageContent</Img>. "
    "You will be able to see the image once I provide it to you. Please answer my questions."
)

TEMPLATES = {
    "vicuna-v0": ChatTemplate(
        name="vicuna-v0",
        system=_GIVE_IMAGE,
        user="Human: ",
        assistant="Assistant: ",
        sep="###",
        end="###",
        stop=("###",),
        add_bos=True,
        training="###Human: {} ###Assistant: ",
        training_later="Human: {} ###Assistant: ",  # the answer before it has closed with the marks
        caption="Describe this image in detail.",
    ),
    "llama-2": ChatTemplate(
        name="llama-2",
        system=_GIVE_IMAGE,
        user="<s>[INST] ",
        assistant=" [/INST] ",
        sep="",
        end="</s>",
        add_bos=True,
        training="[INST] {} [/INST] ",
        training_later="<s>[INST] {} [/INST] ",
        caption="Describe this image in detail.",
    ),
    "minigpt-v2": ChatTemplate(
        name="minigpt-v2",
        user="<s>[INST] ",
        assistant=" [/INST]",
        sep="",
        end="</s>",
        add_bos=True,
        training="[INST] {} [/INST]",
        training_later="<s>[INST] {} [/INST]",
        caption=CAPTION,
    ),
    "chatml": ChatTemplate(
        name="chatml",
        user="<|im_start|>user\n",
        assistant="<|im_start|>assistant\n",
        sep="<|im_end|>\n",
        end="<|im_end|>",
        gap="\n",
    ),
}


def get_template(name: str, tokenizer: Any = None) -> ChatTemplate | TokenizerTemplate:
    """The named template; ``"tokenizer"`` is the one that `tokenizer` brings along."""
    if name == "tokenizer":
        return TokenizerTemplate(tokenizer)
    if name not in TEMPLATES:
        raise UserError(f"unknown chat template {name!r}; known: {', '.join(TEMPLATES)}, tokenizer")
    return TEMPLATES[name]


def with_images(question: str, images: int) -> str:
    """A question with its pictures before it, as the systems were trained.

    Args:
        question: plain text (`MiniGPT4Processor.plain`): only what stands before it is a place for a picture.
    """
    return " ".join([IMAGE] * images + [question])
