"""What a run began with, in a few letters: a continued run notices that its datasets or its base are others now."""

import hashlib
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..data.mixture import Part
from ..data.source import StreamSource
from ..errors import UserError
from .recipe import Dataset

_WHOLE = 256 << 20  # bytes of a file up to which all of it counts; of larger ones 64 blocks do
_BLOCK = 1 << 16
_SAMPLES = 32
_VALUES = 64


def fingerprints(model: nn.Module, datasets: Sequence[Dataset], parts: Sequence[Part]) -> dict[str, str]:
    """Digests by name: of the frozen weights (64 values of each), and of each dataset: the files that its options name, how
    many samples it has, and some of them as they are read. The contents of images are not looked at."""
    found = {"the base": _weights(model)}
    for number, (dataset, part) in enumerate(zip(datasets, parts, strict=True)):
        found[f"dataset {number} ({dataset.format})"] = _dataset(dataset, part)
    return found


def difference(before: dict[str, str], now: dict[str, str]) -> str | None:
    """The names of what is no longer what it was, or None."""
    changed = [name for name in before if name in now and before[name] != now[name]]
    return ", ".join(changed) or None


def _weights(model: nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            flat = parameter.detach().flatten()
            values = flat[:: max(len(flat) // _VALUES, 1)].float().cpu().numpy()
            digest.update(f"{name}{tuple(parameter.shape)}".encode() + values.tobytes())
    return digest.hexdigest()


def _dataset(dataset: Dataset, part: Part) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for path in _files([*dataset.options.values(), *getattr(part.source, "shards", ())]):
        digest.update(path.name.encode(errors="surrogateescape") + _content(path))
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


def _files(values: Any) -> Iterator[Path]:
    """The files among an option's values, whatever they are in."""
    if isinstance(values, str) and "\0" not in values and os.path.isfile(values):
        yield Path(values)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _files(value)


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=8)
    with path.open("rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
        else:
            for start in range(0, size, size // 64):
                file.seek(start)
                digest.update(file.read(_BLOCK))
    return digest.digest()
