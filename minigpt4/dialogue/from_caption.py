"""How much of a dialogue its caption carries: its questions, put to somebody who has the caption alone.

Source: captions have been judged by the questions that can be answered from them (VDCscore, arXiv 2410.03051); here the
questions are those of the dialogue, and its answers are what the caption should let one say.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from .agents import Agent, AgentError, AgentGone, Prompt, Reply
from .nouns import nouns
from .prompts import Wording
from .trimming import answer_in, key, unsure

_TOKENS = 40


def answered_from_captions(transcripts: Sequence[Mapping[str, Any]], agent: Agent, wording: Wording) -> dict[str, float]:
    """The share of questions that are answered from the ``plain`` caption alone, and from the ``enriched`` one; ``questions``
    is how many there were. Questions whose own answer was of no use, and the first one, are not asked.

    Raises:
        AgentError: a question could not be put.
    """
    asked = [
        (one, round)
        for one in transcripts
        for round in one["rounds"][1:]
        if not {"empty", "unsure", "repeated"} & set(round["flaws"])
    ]
    found = {"questions": float(len(asked))}
    for name, caption in (("plain", "plain"), ("enriched", "caption")):
        prompts = [_prompt(wording, one[caption], round["question"]) for one, round in asked]
        replies = agent.answer(prompts) if prompts else []
        told = [_text(reply) for reply in replies]
        right = [agrees(text, round["answer"]) for text, (_, round) in zip(told, asked, strict=True)]
        found[name] = sum(right) / len(right) if right else 0.0
    return found


def agrees(said: str, answer: str) -> bool:
    """Whether what was said from a caption is the answer of who saw the image: it names a thing that the answer names; if the
    answer names none, both begin with the same word (yes, no, a number)."""
    if unsure(said) or not key(said):
        return False
    wanted = set(nouns(answer))
    return bool(wanted & set(nouns(said))) if wanted else key(said).split()[:1] == key(answer).split()[:1]


def _prompt(wording: Wording, caption: str, question: str) -> Prompt:
    text = wording.fill("from_caption", caption=caption, question=question)
    return Prompt(messages=[{"role": "user", "content": text}], max_new_tokens=_TOKENS)


def _text(reply: Reply | AgentError) -> str:
    if isinstance(reply, AgentGone):
        raise reply
    return "" if isinstance(reply, AgentError) else answer_in(reply.text)
