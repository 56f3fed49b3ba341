"""What a run began with, in a few letters: a continued run notices that its datasets or its base are others now."""

import contextlib
import hashlib
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..checkpoints.folders import TRAINED, find_folder
from ..data.formats.files import files
from ..data.mixture import Part
from ..data.source import StreamSource
from ..errors import UserError
from ..io.digest import content
from ..io.hub import commit_of, is_hub_id
from ..media.images import EXTENSIONS
from .recipe import Dataset, Recipe

_WHOLE = 256 << 20  # bytes of a file up to which all of it counts
_ROWS = ("annotations", "dataset", "shards")  # options that name where rows are: files, patterns of them, or folders
_SAMPLES = 32
_VALUES = 64
# Keys of a recipe that may differ when a run is continued: they do not touch what is learnt.
_HARMLESS = ("trackers", "keep", "checkpoint_every", "validation", "compile", "on_change", "output")
# And of its data: cached or computed, features are the same, and who reads the data changes nothing in it.
_HARMLESS_DATA = ("cache_features", "cache_folder", "workers")


class OtherBeginning(UserError):
    """A checkpoint is of another recipe, or began with another base or other data than are there now.

    Args:
        reason: what differs.
        remedy: what to do about it, where a run is begun by itself.
    """

    def __init__(self, reason: str, remedy: str):
        super().__init__(f"{reason}: {remedy}")
        self.reason = reason


def fingerprints(model: nn.Module, recipe: Recipe, parts: Sequence[Part]) -> dict[str, str]:
    """Digests by name: of the frozen weights (64 values of each), of the files that the base's trained weights are in, and of
    each dataset: the files that its options name, those in folders of rows among them, how many samples it has, some of them
    as they are read, and its commit on the hub. The contents of images are not looked at."""
    found = {"the base": _weights(model)}
    if recipe.model.vision is None:  # a new system has no base
        found["what the base has learnt"] = _learnt(find_folder(recipe.model.base))
    for number, (dataset, part) in enumerate(zip(recipe.data.datasets, parts, strict=True)):
        name = f"dataset {number} ({dataset.format})"
        found[name] = _dataset(dataset, part)
        if (commit := _commit(dataset.options)) is not None:
            found[f"{name} on the hub"] = commit
    return found


def difference(before: dict[str, str], now: dict[str, str]) -> str | None:
    """The names of what is no longer what it was, or None."""
    changed = [name for name in before if name in now and before[name] != now[name]]
    return ", ".join(changed) or None


def check_recipe(saved: Recipe, recipe: Recipe, folder: Path) -> None:
    """See that a checkpoint's recipe learns the same.

    Raises:
        OtherBeginning: it does not; says what differs first.
    """
    old, new = saved.model_dump(mode="json"), recipe.model_dump(mode="json")
    for key in _HARMLESS_DATA:
        del old["data"][key], new["data"][key]
    for key in new:
        if key not in _HARMLESS and old[key] != new[key]:
            raise OtherBeginning(
                f"{folder} was trained by another recipe ({_first_difference(key, old[key], new[key])})",
                f"name another output, or remove {recipe.output} to begin anew",
            )


def _first_difference(key: str, old: Any, new: Any) -> str:
    """The first thing that differs, by its full name."""
    if isinstance(old, dict) and isinstance(new, dict):
        name = next(name for name in {**old, **new} if old.get(name) != new.get(name))
        return _first_difference(f"{key}.{name}", old.get(name), new.get(name))
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        place = next(i for i, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1])
        return _first_difference(f"{key}.{place}", old[place], new[place])
    either = isinstance(old, dict | list) or isinstance(new, dict | list)
    return f"{key} is different" if either else f"{key} was {old}, and is {new} now"


def _weights(model: nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            flat = parameter.detach().flatten()
            values = flat[:: max(len(flat) // _VALUES, 1)].float().cpu().numpy()
            digest.update(f"{name}{tuple(parameter.shape)}".encode() + values.tobytes())
    return digest.hexdigest()


def _learnt(base: Path) -> str:
    """Of the files, not of the weights in memory: what is begun anew is drawn by each machine in its own way."""
    digest = hashlib.blake2b(digest_size=8)
    for path in [base / TRAINED] if (base / TRAINED).exists() else sorted(base.glob("*.safetensors")):
        digest.update(path.name.encode() + content(path, _WHOLE))
    return digest.hexdigest()


def _dataset(dataset: Dataset, part: Part) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, path in _files(dataset.options, getattr(part.source, "shards", ())):
        digest.update(name.encode(errors="surrogateescape") + content(path, _WHOLE))
    if not isinstance(part.source, StreamSource):
        count = len(part.source)
        digest.update(str(count).encode())
        for index in range(0, count, max(count // _SAMPLES, 1)):
            try:
                sample = part.source.sample(index, random.Random(index))
            except UserError:  # its image is missing; that is said when it is drawn
                continue
            digest.update(repr(sample.turns).encode(errors="replace"))
    return digest.hexdigest()


def _commit(options: Mapping[str, Any]) -> str | None:
    """Of a dataset on the hub, the commit that is read; None of others, and where nobody knows."""
    name, revision = options.get("dataset"), options.get("revision")
    if not isinstance(name, str) or not is_hub_id(name):
        return None
    return commit_of(name, "dataset", revision if isinstance(revision, str) else None)


def _files(options: Mapping[str, Any], shards: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """The files of a dataset but for images, with the names that they have whatever folder they were moved to."""
    named: list[str] = [path for path in _texts([*options.values(), *shards]) if os.path.isfile(path)]
    for option in _ROWS:
        for given in _texts([options.get(option)]):
            with contextlib.suppress(UserError):  # no file's name, but that of a dataset on the hub
                named += files(given, option, "rows")
    for name in dict.fromkeys(named):
        path = Path(name)
        if path.is_dir():
            inside = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
            yield from ((str(file), path / file) for file in inside if _of_rows(file))
        elif path.is_file():
            yield path.name, path


def _of_rows(file: Path) -> bool:
    """Whether a file of a folder of rows is none of images, nor what a library keeps there beside them."""
    hidden = any(part.startswith(".") for part in file.parts)
    return not (hidden or file.suffix.lower() in EXTENSIONS or file.match("cache-*.arrow"))


def _texts(values: Any) -> Iterator[str]:
    """The texts among an option's values, whatever they are in, that could name a file."""
    if isinstance(values, str) and "\0" not in values:
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts(value)
