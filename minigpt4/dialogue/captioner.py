"""ChatCaptioner: one model asks, one that sees the image answers, until nothing new comes; then it is summed up.

Source: ChatCaptioner (arXiv 2303.06594). Different here: no loop is without a bound, an empty answer is asked for again and
never put into the history, a repeated question or an unsure answer turns the questioner elsewhere, and the dialogue ends when
rounds bring no new noun (IdealGPT, arXiv 2305.14985).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from ..media.images import ImageInput, open_image, part_of_image
from ..prompt.boxes import Box
from ..prompt.templates import Message
from .agents import Agent, AgentError, AgentGone, CostCeiling, Prompt, ask
from .nouns import nouns
from .prompts import Wording
from .trimming import answer_in, evades, is_question, key, question_in, summary_in, unsure


class Detects(Protocol):
    """A third partner: says where things are (`Assistant` is one)."""

    def detect(self, image: ImageInput, phrase: str) -> Any:
        """An answer with ``phrases``: (phrase, boxes) pairs."""
        ...


@dataclass(frozen=True, kw_only=True)
class Partners:
    """Who takes part. The questioner sums up when there is no summariser."""

    questioner: Agent
    answerer: Agent
    summariser: Agent | None = None
    detector: Detects | None = None

    @property
    def agents(self) -> list[Agent]:
        """All of them, each once."""
        every = [self.questioner, self.answerer, self.summariser or self.questioner]
        return list({id(agent): agent for agent in every}.values())


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How a dialogue goes.

    Args:
        rounds: the most questions, the first one included.
        context: earlier rounds that the answerer is told: 1 as published, -1 for all.
        patience: ends after so many rounds without a new noun; 0 never ends early.
        retries: attempts at a question, an answer or a summary after the first one.
        crops: the most parts of an image that the detector's boxes are cut out for.
    """

    rounds: int = 10
    context: int = 1
    patience: int = 2
    retries: int = 2
    crops: int = 3
    question_tokens: int = 30
    answer_tokens: int = 100
    summary_tokens: int = 100
    temperature: float | None = None
    """Of questioner and summariser; as each is set up when not given."""


@dataclass
class Round:
    """A question and its answer.

    Args:
        by: ``fixed``, ``questioner``, ``spare`` (the questioner said nothing of use) or ``detector``.
        flaws: of ``empty``, ``unsure``, ``repeated``.
        frame: of a video, counted from 1.
    """

    question: str
    answer: str
    by: str = "questioner"
    flaws: list[str] = field(default_factory=list)
    new_nouns: list[str] = field(default_factory=list)
    frame: int | None = None
    time: float | None = None

    @property
    def useful(self) -> bool:
        """Whether it says something that a summary may use."""
        return not {"empty", "unsure"} & set(self.flaws)


@dataclass
class Transcript:
    """A dialogue and what came of it.

    Args:
        plain: the first answer, to compare with.
        stopped: ``rounds``, ``nothing new``, ``no question``, ``cost ceiling``.
        joined: the caption is made of the answers, because no summary came.
        unfound: nouns that the detector found nowhere.
        problems: what agents failed to do, a line each.
    """

    image: str
    rounds: list[Round] = field(default_factory=list)
    caption: str = ""
    plain: str = ""
    stopped: str = "rounds"
    joined: bool = False
    unfound: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    segments: list[dict[str, Any]] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


Listener = Callable[[str, str], object]
"""Told ``question``, ``answer``, ``caption`` or ``problem``, and the text."""


