"""The pipeline of second-stage data: draw, describe, continue, repair, check, rules; review and export come after it.

Source: MiniGPT-4 paper, section 3.2: of 5,000 images about 3,500 descriptions were left.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..dialogue import nouns as noun_rules
from ..errors import UserError
from ..io.atomic import saying
from ..io.jsonl import Row
from ..io.lock import hold
from ..jobs.made_by import signature
from ..jobs.spread import Cluster
from ..metrics import fluency
from . import check as check_code
from . import rules as rules_code
from .draw import Ids, drawn
from .recipe import AgentOf, Recipe
from .rules import SAYS, flaws_of, near_duplicates, seen_flaws
from .steps import Progress, Step, code_of, edited
from .work import Work

FILES = {
    "draw": "1_draw.jsonl",
    "describe": "2_describe.jsonl",
    "continue": "3_continue.jsonl",
    "repair": "4_repair.jsonl",
    "check": "5_check.jsonl",
    "rules": "6_rules.jsonl",
}
"""The steps in order, and their files in the recipe's output folder."""
IDS = "0_ids.jsonl"
"""The file that keeps which image has which id."""


@dataclass(frozen=True)
class Curated:
    """What a run came to: the rows after each step, by its name; without ``check`` where nobody checks."""

    steps: dict[str, list[Row]]

    @property
    def kept(self) -> list[Row]:
        """Rows that passed every rule."""
        return [row for row in self.steps["rules"] if row.get("keep")]


