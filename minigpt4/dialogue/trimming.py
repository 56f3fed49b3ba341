"""What of an agent's words is the question or the answer, and what they are worth."""

import re

_UNSURE = re.compile(
    r"\b(?:not sure|unsure|(?:do not|don't|dont|cannot|can't) (?:know|tell|say|see)|no idea|not clear|unclear)\b", re.I
)
_NAMED = re.compile(r"frame[_ ]?(\d+)\s*:?", re.I)
_FRAME = re.compile(r"\bframes?\b|\bframe_\d+", re.I)
_OPEN = set("what where who whom whose which why how when describe tell name list explain count".split())
"""Words that begin what cannot be answered with yes or no."""
_CLOSED = set(
    "is are was were am do does did has have had can could will would shall should may might must"
    " isn't aren't wasn't weren't don't doesn't didn't hasn't haven't hadn't can't couldn't won't wouldn't shouldn't".split()
)
_BEFORE = set("please and so in on at of to for from with by about under over near behind beside besides apart also".split())
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
MOST = 2000
"""Characters of a question, an answer or a summary that are kept."""


def question_in(text: str) -> str:
    """The question in what a questioner said: after the last ``Question:``, before an answer that it gave itself."""
    text = text.rpartition("Question:")[2]
    if "Answer:" in text:
        before, _, after = text.partition("Answer:")
        text = before if before.strip() else after.partition("Answer:")[0]
    return _one_line(text)


def answer_in(text: str) -> str:
    """The answer in what an answerer said: before a question that it went on with."""
    text = text.strip().removeprefix("Answer:")
    return _one_line(text.partition("Question:")[0])


def summary_in(text: str) -> str:
    """The summary in what a summariser said: before a question that it went on with."""
    return _one_line(text.rpartition("Summary:")[2].partition("Question:")[0])


def frame_and_question(text: str, frames: int) -> tuple[int, str] | None:
    """The frame that ``Frame_3: What is there?`` names, counted from 1, and the question; None if there is no such frame, or
    nothing is asked."""
    match = _NAMED.search(text)
    if match is None or len(match[1]) > 9 or not 1 <= int(match[1]) <= frames:
        return None
    question = question_in(text[match.end() :])
    question = _NAMED.split(question)[0].strip()  # one at a time
    return (int(match[1]), question) if key(question) else None


def is_question(text: str) -> bool:
    """Whether a text asks something: it has a question mark, or begins as questions and requests do in English. A text with
    other letters than English has is taken for one."""
    first = _first_word(text)
    return "?" in text or first in _OPEN or first in _CLOSED or (bool(key(text)) and not text.isascii())


def evades(question: str, answer: str) -> bool:
    """Whether an answer is a bare yes or no to an open question ("What is there?")."""
    return key(answer) in {"yes", "no"} and _first_word(question) in _OPEN


def unsure(answer: str) -> bool:
    """Whether an answer says that it is none."""
    return bool(_UNSURE.search(answer.replace("\u2019", "'")))


def key(text: str) -> str:
    """A text without case and punctuation: two questions with the same key are the same."""
    return " ".join(re.findall(r"\w+", text.lower()))


def without_frames(text: str) -> str:
    """A summary without the sentences that speak of frames."""
    return " ".join(sentence for sentence in _SENTENCE.split(text) if not _FRAME.search(sentence))


def speaks_of_frames(text: str) -> bool:
    """Whether a summary speaks of frames."""
    return bool(_FRAME.search(text))


def _first_word(text: str) -> str:
    words = re.findall(r"[\w']+", text.lower().replace("\u2019", "'"))
    return next((word for word in words if word not in _BEFORE), "")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MOST]