class Dialogue:
    """One dialogue in progress: what questions and answers of images and of video share."""

    def __init__(self, partners: Partners, wording: Wording, rules: Rules, listener: Listener | None, image: str):
        self.partners, self.wording, self.rules = partners, wording, rules
        self._told = listener or (lambda kind, text: None)
        self.transcript = Transcript(image)
        self._nouns: set[str] = set()
        self._spare = iter(wording.spare_questions)
        self._counted = [0.0] * 3

    # asking ----------------------------------------------------------------------------------------------------------

    def say(self, agent: Agent, prompt: Prompt, attempt: int) -> str | None:
        """What an agent says; None if it fails, which is noted.

        Raises:
            AgentGone: nothing more can be asked.
        """
        try:
            reply = ask(agent, Prompt(**{**vars(prompt), "attempt": attempt}))
        except AgentGone:
            raise
        except AgentError as error:
            self.transcript.problems.append(str(error))
            self._told("problem", str(error))
            return None
        for i, amount in enumerate((reply.prompt_tokens, reply.generated_tokens, reply.cost)):
            self._counted[i] += amount
        return reply.text

    def asked_before(self, question: str, frame: int | None = None) -> bool:
        """Whether a question was put already."""
        return any((round.frame, key(round.question)) == (frame, key(question)) for round in self.transcript.rounds)

    def of_use(self, question: str, frame: int | None = None) -> bool:
        """Whether what the questioner said is a question, and a new one."""
        return is_question(question) and not self.asked_before(question, frame)

    def spare_question(self, frame: int | None = None) -> str | None:
        """A fixed question that was not put yet, if there is one left."""
        questions = self._spare if frame is None else iter(self.wording.spare_questions)
        return next((question for question in questions if not self.asked_before(question, frame)), None)

    def answered(self, question: str, images: Sequence[ImageInput], context: str = "") -> tuple[str, list[str]]:
        """The answerer's answer and its flaws. An empty one, or yes to an open question, is asked for again more plainly."""
        texts = [self.wording.fill("answer", context=context, question=question), question]
        answer = ""
        for attempt in range(self.rules.retries + 1):
            text = texts[min(attempt, 1)]
            prompt = Prompt(
                messages=[{"role": "user", "content": text}], images=images, max_new_tokens=self.rules.answer_tokens
            )
            answer = answer_in(self.say(self.partners.answerer, prompt, attempt) or "")
            if key(answer) and not evades(question, answer):
                break
        if not key(answer):
            return "", ["empty"]
        earlier = {key(round.answer) for round in self.transcript.rounds}
        return answer, [
            *(["unsure"] if unsure(answer) or evades(question, answer) else []),
            *(["repeated"] if key(answer) in earlier else []),
        ]

    def add(self, round: Round) -> None:
        """Note a round, and what nouns it brings."""
        if round.useful:
            round.new_nouns = [noun for noun in nouns(round.answer) if noun not in self._nouns]
            self._nouns.update(round.new_nouns)
        self.transcript.rounds.append(round)
        self._told("question", round.question if round.frame is None else f"[{round.time:.1f} s] {round.question}")
        self._told("answer", round.answer or "(nothing)")

    def history(self) -> list[Message]:
        """The dialogue as the questioner has it. Answers that are none are left out with their questions."""
        told: list[Message] = []
        for round in self.transcript.rounds:
            if "empty" not in round.flaws:
                frame = "" if round.frame is None else f"Frame_{round.frame}: "
                told.append({"role": "assistant", "content": f"Question: {frame}{round.question}"})
                told.append({"role": "user", "content": f"Answer: {round.answer}"})
        return told

    def bored(self) -> bool:
        """Whether the last questions brought nothing new; what a detector's boxes show is not counted."""
        asked = [round for round in self.transcript.rounds if round.by != "detector"]
        last = asked[-self.rules.patience :] if self.rules.patience else []
        return bool(last) and len(last) == self.rules.patience and not any(round.new_nouns for round in last)

    def redirected(self) -> bool:
        """Whether the questioner is to be turned elsewhere."""
        return bool(self.transcript.rounds and self.transcript.rounds[-1].flaws)

    def closed(self, caption: str) -> Transcript:
        """The transcript with its caption; without one, the useful answers stand in for it."""
        if not key(caption):
            useful = dict.fromkeys(round.answer for round in self.transcript.rounds if round.useful)
            caption = " ".join(text if text[-1] in ".!?" else f"{text}." for text in useful)
            self.transcript.joined = True
        self.transcript.caption = caption
        names = ("prompt_tokens", "generated_tokens", "cost")
        self.transcript.spent = dict(zip(names, (int(self._counted[0]), int(self._counted[1]), self._counted[2]), strict=True))
        self._told("caption", caption)
        return self.transcript

    def summary(self, messages: Sequence[Message], accept: Callable[[str], bool] = lambda text: True) -> str:
        """A summary by the summariser; empty if none comes that is accepted (then the last one that did come)."""
        agent, found = self.partners.summariser or self.partners.questioner, ""
        for attempt in range(self.rules.retries + 1):
            prompt = Prompt(messages=messages, max_new_tokens=self.rules.summary_tokens, temperature=self.rules.temperature)
            text = summary_in(self.say(agent, prompt, attempt) or "")
            if key(text):
                found = text
                if accept(text):
                    break
        return found


