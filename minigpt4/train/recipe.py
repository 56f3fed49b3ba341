"""A recipe: one YAML file a training stage, with nothing left to guess.

A recipe may say ``extends: other.yaml`` (beside it) and write down only what is different. Unknown keys are errors that
name the nearest known one. The recipe in force, defaults filled in, is saved beside the
weights in the form that `load_recipe` reads.
"""

import difflib
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..errors import UserError
from ..io.atomic import write_text
from ..io.yaml_file import read_yaml, value_of
from ..prompt.templates import CAPTION
from .schedule import SCHEDULES

_SHORT = reprlib.Repr()  # writes values down in messages, however large or deep they are
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxstring, _SHORT.maxother = 3, 8, 8, 200, 200


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)


class Lora(_Section):
    """Adapters in the language model; defaults are MiniGPT-v2's."""

    r: int = Field(64, ge=1)
    alpha: float = 16
    dropout: float = Field(0.05, ge=0, lt=1)
    target_modules: list[str] = ["q_proj", "v_proj"]


class Model(_Section):
    """Where the stage begins."""

    base: str = "pocket"
    """A system: one that ships (``pocket``, ``pocket-before-stage2``, ``pocket-after-stage2``), a folder (an earlier stage's
    output or what import-official wrote), or a hub id."""
    vision: str | None = None
    """A vision encoder for a new system instead of `base`: ``pocket``, a folder or a hub id. `text` must then be given too."""
    text: str | None = None
    """A language model for a new system."""
    config: dict[str, Any] = {}
    """Values of MiniGPT4Config for a new system (connector, concat_factor, ...), or such values to change in `base`."""
    image_size: int | None = None
    """Side of the picture in pixels, where it differs from the vision encoder's own."""
    template: str | None = None
    """Chat template; ``none`` learns the answer right after the picture. The base system's own when not given."""
    fresh: list[Literal["projection", "lora", "connector"]] = []
    """Parts of `base` to begin anew."""

    @model_validator(mode="after")
    def _both_parts(self) -> "Model":
        if (self.vision is None) != (self.text is None):
            raise ValueError("vision and text go together: a new system needs both")
        return self


class Trained(_Section):
    """What learns; everything else is frozen."""

    projection: bool = True
    lora: Lora | None = None
    connector: bool = False
    vision_tower: bool = False
    vision_layers: int | None = Field(None, ge=1)
    """Of the vision encoder, only so many of its last layers (blocks) and what comes after them; all of it when not given."""
    vision_dropout: float = Field(0.0, ge=0, lt=1)
    """The share of the vision encoder's channels that each picture goes without in training, others each time: a picture is
    then harder to overfit."""

    @model_validator(mode="after")
    def _layers_of_what_learns(self) -> "Trained":
        if self.vision_layers is not None and not self.vision_tower:
            raise ValueError("vision_layers says how much of the vision encoder learns: it needs vision_tower: true")
        return self


class Dataset(_Section):
    """One dataset of the mixture; further keys are options of its reader (see docs/data.md)."""

    model_config = ConfigDict(extra="allow")

    format: str
    """A key of `data.sources.SOURCES`."""
    ratio: float = Field(1.0, gt=0)
    """Share of the steps (or examples) that this dataset gets, relative to the others."""
    batch: int | None = Field(None, ge=1)
    """Samples a step of this dataset takes on each process, with `mixing: step`; the recipe's `batch` when not given."""
    reward: Literal["cider", "cider_objects"] | None = None
    """Learn from the model's own answers by how they score against the sample's (`train.self_critical`), instead of the
    sample's answers themselves; for captions, with `mixing: step`. ``cider_objects`` is CIDEr and the things that are named."""
    mirror: bool = False
    """Show half of the pictures mirrored, with left and right exchanged in the text."""
    crop: float | None = Field(None, gt=0, le=1)
    """Show a part of each picture, another each time, that has at least this share of its area; boxes move with it."""
    zoomed: float = Field(0.0, ge=0, le=1)
    """Show in this share of the samples what surrounds one of the boxes that they ask about, enlarged, instead of `crop`."""
    grid: int | None = Field(None, ge=1, le=100)
    """Put the edges of boxes on the nearest of so many lines a side, when a vision encoder cannot tell finer ones apart."""
    together: int = Field(1, ge=1)
    """Up to so many samples about the same picture are read side by side: the picture is read once for all of them."""

    @property
    def options(self) -> dict[str, Any]:
        """What is passed to the reader."""
        return dict(self.model_extra or {})


