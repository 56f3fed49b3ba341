"""A curation recipe: one YAML file that says where images come from, who describes them, and what is kept."""

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import UserError

DESCRIBE = "Describe this image in detail. Give as many details as possible. Say everything you see."
CONTINUE = "Continue"
REPAIR = (
    "Fix the error in the given paragraph. Remove any repeating sentences, meaningless characters, not English sentences, and "
    "so on. Remove unnecessary repetition. Rewrite any incomplete sentences. Return directly the results without explanation. "
    "Return directly the input paragraph if it is already correct without explanation."
)
"""The three prompts of the MiniGPT-4 paper, sections 3.2 and appendix, word for word."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AgentOf(_Section):
    """Who answers: a system of ours (`model`), or a model behind an OpenAI-compatible endpoint (`endpoint` and `name`)."""

    model: str | None = None
    endpoint: str | None = None
    name: str | None = None
    images: bool = True
    key_env: str = "OPENAI_API_KEY"
    prices: tuple[float, float] = (0.0, 0.0)
    max_cost: float | None = Field(None, ge=0)
    timeout: float = Field(60, gt=0)
    retries: int = Field(4, ge=0)
    concurrency: int = Field(4, ge=1)
    settings: dict[str, Any] = {}
    """Decoding: names of `transformers` for a system, of the API for an endpoint."""

    @model_validator(mode="after")
    def _one_of_both(self) -> "AgentOf":
        if (self.model is None) == (self.endpoint is None):
            raise ValueError("an agent is a model or an endpoint: name one of them")
        if self.endpoint is not None and self.name is None:
            raise ValueError("an endpoint needs the name of its model")
        return self


class Draw(_Section):
    """Which images: `count` of them at random, from a folder or from a dataset (its format and options as in training)."""

    folder: Path | None = None
    dataset: dict[str, Any] | None = None
    count: int | None = Field(None, ge=1)
    """All of them when not given."""

    @model_validator(mode="after")
    def _one_of_both(self) -> "Draw":
        if (self.folder is None) == (self.dataset is None):
            raise ValueError("images come from a folder or a dataset: name one of them")
        if self.dataset is not None and "format" not in self.dataset:
            raise ValueError("a dataset needs its format")
        return self


class Describe(_Section):
    """The first-stage system describes each image; answers under `continue_under` tokens are asked to go on, and joined."""

    agent: AgentOf = AgentOf(model="pocket")
    prompt: str = DESCRIBE
    max_new_tokens: int | None = Field(None, ge=1)
    continue_under: int = Field(80, ge=0)
    continue_prompt: str = CONTINUE
    batch: int = Field(16, ge=1)


class Repair(_Section):
    """Who cleans the text: nobody, rules alone, or an agent."""

    how: Literal["none", "rules", "agent"] = "rules"
    agent: AgentOf | None = None
    prompt: str = REPAIR
    max_new_tokens: int = Field(200, ge=1)
    temperature: float | None = Field(None, ge=0)
    with_caption: bool = False
    """Whether the agent is given the source's caption too, where there is one."""
    batch: int = Field(16, ge=1)

    @model_validator(mode="after")
    def _agent_where_needed(self) -> "Repair":
        if (self.how == "agent") != (self.agent is not None):
            raise ValueError("an agent goes with how: agent, and how: agent needs one")
        return self


class CheckOf(_Section):
    """Which systems of ours look whether a text is about its image; nobody does when none is named."""

    detector: str | None = None
    """Is asked with [detection] for each thing that a text names (rule ``not_found``)."""
    scorer: str | None = None
    """Says how likely each sentence is with the image and without it (rule ``no_gain``)."""

    @property
    def asked(self) -> bool:
        """Whether there is anything to check."""
        return self.detector is not None or self.scorer is not None


class RulesOf(_Section):
    """What a text must not have; see `rules.RULES` for the names."""

    without: list[str] = []
    min_words: int = Field(20, ge=1)
    max_words: int = Field(300, ge=1)
    near_duplicate: float = Field(0.8, gt=0, le=1)
    """Share of runs of three words that two texts may have in common."""
    not_found: float = Field(0.5, gt=0, le=1)
    """Share of a text's things from which on it is rejected, if they are not found."""
    no_gain: float = Field(0.5, gt=0, le=1)
    """Share of a text's sentences from which on it is rejected, if the image does not make them likelier."""
    least_gain: float = 0.0
    """What a sentence must gain by the image, in nats a token."""


class Export(_Section):
    """What is written at the end."""

    unreviewed: Literal["keep", "drop"] = "keep"
    """What becomes of texts that pass the rules and that nobody has reviewed."""


class Recipe(_Section):
    """The whole of it. Paths in a file are relative to where the command runs, as in training recipes."""

    output: Path
    seed: int = 0
    draw: Draw
    describe: Describe = Describe()
    repair: Repair = Repair()
    check: CheckOf = CheckOf()
    rules: RulesOf = RulesOf()
    export: Export = Export()


def load_recipe(path: str | Path, changes: list[str] | None = None) -> Recipe:
    """Read a recipe; `changes` are ``key.key=value`` with values in YAML.

    Raises:
        UserError: it cannot be read, or says something that does not exist or does not go together.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8 text'})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping with output and draw")
    for change in changes or ():
        keys, equals, value = change.partition("=")
        if not equals:
            raise UserError(f"--set {change}: expected KEY=VALUE")
        at = data
        *parents, last = keys.split(".")
        for parent in parents:
            at = at.setdefault(parent, {})
            if not isinstance(at, dict):
                raise UserError(f"--set {change}: {parent} is no section")
        at[last] = yaml.safe_load(value)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(first["loc"][-1]), _keys(first["loc"][:-1]), 1)
            message = "no such key" + (f" (did you mean {near[0]}?)" if near else "")
        raise UserError(f"{path}: {where}: {message}" if where else f"{path}: {message}") from None


def _keys(place: tuple[Any, ...]) -> list[str]:
    """The keys of the section at a place."""
    section: Any = Recipe
    for name in place:
        section = section.model_fields[name].annotation
        section = next((kind for kind in getattr(section, "__args__", ()) if hasattr(kind, "model_fields")), section)
    return list(section.model_fields)