class ImageDialogue(Dialogue):
    """The dialogue about one image."""

    def __init__(self, partners: Partners, wording: Wording, rules: Rules, listener: Listener | None, image: ImageInput):
        super().__init__(partners, wording, rules, listener, str(image))
        self.image = open_image(image)  # once, and what is wrong with it is said at once
        self._crops = 0

    def run(self) -> Transcript:
        """The whole of it.

        Raises:
            AgentError: not even the first question was answered, or nobody is there any more.
        """
        done = self.transcript
        try:
            self._round(self.wording.fill("first_question"), "fixed")
            if "empty" in done.rounds[0].flaws and done.problems:
                raise AgentError(done.problems[-1])
            while len(done.rounds) < self.rules.rounds:
                if self.bored():
                    done.stopped = "nothing new"
                    break
                question, by = self._question()
                if question is None:
                    done.stopped = "no question"
                    break
                self._round(question, by)
            caption = self._summary()
        except CostCeiling as error:
            if not done.rounds:
                raise
            done.stopped, caption = "cost ceiling", ""
            done.problems.append(str(error))
        return self.closed(caption)

    def _round(self, question: str, by: str) -> None:
        answer, flaws = self.answered(question, [self.image], self._context())
        self.add(round := Round(question, answer, by, flaws))
        if len(self.transcript.rounds) == 1:
            self.transcript.plain = answer
        if self.partners.detector is not None and round.useful:
            self._look_closer(round)

    def _look_closer(self, round: Round) -> None:
        """Have the nouns of an answer found in the image, and the first new ones described from up close."""
        assert self.partners.detector is not None
        for noun in round.new_nouns:
            boxes = [box for _, some in self.partners.detector.detect(self.image, noun).phrases for box in some if box.area]
            if not boxes:
                self.transcript.unfound.append(noun)
            elif self._crops < self.rules.crops and len(self.transcript.rounds) < self.rules.rounds:
                self._crops += 1
                question = self.wording.fill("crop", noun=noun)
                answer, flaws = self.answered(question, [part_of_image(self.image, _around(boxes[0]))])
                self.add(Round(question, answer, "detector", flaws))

    def _context(self) -> str:
        useful = [round for round in self.transcript.rounds if "empty" not in round.flaws]
        last = useful if self.rules.context < 0 else useful[len(useful) - self.rules.context :] if self.rules.context else []
        return "".join(f"Question: {round.question}\nAnswer: {round.answer}\n" for round in last)

    def _question(self) -> tuple[str | None, str]:
        redirect = self.redirected()
        for attempt in range(self.rules.retries + 1):
            asked = " ".join(round.question for round in self.transcript.rounds)
            cue = self.wording.fill("redirect", asked=asked) if redirect or attempt else self.wording.fill("next")
            messages: list[Message] = [
                {"role": "system", "content": self.wording.fill("task")},
                *self.history(),
                {"role": "system", "content": cue},
            ]
            prompt = Prompt(messages=messages, max_new_tokens=self.rules.question_tokens, temperature=self.rules.temperature)
            question = question_in(self.say(self.partners.questioner, prompt, attempt) or "")
            if self.of_use(question):
                return question, "questioner"
        return self.spare_question(), "spare"

    def _summary(self) -> str:
        unfound = ""
        if self.transcript.unfound:
            unfound = self.wording.fill("unfound", nouns=", ".join(self.transcript.unfound)) + " "
        return self.summary(
            [
                {"role": "system", "content": self.wording.fill("task")},
                *self.history(),
                {"role": "system", "content": self.wording.fill("summary", unfound=unfound)},
            ]
        )


def converse(
    image: ImageInput, partners: Partners, wording: Wording, rules: Rules = Rules(), listener: Listener | None = None
) -> Transcript:
    """A dialogue about an image.

    Raises:
        UserError: an image that cannot be opened.
        AgentError: nothing was answered at all.
    """
    return ImageDialogue(partners, wording, rules, listener, image).run()


def _around(box: Box, margin: float = 0.1) -> tuple[float, float, float, float]:
    """A box with something of what surrounds it."""
    x1, y1, x2, y2 = box
    wide, high = (x2 - x1) * margin, (y2 - y1) * margin
    x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in (x1 - wide, y1 - high, x2 + wide, y2 + high))
    return x1, y1, x2, y2