class Data(_Section):
    """Datasets and how their samples become batches."""

    datasets: list[Dataset] = Field(min_length=1)
    mixing: Literal["step", "example"] = "example"
    """``step``: all samples of a step come from one dataset, as published; ``example``: each is drawn by itself."""
    batch: int = Field(16, ge=1)
    """Samples a step takes on each process."""
    max_answer_tokens: int = Field(1024, ge=1)
    max_prompt_tokens: int = Field(3800, ge=1)
    end: str | None = None
    """What ends an answer; the chat template's own when not given."""
    pack: bool = True
    """Put several samples into one row, none seeing another."""
    row_tokens: int = Field(512, ge=8)
    """Length of packed rows; a longer sample has a row to itself."""
    workers: int = Field(0, ge=0)
    """Processes that read pictures and text; 0 does it in the training process."""
    cache_features: Literal["auto"] | bool = "auto"
    """Keep what the frozen vision encoder makes of each picture on disk. ``auto``: wherever the vision encoder is frozen and
    pictures come again; not for streamed datasets."""
    cache_folder: str | None = None

    def batch_of(self, dataset: Dataset) -> int:
        return dataset.batch or self.batch

    @model_validator(mode="after")
    def _reward_by_step(self) -> "Data":
        if any(dataset.reward for dataset in self.datasets) and self.mixing != "step":
            raise ValueError("a dataset with a reward needs mixing: step")
        if any(dataset.reward and dataset.together > 1 for dataset in self.datasets):
            raise ValueError("a dataset with a reward learns one question at a time: together cannot be more than 1")
        return self

    @model_validator(mode="after")
    def _batches_by_step(self) -> "Data":
        if self.mixing == "example" and (named := next((d for d in self.datasets if d.batch is not None), None)):
            raise ValueError(
                f"the batch of a dataset ({named.format}) needs mixing: step; where steps mix datasets (mixing: example), its "
                "ratio alone says how much of it there is"
            )
        return self


class Schedule(_Section):
    """Learning rate by step; `train.schedule` says what the names mean."""

    name: str = "cosine"
    lr: float = Field(1e-4, gt=0)
    min_lr: float = Field(0.0, ge=0)
    warmup_lr: float = 1e-6
    warmup_steps: int = Field(0, ge=0)
    steps_per_epoch: int | None = Field(None, ge=1)
    """For the published schedules, which count epochs of a fixed number of steps."""
    decay_rate: float = 0.1
    projection_factor: float = Field(1.0, gt=0)
    """The projection's learning rate as a multiple of the others'."""
    vision_factor: float = Field(1.0, gt=0)
    """The vision encoder's likewise."""

    @model_validator(mode="after")
    def _known(self) -> "Schedule":
        if self.name not in SCHEDULES:
            raise ValueError(f"unknown schedule {self.name!r}{_nearest(self.name, SCHEDULES)}")
        return self


class Optimizer(_Section):
    """AdamW; weight decay applies to matrices, not to biases and norms."""

    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip_norm: float | None = Field(1.0, gt=0)
    """Largest norm of the gradient; ``null`` does not clip, as published."""
    average: float | None = Field(None, gt=0, lt=1)
    """Decay of a running average of the trained weights, which validation and the result then use."""


class Validation(_Section):
    """What is measured on the way."""

    every: int = Field(500, ge=1)
    """Steps between measurements."""
    datasets: list[Dataset] = []
    samples: int = Field(256, ge=1)
    """Samples of each validation dataset that are measured."""
    images: list[str] = []
    """Pictures that get a written answer each time."""
    question: str = CAPTION

    @model_validator(mode="after")
    def _as_they_are(self) -> "Validation":
        for dataset in self.datasets:
            for name in ("mirror", "crop", "zoomed", "reward"):
                if getattr(dataset, name):
                    raise ValueError(f"{name} is for datasets that are learnt from; these are measured as they are")
        return self


