"""The pipeline of second-stage data: draw, describe, continue, repair, rules; review and export come after it.

Source: MiniGPT-4 paper, section 3.2: of 5,000 images about 3,500 descriptions were left.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..dialogue.agents import Agent, AgentError, CostCeiling, LocalAgent, Prompt, Reply
from ..dialogue.nouns import nouns
from ..errors import UserError
from ..io.jsonl import Row
from .draw import drawn
from .recipe import AgentOf, Recipe
from .rules import SAYS, flaws_of, near_duplicates, repaired
from .steps import Progress, Step, edited

log = logging.getLogger(__name__)
FILES = {"draw": "1_draw.jsonl", "describe": "2_describe.jsonl", "continue": "3_continue.jsonl"} | {
    "repair": "4_repair.jsonl",
    "rules": "5_rules.jsonl",
}
"""The steps in order, and their files in the recipe's output folder."""

MakeAgent = Callable[[AgentOf], Agent]


@dataclass(frozen=True)
class Curated:
    """What a run came to: the rows after each step, by its name."""

    steps: dict[str, list[Row]]

    @property
    def kept(self) -> list[Row]:
        """Rows that passed every rule."""
        return [row for row in self.steps["rules"] if row.get("keep")]


class Pipeline:
    """A recipe that is run.

    Args:
        make: an agent of what the recipe says of it; called when it is first needed.
        detects: (image, thing) -> whether it is found there, for the rule ``not_found``.
    """

    def __init__(
        self,
        recipe: Recipe,
        make: MakeAgent | None = None,
        detects: Callable[[str, str], bool] | None = None,
        progress: Progress = lambda *_: None,
    ):
        for name in recipe.rules.without:
            if name not in SAYS:
                raise UserError(f"rules.without: no rule {name!r}; there are {', '.join(SAYS)}")
        self.recipe, self.progress = recipe, progress
        self._make, self._detects = make or agent_of(recipe.output / "cache"), detects
        self._agents: dict[str, Agent] = {}

    def run(self) -> Curated:
        """All steps; what is done already is not done again.

        Raises:
            UserError: a recipe that cannot be followed, another run in the same folder, or the cost ceiling is reached.
        """
        folder = self.recipe.output
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / ".lock", timeout=0):
                return self._run()
        except Timeout:
            raise UserError(f"{folder}: another curation runs in this folder; wait for it, or choose another output") from None

    def _run(self) -> Curated:
        recipe, rows, done = self.recipe, self._drawn(), {}
        describe, repair = recipe.describe, recipe.repair
        done["draw"] = rows
        steps = [
            ("describe", describe.model_dump(exclude={"continue_under", "continue_prompt", "batch"}), self._describe),
            ("continue", describe.model_dump(exclude={"batch"}), self._continue),
            ("repair", repair.model_dump(exclude={"batch"}), self._repair),
        ]
        for name, settings, work in steps:
            batch = repair.batch if name == "repair" else describe.batch
            rows = self._step(name, settings, work, batch).run(_good(rows), self.progress)
            done[name] = rows
        done["rules"] = self._ruled(_good(rows))
        return Curated(done)

    def _step(self, name: str, settings: Any, work: Any, batch: int) -> Step:
        return Step(name, self.recipe.output / FILES[name], settings, work, batch)

    def _drawn(self) -> list[Row]:
        """The images. They are drawn once; a file that a person has shortened or lengthened is taken as it is."""
        draw = self.recipe.draw
        settings = draw.model_dump() | {"seed": self.recipe.seed}
        found: list[Row] = drawn(draw, self.recipe.seed, self.recipe.output / "images")
        return self._step("draw", settings, lambda rows: [{} for _ in rows], len(found)).run(found, self.progress)

    # what models do ---------------------------------------------------------------------------------------------------

    def _agent(self, wanted: AgentOf) -> Agent:
        key = wanted.model_dump_json()
        if key not in self._agents:
            self._agents[key] = self._make(wanted)
        return self._agents[key]

    def _describe(self, rows: Sequence[Row]) -> list[Row]:
        describe = self.recipe.describe
        prompts = [
            Prompt(
                messages=[{"role": "user", "content": describe.prompt}],
                images=[row["image"]],
                max_new_tokens=describe.max_new_tokens,
            )
            for row in rows
        ]
        return [
            {"raw": reply.text, "raw_tokens": reply.generated_tokens} if isinstance(reply, Reply) else reply_error(reply)
            for reply in _answers(self._agent(describe.agent), prompts)
        ]

    def _continue(self, rows: Sequence[Row]) -> list[Row]:
        """Short answers are asked to go on; the two are joined."""
        describe = self.recipe.describe
        short = [row for row in rows if int(row.get("raw_tokens", 0)) < describe.continue_under]
        prompts = [
            Prompt(
                messages=[
                    {"role": "user", "content": describe.prompt},
                    {"role": "assistant", "content": row["raw"]},
                    {"role": "user", "content": describe.continue_prompt},
                ],
                images=[row["image"]],
                max_new_tokens=describe.max_new_tokens,
            )
            for row in short
        ]
        more = iter(_answers(self._agent(describe.agent), prompts) if prompts else [])
        added: list[Row] = []
        for row in rows:
            if int(row.get("raw_tokens", 0)) >= describe.continue_under:
                added.append({"continued": row["raw"], "was_short": False})
            elif isinstance(reply := next(more), Reply):
                added.append({"continued": f"{row['raw']} {reply.text}".strip(), "was_short": True})
            else:
                added.append(reply_error(reply))
        return added

    def _repair(self, rows: Sequence[Row]) -> list[Row]:
        repair = self.recipe.repair
        if repair.how == "none":
            return [{"text": row["continued"], "repairs": []} for row in rows]
        if repair.agent is None:
            return [dict(zip(("text", "repairs"), repaired(row["continued"]), strict=True)) for row in rows]
        prompts = [
            Prompt(
                messages=[
                    {"role": "system", "content": repair.prompt},
                    {"role": "user", "content": _to_repair(row, repair.with_caption)},
                ],
                max_new_tokens=repair.max_new_tokens,
                temperature=repair.temperature,
            )
            for row in rows
        ]
        replies = _answers(self._agent(repair.agent), prompts)
        return [
            repaired_by(reply.text, row["continued"]) if isinstance(reply, Reply) else reply_error(reply)
            for row, reply in zip(rows, replies, strict=True)
        ]

    # rules ------------------------------------------------------------------------------------------------------------

    def _ruled(self, rows: list[Row]) -> list[Row]:
        rules = self.recipe.rules
        if "near_duplicate" not in rules.without:
            texts = [(row["id"], row["text"]) for row in rows if not self._flaws(row)]
            twins = near_duplicates(texts, rules.near_duplicate)
            rows = [row | {"twin": twins[row["id"]]} if row["id"] in twins else row for row in rows]
        return self._step("rules", rules.model_dump(), self._rules, 64).run(rows, self.progress)

    def _rules(self, rows: Sequence[Row]) -> list[Row]:
        added: list[Row] = []
        for row in rows:
            found = self._flaws(row)
            if "twin" in row:
                found.append({"rule": "near_duplicate", "evidence": f"as {row['twin']}"})
            if not found and (missing := self._missing(row)):
                found.append({"rule": "not_found", "evidence": ", ".join(missing)})
            added.append({"flaws": found, "keep": not found})
        return added

    def _flaws(self, row: Row) -> list[dict[str, str]]:
        rules = self.recipe.rules
        found = flaws_of(row["text"], rules.min_words, rules.max_words, rules.without)
        return [{"rule": "repair_refused", "evidence": row["refused"]}, *found] if "refused" in row else found

    def _missing(self, row: Row) -> list[str]:
        """Things of a text that the detector finds nowhere, if they are too many."""
        rules = self.recipe.rules
        if rules.detector is None or "not_found" in rules.without:
            return []
        detects = self._detects or detector_of(rules.detector)
        self._detects = detects
        things = nouns(row["text"])
        missing = [thing for thing in things if not detects(row["image"], thing)]
        return missing if len(missing) > rules.not_found * len(things) else []