class Pipeline:
    """A recipe that is run.

    Args:
        work: who does what models do, in place of what the recipe says.
        cluster: where that is done; in this process when not given. A cluster makes its own workers from the recipe.
    """

    def __init__(
        self,
        recipe: Recipe,
        work: Work | None = None,
        progress: Progress = lambda *_: None,
        cluster: Cluster | None = None,
    ):
        for name in recipe.rules.without:
            if name not in SAYS:
                raise UserError(f"rules.without: no rule {name!r}; there are {', '.join(SAYS)}")
        if cluster is not None:
            _check_spread(recipe)
        self.recipe, self.progress, self.cluster = recipe, progress, cluster
        self._work = work or Work(recipe)

    def run(self) -> Curated:
        """All steps; what is done already is not done again.

        Raises:
            UserError: a recipe that cannot be followed, another run in the same folder, the cost ceiling, or an endpoint where
                nobody is.
        """
        held = hold(self.recipe.output, "another curation")
        try:
            with saying(self.recipe.output):
                self.recipe.output.mkdir(parents=True, exist_ok=True)
            return self._run()
        finally:
            held.release()

    def _run(self) -> Curated:
        recipe, rows = self.recipe, self._drawn()
        done, describe = {"draw": rows}, recipe.describe
        own = describe.model_dump(exclude={"batch", "continue_under", "continue_prompt"}) | _weights(describe.agent)
        steps = {
            "describe": (own, describe.batch),
            "continue": (describe.model_dump(exclude={"batch"}) | _weights(describe.agent), describe.batch),
            "repair": (recipe.repair.model_dump(exclude={"batch"}) | self._repairer(), recipe.repair.batch),
        }
        if recipe.check.asked:
            code = code_of(check_code, noun_rules, rules_code)
            steps["check"] = (recipe.check.model_dump() | code | {"prompt": describe.prompt} | self._checkers(), describe.batch)
        for name, (settings, batch) in steps.items():
            rows = self._step(name, settings, batch).run(_good(rows), self.progress)
            done[name] = rows
        done["rules"] = self._ruled(_good(rows))
        return Curated(done)

    def _step(self, name: str, settings: Any, batch: int) -> Step:
        path, work = self.recipe.output / FILES[name], partial(self._work.on, name)
        if self.cluster is None or (name == "repair" and self.recipe.repair.agent is None):
            return Step(name, path, settings, work, batch)
        return Step(name, path, settings, work, batch, partial(_spread, self.recipe, name, batch, self.cluster))

    def _drawn(self) -> list[Row]:
        """The images. They are drawn again where the recipe's draw has changed; a row that a person has edited stays."""
        draw = self.recipe.draw
        settings = draw.model_dump() | {"seed": self.recipe.seed}
        file = self.recipe.output / FILES["draw"]
        ids = Ids(self.recipe.output / IDS, file)
        found: list[Row] = drawn(draw, self.recipe.seed, self.recipe.output / "images", ids)
        ids.save()
        step = Step("draw", file, settings, lambda rows: [{} for _ in rows], len(found))
        return step.run(found, self.progress)

    def _repairer(self) -> dict[str, str]:
        """What the repairs depend on beside the recipe: the code of our rules, or the weights of an agent of ours."""
        repair = self.recipe.repair
        return code_of(rules_code) if repair.how == "rules" else _weights(repair.agent) if repair.agent else {}

    def _checkers(self) -> dict[str, str]:
        named = {"detector": self.recipe.check.detector, "scorer": self.recipe.check.scorer}
        return {f"{who}_by": signature(name, {}) for who, name in named.items() if name is not None}

    # rules ------------------------------------------------------------------------------------------------------------

    def _ruled(self, rows: list[Row]) -> list[Row]:
        wanted = self.recipe.rules
        if "near_duplicate" not in wanted.without:
            texts = [(row["id"], row["text"]) for row in rows if not self._flaws(row)]
            twins = near_duplicates(texts, wanted.near_duplicate)
            rows = [row | {"twin": twins[row["id"]]} if row["id"] in twins else row for row in rows]
        settings = wanted.model_dump() | code_of(rules_code, fluency)
        return Step("rules", self.recipe.output / FILES["rules"], settings, self._judged, 64).run(rows, self.progress)

    def _judged(self, rows: Sequence[Row]) -> list[Row]:
        added: list[Row] = []
        for row in rows:
            found = self._flaws(row)
            if "twin" in row:
                found.append({"rule": "near_duplicate", "evidence": f"as {row['twin']}"})
            added.append({"flaws": found, "keep": not found})
        return added

    def _flaws(self, row: Row) -> list[dict[str, str]]:
        wanted = self.recipe.rules
        found = flaws_of(row["text"], wanted.min_words, wanted.max_words, wanted.without)
        found += seen_flaws(row, wanted.not_found, wanted.no_gain, wanted.least_gain, wanted.without)
        refused = "refused" in row and "repair_refused" not in wanted.without
        return [{"rule": "repair_refused", "evidence": row["refused"]}, *found] if refused else found


def _spread(recipe: Recipe, step: str, batch: int, cluster: Cluster, rows: Sequence[Row]) -> Iterator[dict[str, Row]]:
    """A step by the workers of a cluster. They need not be in this folder, so images are named in full."""
    named = [row | {"image": os.path.abspath(row["image"])} for row in rows]
    absolute = recipe.model_copy(update={"output": Path(os.path.abspath(recipe.output))})
    return cluster.spread(partial(_worker, absolute.model_dump_json(), step), named, batch)


def _worker(recipe: str, step: str) -> Callable[[Sequence[Row]], list[Row]]:
    """What a worker does with rows."""
    return partial(Work(Recipe.model_validate_json(recipe)).on, step)


def _check_spread(recipe: Recipe) -> None:
    for place, agent in (("describe.agent", recipe.describe.agent), ("repair.agent", recipe.repair.agent)):
        if agent is not None and agent.max_cost is not None:
            raise UserError(f"{place}.max_cost: workers of a cluster cannot keep a ceiling together; leave it or --ray out")


def _weights(agent: AgentOf) -> dict[str, str]:
    """What an agent of ours answers with, so that a system that has learnt more is asked anew."""
    return {} if agent.model is None else {"by": signature(agent.model, {})}


def _good(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if "error" not in row and not row.get("drop")]


def hand_edited(rows: Sequence[Row]) -> int:
    """How many rows people have changed."""
    return sum(map(edited, rows))
