"""A pipeline: data scripts, training stages and means of weights, one after the other, by one command.

A pipeline is a YAML file (`minigpt4 train pipeline.yaml`; ``--set source=FOLDER`` gives it a value)::

    values: {source: data, target: data/pocket}
    steps:
      - {kind: script, command: [recipes/pocket/data.py, "{source}", "{target}"], output: ["{target}/captions.train.jsonl"]}
      - {kind: train, recipe: recipes/pocket/talk.yaml}
      - {kind: average, of: {pocket: 0.3, runs/talk: 0.7}, output: runs/final}

A step is skipped when all of its output is there and it was made by the same step (`STATE`, beside the outputs of training,
keeps a digest of each). When a step is done again, so are those after it. A training that was stopped goes on from its
newest checkpoint; if what it begins with has changed, its checkpoints are put aside, and it begins anew.
"""

import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..checkpoints.folders import TRAINED
from ..checkpoints.pocket import FOLDERS
from ..errors import UserError
from ..io.atomic import saying, write_text
from ..io.lock import hold
from ..io.yaml_file import read_yaml
from .average import average
from .checkpoint import set_aside
from .fingerprint import OtherBeginning
from .loop import train
from .recipe import Recipe, load_recipe

log = logging.getLogger(__name__)


class _Step(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Script(_Step):
    """A Python script; `output` are the files that it makes."""

    kind: Literal["script"]
    command: list[str] = Field(min_length=1)
    output: list[str] = Field(min_length=1)


class Train(_Step):
    """A training stage; `set` changes values of its recipe, as ``--set`` does."""

    kind: Literal["train"]
    recipe: str
    set: list[str] = []


class Average(_Step):
    """The mean of folders of weights, by their shares."""

    kind: Literal["average"]
    of: dict[str, float] = Field(min_length=2)
    output: str


Step = Annotated[Script | Train | Average, Field(discriminator="kind")]


class Pipeline(_Step):
    """A file of steps."""

    values: dict[str, str] = {}
    """Names that stand in braces in commands and paths."""
    state: str = "runs/pipeline.json"
    """Where it is kept what was done."""
    steps: list[Step] = Field(min_length=1)


def is_pipeline(path: Path) -> bool:
    """Whether a YAML file holds steps of a pipeline, and not one stage."""
    try:
        given = read_yaml(path)
    except UserError:
        return False  # the reader of recipes says what is wrong
    return isinstance(given, dict) and isinstance(given.get("steps"), list)


def load_pipeline(path: Path, changes: Sequence[str] = ()) -> Pipeline:
    """Read a pipeline; `changes` are ``NAME=VALUE`` for its values.

    Raises:
        UserError: an unknown key or value, or a name in braces that has no value.
    """
    given = read_yaml(path)
    values = given.get("values") or {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: values: expected names with their values, found {type(values).__name__}")
    values = dict(values)
    for change in changes:
        name, found, value = change.partition("=")
        if not found or name not in values:
            raise UserError(f"--set {change}: a pipeline has the values {', '.join(values) or 'none'}")
        values[name] = value
    try:
        texts = {str(name): str(value) for name, value in values.items()}
        return Pipeline.model_validate(_filled({**given, "values": texts}, texts))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"{path}: {error} stands in braces and has no value") from None


def run_pipeline(pipeline: Pipeline, changed: Callable[[Recipe], Recipe] = lambda recipe: recipe) -> list[str]:
    """Do what is not done yet, in order; returns what was done to each step: ``done`` or ``skipped``.

    Args:
        changed: makes a recipe another one before it runs (tests make it tiny).

    Raises:
        UserError: a step failed. Those before it stay done.
    """
    state = Path(pipeline.state)
    held = hold(state, "a pipeline")
    try:
        return _run(pipeline, state, changed)
    finally:
        held.release()


def _run(pipeline: Pipeline, state: Path, changed: Callable[[Recipe], Recipe]) -> list[str]:
    done = _read(state)
    told: list[str] = []
    chain = ""
    for number, step in enumerate(pipeline.steps):
        name = f"step {number + 1} of {len(pipeline.steps)}, {step.kind}"
        recipe = changed(load_recipe(step.recipe, step.set)) if isinstance(step, Train) else None
        chain = _digest(chain, step, recipe)
        outputs = _outputs(step, recipe)
        if done[number : number + 1] == [chain] and all(_is_whole(path) for path in outputs):
            log.info("%s: there already (%s)", name, outputs[0])
            told.append("skipped")
            continue
        log.info("%s: %s", name, outputs[0])
        _do(step, recipe, name)
        if missing := [str(path) for path in outputs if not _is_whole(path)]:
            raise UserError(f"{name}: it ended without {missing[0]}")
        done = [*done[:number], chain]
        _write(state, done)
        told.append("done")
    return told


def _do(step: Step, recipe: Recipe | None, name: str) -> None:
    if isinstance(step, Script):
        ended = subprocess.run([sys.executable, *step.command], check=False).returncode
        if ended:
            raise UserError(f"{name}: {' '.join(step.command)} ended with {ended}")
    elif isinstance(step, Average):
        average({str(FOLDERS.get(folder, folder)): share for folder, share in step.of.items()}, step.output)
    else:
        assert recipe is not None
        try:
            train(recipe)
        except OtherBeginning as error:
            log.warning("%s: %s; it begins anew, and %s is kept", name, error.reason, set_aside(Path(recipe.output)))
            train(recipe)


def _outputs(step: Step, recipe: Recipe | None) -> list[Path]:
    if isinstance(step, Script):
        return [Path(path) for path in step.output]
    return [Path(recipe.output if recipe else step.output) / TRAINED]  # type: ignore[union-attr]


def _is_whole(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _digest(before: str, step: Step, recipe: Recipe | None) -> str:
    """What a step is: itself, what its recipe says, the text of its script, and the steps before it."""
    digest = hashlib.sha256(f"{before}{step.model_dump_json()}".encode())
    if recipe is not None:
        digest.update(recipe.model_dump_json().encode())
    if isinstance(step, Script) and Path(step.command[0]).is_file():
        digest.update(Path(step.command[0]).read_bytes())
    return digest.hexdigest()


def _read(state: Path) -> list[str]:
    """What was done; nothing if there is no such file, or one that is damaged."""
    try:
        done = json.loads(state.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{state}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        done = None
    if not isinstance(done, list) or not all(isinstance(one, str) for one in done):
        log.warning("%s is damaged: no step counts as done", state)
        return []
    return done


def _write(state: Path, done: list[str]) -> None:
    with saying(state):
        state.parent.mkdir(parents=True, exist_ok=True)
    write_text(state, json.dumps(done, indent=1))


def _filled(given: Any, values: dict[str, str]) -> Any:
    if isinstance(given, str):
        return given.format(**values)
    if isinstance(given, list):
        return [_filled(part, values) for part in given]
    if isinstance(given, dict):
        return {(_filled(key, values) if isinstance(key, str) else key): _filled(part, values) for key, part in given.items()}
    return given