def repaired_by(text: str, before: str) -> Row:
    """What an agent's reply to the published prompt means; the conventions are those of the authors' own clean-up.

    A reply that the paragraph is correct keeps it, one that calls it incomplete (or is under 50 characters) refuses it.
    """
    said = text.lower()
    if "already correct" in said:
        return (
            {"text": before, "repairs": ["refused"], "refused": text}
            if "repetition" in said
            else {"text": before, "repairs": []}
        )
    if "incomplete" in said or len(text) < 50:
        return {"text": before, "repairs": ["refused"], "refused": text[:200] or "nothing"}
    return {"text": text, "repairs": ["agent"] if text != before else []}


def _to_repair(row: Row, with_caption: bool) -> str:
    caption = row.get("caption") if with_caption else None
    return f"{row['continued']}\n\nWhat a person wrote about the same image: {caption}" if caption else row["continued"]


def _answers(agent: Agent, prompts: Sequence[Prompt]) -> list[Reply | AgentError]:
    """Replies; at the cost ceiling the run ends, and what was done is kept."""
    replies = agent.answer(prompts)
    for reply in replies:
        if isinstance(reply, CostCeiling) and all(isinstance(other, AgentError) for other in replies):
            raise UserError(str(reply))
    return replies


def reply_error(error: AgentError | Reply) -> Row:
    """A row's part for an image that could not be worked on."""
    return {"error": str(error)}


def _good(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if "error" not in row and not row.get("drop")]


def hand_edited(rows: Sequence[Row]) -> int:
    """How many rows people have changed."""
    return sum(map(edited, rows))


def agent_of(cache: Path) -> MakeAgent:
    """Makes the agents of a recipe: systems are loaded, endpoints keep their replies in `cache`."""

    def make(wanted: AgentOf) -> Agent:
        if wanted.model is not None:
            from ..inference.assistant import load

            return LocalAgent(load(wanted.model).engine, wanted.model, **wanted.settings)
        from ..dialogue.endpoint import Endpoint, Limits

        limits = Limits(timeout=wanted.timeout, retries=wanted.retries, concurrency=wanted.concurrency, cost=wanted.max_cost)
        return Endpoint(
            wanted.endpoint or "",
            wanted.name or "",
            images=wanted.images,
            key_env=wanted.key_env,
            prices=wanted.prices,
            limits=limits,
            cache=cache,
            settings=wanted.settings,
        )

    return make


def detector_of(wanted: AgentOf) -> Callable[[str, str], bool]:
    """Whether a system's [detection] finds a thing in an image."""
    if wanted.model is None:
        raise UserError("rules.detector must be a model: endpoints have no [detection]")
    from ..inference.assistant import load

    assistant = load(wanted.model)
    return lambda image, thing: any(boxes for _, boxes in assistant.detect(image, thing).phrases)
