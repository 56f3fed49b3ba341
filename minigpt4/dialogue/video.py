"""ChatCaptioner for video: the questioner chooses frames, an answerer sees one at a time; segments are told, then merged.

Source: Video ChatCaptioner (arXiv 2304.04227). Different here: a question that names no valid frame is asked for again so
often and no more, the questioner knows the time of each frame, and the summary is made of segments.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..media.video import Frame
from ..prompt.templates import Message
from .agents import AgentError, CostCeiling, Prompt
from .captioner import Dialogue, Listener, Partners, Round, Rules, Transcript
from .prompts import Wording
from .trimming import frame_and_question, speaks_of_frames, without_frames

ROUNDS = 30
"""Questions about a video, as published."""


class VideoDialogue(Dialogue):
    """The dialogue about the frames of a video.

    Args:
        segments: parts that are summed up by themselves before they are merged; 1 for none.
    """

    def __init__(
        self,
        partners: Partners,
        wording: Wording,
        rules: Rules,
        listener: Listener | None,
        frames: Sequence[Frame],
        name: str,
        segments: int = 4,
    ):
        if not frames:
            raise UserError(f"{name}: a dialogue about a video needs at least one frame")
        super().__init__(partners, wording, rules, listener, name)
        self.frames, self.parts = frames, max(1, min(segments, len(frames)))
        times = ", ".join(f"{i} at {frame.time:.1f} s" for i, frame in enumerate(frames, 1))
        self._task = wording.fill("task", frames=len(frames), times=times)

    def run(self) -> Transcript:
        """The whole of it.

        Raises:
            AgentError: not even the first question was answered, or nobody is there any more.
        """
        done = self.transcript
        try:
            self._round(1, self.wording.fill("first_question"), "fixed")
            if "empty" in done.rounds[0].flaws and done.problems:
                raise AgentError(done.problems[-1])
            done.plain = done.rounds[0].answer
            while len(done.rounds) < self.rules.rounds:
                unseen = len(self.frames) - len({round.frame for round in done.rounds})
                if self.bored() and not unseen:
                    done.stopped = "nothing new"
                    break
                asked = self._question()
                if asked is None:
                    done.stopped = "no question"
                    break
                self._round(*asked)
            caption = self._merged()
        except CostCeiling as error:
            if not done.rounds:
                raise
            done.stopped, caption = "cost ceiling", ""
            done.problems.append(str(error))
        return self.closed(caption)

    def _round(self, number: int, question: str, by: str) -> None:
        frame = self.frames[number - 1]
        answer, flaws = self.answered(question, [frame.image])
        self.add(Round(question, answer, by, flaws, frame=number, time=round(frame.time, 3)))

    def _next_frame(self) -> int:
        """Where to look when the questioner does not say: the first frame not asked about, else the one after the last."""
        seen = {round.frame for round in self.transcript.rounds}
        unseen = next((number for number in range(1, len(self.frames) + 1) if number not in seen), None)
        return unseen or (self.transcript.rounds[-1].frame or 0) % len(self.frames) + 1

    def _question(self) -> tuple[int, str, str] | None:
        number, turn = self._next_frame(), self.redirected() or self.bored()
        for attempt in range(self.rules.retries + 1):
            cue = self.wording.fill("redirect", frame=number) if turn or attempt else self.wording.fill("next")
            messages: list[Message] = [
                {"role": "system", "content": self._task},
                *self.history(),
                {"role": "system", "content": cue},
            ]
            prompt = Prompt(messages=messages, max_new_tokens=self.rules.question_tokens, temperature=self.rules.temperature)
            found = frame_and_question(self.say(self.partners.questioner, prompt, attempt) or "", len(self.frames))
            if found is not None and self.of_use(found[1], found[0]):
                return *found, "questioner"
        for place in range(len(self.frames)):
            frame = (number - 1 + place) % len(self.frames) + 1
            if (question := self.spare_question(frame)) is not None:
                return frame, question, "spare"
        return None

    # summing up ------------------------------------------------------------------------------------------------------

    def _merged(self) -> str:
        told: list[dict[str, Any]] = []
        for part in range(self.parts):
            first, last = (place * len(self.frames) // self.parts for place in (part, part + 1))
            about = [r for r in self.transcript.rounds if r.useful and r.frame is not None and first < r.frame <= last]
            if not about:
                continue
            start, end = self.frames[first].time, self.frames[last - 1].time
            facts = "\n".join(f"{r.time:.1f} s: {r.question} {r.answer}" for r in sorted(about, key=lambda r: r.frame or 0))
            text = self._clean_summary(self.wording.fill("segment", start=f"{start:.1f}", end=f"{end:.1f}", facts=facts))
            if not text:
                text = " ".join(dict.fromkeys(r.answer for r in about))
            told.append({"start": round(start, 3), "end": round(end, 3), "text": text})
        self.transcript.segments = told
        if len(told) == 1:
            return without_frames(told[0]["text"])
        lines = "\n".join(f"{part['start']:.1f} s to {part['end']:.1f} s: {part['text']}" for part in told)
        return self._clean_summary(self.wording.fill("summary", segments=lines)) if told else ""

    def _clean_summary(self, text: str) -> str:
        """A summary that does not speak of frames: asked for again, and at last without those sentences."""
        return without_frames(self.summary([{"role": "user", "content": text}], lambda said: not speaks_of_frames(said)))

    def closed(self, caption: str) -> Transcript:
        """The transcript; a caption that is made of answers does not speak of frames either."""
        if not caption:
            caption = without_frames(" ".join(dict.fromkeys(r.answer for r in self.transcript.rounds if r.useful)))
            self.transcript.joined = True
        return super().closed(caption)


def converse_video(
    frames: Sequence[Frame],
    name: str | Path,
    partners: Partners,
    wording: Wording,
    rules: Rules = Rules(rounds=ROUNDS),
    listener: Listener | None = None,
    segments: int = 4,
) -> Transcript:
    """A dialogue about a video.

    Raises:
        AgentError: nothing was answered at all.
    """
    return VideoDialogue(partners, wording, rules, listener, frames, str(name), segments).run()
