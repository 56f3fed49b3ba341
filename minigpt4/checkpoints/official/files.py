"""Files with weights, read tensor by tensor: PyTorch pickles and safetensors, alone or as the shards of a folder.

Nothing is read before it is asked for where the format allows (safetensors, and pickles of torch 1.6 or newer), so that
looking at names and shapes costs nothing and converting holds little at a time.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from ...errors import UserError

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Weights(Protocol):
    """Named tensors of one file."""

    file: Path

    def names(self) -> list[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> torch.dtype: ...

    def tensor(self, name: str) -> torch.Tensor: ...


class TorchFile:
    """A PyTorch pickle: a dictionary of tensors, alone or under the key ``model`` beside other things.

    Raises:
        UserError: no such file, a Git LFS pointer, cut short, or a pickle with code in it (which is not run).
    """

    def __init__(self, file: Path):
        self.file = file
        check_present(file)
        try:
            try:
                whole = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError as error:
                if "mmap" not in str(error):
                    raise
                whole = torch.load(file, map_location="cpu", weights_only=True)  # a pickle of torch 1.5 or older
        except Exception as error:  # pickle, zip and torch each raise their own kinds
            raise UserError(_reason(file, error)) from error
        self.extra: dict[str, Any] = {}
        """What stands beside the weights: optimizer state, configuration, epoch."""
        if isinstance(whole, Mapping) and isinstance(whole.get("model"), Mapping):
            self.extra = {k: v for k, v in whole.items() if k != "model"}
            whole = whole["model"]
        if not isinstance(whole, Mapping) or not any(isinstance(v, torch.Tensor) for v in whole.values()):
            raise UserError(f"{file}: holds no named tensors")
        self._tensors = {k: v for k, v in whole.items() if isinstance(v, torch.Tensor)}
        self.extra |= {k: v for k, v in whole.items() if not isinstance(v, torch.Tensor)}

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        return self._tensors[name].dtype

    def tensor(self, name: str) -> torch.Tensor:
        return self._tensors[name]


class SafetensorsFile:
    """One safetensors file."""

    def __init__(self, file: Path):
        self.file = file
        check_present(file)
        try:
            self._open = safe_open(file, framework="pt")
            self._slices = {name: self._open.get_slice(name) for name in self._open.keys()}  # noqa: SIM118  (it cannot be iterated)
        except (SafetensorError, OSError) as error:
            raise UserError(_reason(file, error)) from error

    def names(self) -> list[str]:
        return list(self._slices)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._slices[name].get_shape())

    def dtype(self, name: str) -> torch.dtype:
        return _DTYPES.get(self._slices[name].get_dtype(), torch.int64)

    def tensor(self, name: str) -> torch.Tensor:
        return self._open.get_tensor(name)


def weights_of_folder(folder: Path) -> Iterator[Weights]:
    """The weight files of a Hugging Face folder, shards in order; safetensors where there are both kinds.

    Raises:
        UserError: no weights, a shard that the index names and the folder has not, or a damaged file.
    """
    for single, reader in (
        ("model.safetensors", SafetensorsFile),
        ("pytorch_model.bin", TorchFile),
    ):
        index = folder / f"{single}.index.json"
        if index.exists():
            check_present(index)
            try:
                shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            except (ValueError, KeyError, AttributeError) as error:
                raise UserError(f"{index}: not an index of weight files ({error!r})") from error
            for shard in shards:
                if not (folder / shard).exists():
                    raise UserError(f"{folder / shard}: no such file, although {index.name} names it; fetch it as well")
                yield reader(folder / shard)
            return
        if (folder / single).exists():
            yield reader(folder / single)
            return
    raise UserError(f"{folder}: no weights in this folder (model.safetensors or pytorch_model.bin, whole or in shards)")


def check_present(file: Path) -> None:
    """Refuse what is no file, an empty one, or a Git LFS pointer in its place."""
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    with file.open("rb") as opened:
        head = opened.read(64)
    if not head:
        raise UserError(f"{file}: the file is empty")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{file}: only a Git LFS pointer, not the file itself; fetch it (git lfs pull)")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise UserError(f"{file}: a web page, not the file itself (download sites show one before a large file)")


def _reason(file: Path, error: Exception) -> str:
    text = str(error)
    if "GLOBAL" in text:
        return f"{file}: not plain weights: loading it would run code that lies in it, which is not done"
    first = text.splitlines()[0].partition(". This is an internal")[0] if text else type(error).__name__
    first = "not a PyTorch file" if first.startswith("Weights only") else first
    return f"{file}: damaged, cut short or of another kind ({first[:160]}); fetch it again"
