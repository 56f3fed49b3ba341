"""What models do in a curation: describe, go on, repair, check.

It needs a recipe and rows alone, so that it runs in this process or on the workers of a cluster (`jobs.spread`).
"""

from collections.abc import Callable, Sequence
from typing import Any

from ..dialogue.agents import Agent, AgentError, AgentGone, LocalAgent, Prompt, Reply
from ..errors import UserError
from ..io.jsonl import Row
from .check import Check, System, check_of
from .recipe import AgentOf, Recipe
from .rules import repaired

MakeAgent = Callable[[AgentOf], Agent]
Load = Callable[[str], System]
"""A system of ours by its name; asked once for each."""


class Work:
    """The steps that ask models. Each method takes rows, and returns for each row what the step adds to it.

    Args:
        make: an agent of what the recipe says of it; called when it is first needed.
        load: a system of ours, for checks and for agents that are one.
    """

    def __init__(self, recipe: Recipe, make: MakeAgent | None = None, load: Load | None = None):
        self.recipe = recipe
        self._load, self._make = load or _loaded, make or self._agent_of
        self._systems: dict[str, System] = {}
        self._agents: dict[str, Agent] = {}
        self._check: Check | None = None

    def on(self, step: str, rows: Sequence[Row]) -> list[Row]:
        """What a step adds to rows; ``{"error": why}`` for those that could not be worked on.

        Raises:
            UserError: an agent that cannot be had, the cost ceiling, or an endpoint where nobody is.
        """
        works: dict[str, Callable[[Sequence[Row]], list[Row]]] = {
            "describe": self.describe,
            "continue": self.go_on,
            "repair": self.repair,
            "check": self.check,
        }
        return works[step](rows)

    def describe(self, rows: Sequence[Row]) -> list[Row]:
        """Adds ``raw`` and ``raw_tokens``: the answer to the published prompt."""
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
            {"raw": reply.text, "raw_tokens": reply.generated_tokens} if isinstance(reply, Reply) else _error(reply)
            for reply in _answers(self._agent(describe.agent), prompts)
        ]

    def go_on(self, rows: Sequence[Row]) -> list[Row]:
        """Adds ``continued`` and ``was_short``: short answers are asked to go on, and the two are joined."""
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
                added.append(_error(reply))
        return added

    def repair(self, rows: Sequence[Row]) -> list[Row]:
        """Adds ``text``, ``repairs`` and, where the repairer has refused, ``refused``."""
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
            repaired_by(reply.text, row["continued"]) if isinstance(reply, Reply) else _error(reply)
            for row, reply in zip(rows, replies, strict=True)
        ]

    def check(self, rows: Sequence[Row]) -> list[Row]:
        """Adds what models see of a text in its image (`check.Check.of`)."""
        if self._check is None:
            self._check = check_of(self.recipe, self._system)
        return [self._check.of(row) for row in rows]

    # who does it ------------------------------------------------------------------------------------------------------

    def _agent(self, wanted: AgentOf) -> Agent:
        key = wanted.model_dump_json()
        if key not in self._agents:
            self._agents[key] = self._make(wanted)
        return self._agents[key]

    def _system(self, name: str) -> Any:
        if name not in self._systems:
            self._systems[name] = self._load(name)
        return self._systems[name]

    def _agent_of(self, wanted: AgentOf) -> Agent:
        """A system is loaded once for all that it does; an endpoint keeps its replies in the recipe's ``cache/``."""
        if wanted.model is not None:
            return LocalAgent(self._system(wanted.model), wanted.model, **wanted.settings)
        from ..dialogue.endpoint import Endpoint, Limits

        limits = Limits(timeout=wanted.timeout, retries=wanted.retries, concurrency=wanted.concurrency, cost=wanted.max_cost)
        return Endpoint(
            wanted.endpoint or "",
            wanted.name or "",
            images=wanted.images,
            key_env=wanted.key_env,
            prices=wanted.prices,
            limits=limits,
            cache=self.recipe.output / "cache",
            settings=wanted.settings,
        )


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


def _loaded(name: str) -> System:
    from ..inference.assistant import load

    system: Any = load(name)
    return system


def _to_repair(row: Row, with_caption: bool) -> str:
    caption = row.get("caption") if with_caption else None
    return f"{row['continued']}\n\nWhat a person wrote about the same image: {caption}" if caption else row["continued"]


def _answers(agent: Agent, prompts: Sequence[Prompt]) -> list[Reply | AgentError]:
    """Replies; at the cost ceiling, or where nobody is there, the run ends, and what was done is kept."""
    replies = agent.answer(prompts)
    for reply in replies:
        if isinstance(reply, AgentGone) and all(isinstance(other, AgentError) for other in replies):
            raise UserError(str(reply))
    return replies


def _error(error: AgentError | Reply) -> Row:
    return {"error": str(error)}