class Recipe(_Section):
    """A training stage."""

    model: Model = Model()
    trained: Trained = Trained()
    data: Data
    schedule: Schedule = Schedule()
    optimizer: Optimizer = Optimizer()
    validation: Validation = Validation()
    steps: int = Field(ge=1)
    accumulate: int = Field(1, ge=1)
    """Batches that make one step."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Of the frozen weights and the arithmetic; what is trained is kept in float32. fp16 scales its gradients. ``auto``: bf16
    where the machine multiplies it fast, else fp16 on a GPU and fp32 on a CPU."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    gradient_checkpointing: bool = False
    """Compute the language model's activations again in the backward pass instead of keeping them."""
    compile: bool = False
    """Compile the language model's layers (a minute or two at the start)."""
    merged_adapters: bool = False
    """Add adapters to the weights they adapt at every step, instead of their outputs: a sixth faster on a CPU, for the memory
    of the sums. Not with dropout, compile or fsdp."""
    sharding: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: ``fsdp`` also divides the frozen language model among them."""
    seed: int = 42
    output: str
    checkpoint_every: int = Field(500, ge=1)
    on_change: Literal["refuse", "continue"] = "refuse"
    """What a continued run does where its datasets or its base are no longer those that it began with."""
    keep: int = Field(2, ge=1)
    """Checkpoints to keep, beside the best."""
    trackers: list[Literal["tensorboard", "trackio", "wandb"]] = []
    """Where metrics go beside metrics.jsonl."""

    @model_validator(mode="after")
    def _merged(self) -> "Recipe":
        lora = self.trained.lora
        if self.merged_adapters and (lora is None or lora.dropout or self.compile or self.sharding == "fsdp"):
            raise ValueError("merged_adapters needs trained.lora with dropout 0, and goes with neither compile nor fsdp")
        return self

    @field_validator("output")
    @classmethod
    def _a_name(cls, output: str) -> str:
        if not output or "\0" in output or any("\ud800" <= c <= "\udfff" for c in output):
            raise ValueError("no folder can have this name")
        return output

    @model_validator(mode="after")
    def _seen_alike(self) -> "Recipe":
        if self.trained.vision_dropout and any(dataset.reward for dataset in self.data.datasets):
            raise ValueError("a dataset with a reward learns from what the whole picture made the model say: no vision_dropout")
        return self


def load_recipe(path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply ``a.b.c=value`` changes (values in YAML; list items by number).

    Raises:
        UserError: no such file, no YAML, an unknown key, a value that cannot be.
    """
    given, _ = _read(Path(path))
    for change in changes:
        _apply(given, change)
    return parse_recipe(given, str(path))


def _read(path: Path, below: tuple[Path, ...] = ()) -> tuple[dict[str, Any], Path | None]:
    """A recipe's mapping, laid over that of the recipe it ``extends``, and the catalog of its datasets; `below` are those that
    extend it."""
    given = read_yaml(path)
    if not isinstance(given, dict):
        raise UserError(f"{path}: a recipe is a mapping of keys to values")
    if odd := [key for key in given if not isinstance(key, str)]:
        raise UserError(f"{path}: unknown key {odd[0]!r}{_nearest(str(odd[0]), Recipe.model_fields)}")
    base, under, catalog = given.pop("extends", None), dict[str, Any](), None
    if base is not None:
        if not isinstance(base, str):
            raise UserError(f"{path}: extends: expected the name of a recipe, not {str(base)[:80]}")
        chain = (*below, path.resolve())
        if (path.parent / base).resolve() in chain:
            raise UserError(f"{path}: extends {base}, which extends this recipe")
        under, catalog = _read(path.parent / base, chain)
    data = given.get("data")
    if isinstance(data, dict) and "catalog" in data:
        name = data.pop("catalog")
        if not isinstance(name, str):
            raise UserError(f"{path}: data.catalog: expected the name of a file, not {str(name)[:80]}")
        catalog = path.parent / name
    _name_datasets(given, path, catalog)
    return _laid_over(under, given), catalog


