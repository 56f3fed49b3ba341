"""Weights written piece by piece into a folder."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ...errors import UserError
from ...model.configuration import MiniGPT4Config
from ..loading import adapter_base
from ..trained import write_trained
from .account import Plan
from .keys import LLM, VISION

SHARD_BYTES = 1 << 30
Progress = Callable[[int, int], None]


class Writer:
    """Makes our weights out of published tensors, one at a time, and stores them in shards."""

    def __init__(
        self,
        plan: Plan,
        shapes: dict[str, tuple[int, ...]],
        config: MiniGPT4Config,
        dtype: torch.dtype | None,
        progress: Progress | None,
    ):
        self.plan, self.shapes, self.config, self.dtype, self.progress = plan, shapes, config, dtype, progress
        self.written = 0
        self.total = sum(torch.Size(s).numel() * self._dtype(n).itemsize for n, s in shapes.items() if self._stored(n))

    def write_whole(self, folder: Path) -> None:
        """All weights, as ``save_pretrained`` would store them."""
        self._need(folder, self.total)
        self._shards(folder, [n for n in self.shapes if self._stored(n)], "")

    def write_parts(self, folder: Path) -> None:
        """The vision encoder in a folder of its own, and beside it what was trained."""
        names = [n for n in self.shapes if not n.startswith(LLM) or ".lora_" in n]
        self.total = sum(torch.Size(self.shapes[n]).numel() * self._dtype(n).itemsize for n in names)
        self._need(folder, self.total)
        (folder / "vision").mkdir()
        self._shards(folder / "vision", [n for n in names if n.startswith(VISION)], VISION)
        self.config.vision_config.save_pretrained(folder / "vision")
        rest = {n.replace(".default.", "."): self.weight(n) for n in names if not n.startswith(VISION)}
        write_trained(folder, rest, self.config.lora, adapter_base(self.config))

    def weight(self, name: str) -> torch.Tensor:
        """One weight of ours."""
        parts = self.plan.sources.get(name)
        if parts is None:  # the norm after the vision encoder, where no file has it
            fill = torch.ones if name.endswith("weight") else torch.zeros
            return fill(self.shapes[name], dtype=self._dtype(name))
        tensors = {part: source.weights.tensor(source.name) for part, source in parts.items()}
        whole = tensors.get("")
        tensor = torch.cat([tensors["q"], torch.zeros_like(tensors["q"]), tensors["v"]]) if whole is None else whole
        if name == f"{VISION}embeddings.position_embedding":
            tensor = resize_positions(tensor, self.config.vision_grid)
        return tensor.to(self._dtype(name)).contiguous()

    def _dtype(self, name: str) -> torch.dtype:
        """A weight's type in the output."""
        parts = self.plan.sources.get(name)
        if parts is None:
            return self.dtype or torch.float32
        source = next(iter(parts.values()))
        stored = source.weights.dtype(source.name)
        if self.dtype is not None and name.startswith((VISION, LLM)) and ".lora_" not in name:
            return self.dtype
        if name == f"{VISION}embeddings.position_embedding" and source.weights.shape(source.name) != self.shapes[name]:
            return torch.float32  # interpolated values are not rounded again
        return stored

    def _stored(self, name: str) -> bool:
        return name in self.plan.sources or name.startswith(VISION)

    def _shards(self, folder: Path, names: list[str], prefix: str) -> None:
        """Store weights in files of at most `SHARD_BYTES`, with an index if there are several."""
        files: list[list[str]] = []
        for shard in self._groups(names):
            tensors = {name.removeprefix(prefix): self.weight(name) for name in shard}
            save_file(tensors, folder / f"{len(files)}.part", metadata={"format": "pt"})
            self.written += sum(t.nbytes for t in tensors.values())
            del tensors
            files.append([name.removeprefix(prefix) for name in shard])
            if self.progress is not None:
                self.progress(self.written, self.total)
        if len(files) == 1:
            (folder / "0.part").rename(folder / "model.safetensors")
            return
        where: dict[str, str] = {}
        for i, stored in enumerate(files):
            final = f"model-{i + 1:05}-of-{len(files):05}.safetensors"
            (folder / f"{i}.part").rename(folder / final)
            where |= dict.fromkeys(stored, final)
        index = {"metadata": {"total_size": self.written}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))

    def _groups(self, names: list[str]) -> Iterator[list[str]]:
        group: list[str] = []
        size = 0
        for name in names:
            nbytes = torch.Size(self.shapes[name]).numel() * self._dtype(name).itemsize
            if group and size + nbytes > SHARD_BYTES:
                yield group
                group, size = [], 0
            group.append(name)
            size += nbytes
        yield group

    @staticmethod
    def _need(folder: Path, nbytes: int) -> None:
        free = shutil.disk_usage(folder).free
        if free < nbytes:
            raise UserError(f"{folder.parent}: {nbytes / 1e9:.1f} GB are needed there, and {free / 1e9:.1f} GB are free")


def resize_positions(table: torch.Tensor, grid: int) -> torch.Tensor:
    """A position embedding (1, 1 + n x n, V) for `grid` x `grid` patches: the class's kept, the others interpolated."""
    side = int((table.shape[1] - 1) ** 0.5)
    if side == grid:
        return table
    squares = table[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    squares = F.interpolate(squares, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1].float(), squares.permute(0, 2, 3, 1).flatten(1, 2)], 1)