def _name_datasets(given: dict[str, Any], path: Path, catalog: Path | None) -> None:
    """Replaces each dataset that only names itself (``use: captions``) by what `catalog`, a file, says of that name."""
    known: dict[str, Any] | None = None
    for section in ("data", "validation"):
        part = given.get(section)
        listed = part.get("datasets") if isinstance(part, dict) else None
        datasets: list[Any] = listed if isinstance(listed, list) else []
        for place, dataset in enumerate(datasets):
            where, name = f"{path}: {section}.datasets.{place}.use", None
            if isinstance(dataset, dict):
                name = dataset.pop("use", None)
            if name is None:
                continue
            if catalog is None:
                raise UserError(f"{where}: {str(name)[:80]} is a name in a catalog, which data.catalog must name")
            known = _read(catalog)[0] if known is None else known
            if not isinstance(name, str):
                raise UserError(f"{where}: expected a name in {catalog.name}, not {str(name)[:80]}")
            if name not in known:
                raise UserError(f"{path}: {catalog.name} has no dataset {name}{_nearest(name, known)}")
            if not isinstance(known[name], dict):
                raise UserError(f"{catalog}: {name}: expected a dataset, a mapping of keys to values")
            datasets[place] = {"name": name, **known[name], **dataset}


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Mappings are joined key by key; lists and values of `above` replace those of `below`."""
    joined = dict(below)
    for key, value in above.items():
        under = joined.get(key)
        joined[key] = _laid_over(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return joined


def parse_recipe(given: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from its mapping; `where` names it in messages."""
    try:
        return Recipe.model_validate(given)
    except ValidationError as error:
        raise UserError("; ".join(f"{where}: {_say(e)}" for e in error.errors())) from None


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the recipe in force, every value spelt out."""
    write_text(path, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def _apply(given: dict[str, Any], change: str) -> None:
    key, sep, text = change.partition("=")
    if not sep or not key:
        raise UserError(f"--set {change}: expected KEY=VALUE, for instance schedule.lr=1e-4")
    try:
        value = value_of(text)
    except UserError as error:
        raise UserError(f"--set {change[:60]} ...: {error}") from None
    *path, last = key.split(".")
    place: Any = given
    for step in path:
        place = _into(place, step, change)
    if not isinstance(place, list | dict):
        raise UserError(f"--set {change}: {path[-1]} holds a value, not keys")
    if isinstance(place, list):
        place[_number(place, last, change)] = value
    else:
        place[last] = value


def _into(place: Any, step: str, change: str) -> Any:
    if isinstance(place, list):
        return place[_number(place, step, change)]
    if not isinstance(place, dict):
        raise UserError(f"--set {change}: there are no keys beside {step}")
    if place.get(step) is None:
        place[step] = {}
    if not isinstance(place[step], dict | list):
        raise UserError(f"--set {change}: {step} holds a value, not keys")
    return place[step]


def _number(place: list, step: str, change: str) -> int:
    if not step.isdecimal() or int(step) >= len(place):
        raise UserError(f"--set {change}: {step} is not one of the {len(place)} items (0 to {len(place) - 1})")
    return int(step)


def _say(error: Any) -> str:
    """One of pydantic's errors as a line: where, what, and the nearest key where one is misspelt."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key {where}{_nearest(str(error['loc'][-1]), _keys(error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{where} is needed"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}, not {_SHORT.repr(error['input'])}"


def _keys(path: Sequence[Any]) -> list[str]:
    """The known keys of the section at a path."""
    section: Any = Recipe
    for part in path:
        if isinstance(part, int):
            continue
        kind = section.model_fields[part].annotation
        options = [kind, *getattr(kind, "__args__", ())]
        section = next((k for k in options if isinstance(k, type) and issubclass(k, BaseModel)), section)
    return list(section.model_fields)


def _nearest(key: str, known: Any) -> str:
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else f" (known: {', '.join(known)})"
