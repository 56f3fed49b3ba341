"""What a frozen vision encoder makes of a picture, kept on disk: it need not look twice.

A cache is a folder for one vision encoder and one way of preparing pictures (its name holds their fingerprint). Rows all have
one shape, so the data file is rows end to end and nothing else:

    cache/<fingerprint>/about.json       shape and dtype of a row, and what it was made with
    cache/<fingerprint>/rows-<n>.bin     rows; a process writes to one file at a time, which it holds by rows-<n>.lock
    cache/<fingerprint>/rows-<n>.jsonl   one line a row, written after it: {"key": ...}

Keys are digests of picture files, so moved or renamed pictures are still known and changed ones are not. A row without its
line, or a line cut short by a kill, does not count and is written over.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from PIL import ImageOps

from ..checkpoints.pocket import cache_folder
from ..errors import UserError
from ..media.images import ImageInput, Part, open_image, part_of_image
from .modeling import MiniGPT4ForConditionalGeneration
from .processing import MiniGPT4ImageProcessor


class FeatureCache:
    """Features of pictures, by content.

    Args:
        folder: where caches are kept; the user's cache folder when not given.
        stage: ``"vision_tokens"`` (B, T, V), or ``"connector_features"`` (B, K, W) where the connector is frozen as well and
            has parameters (a Q-Former), so that its work is saved too, unless it is given other channels each time.
    """

    def __init__(
        self,
        model: MiniGPT4ForConditionalGeneration,
        image_processor: MiniGPT4ImageProcessor,
        folder: Path | None = None,
    ):
        self.model, self.image_processor = model, image_processor
        frozen_connector = list(model.connector.parameters()) and not any(p.requires_grad for p in model.connector.parameters())
        self.stage = "connector_features" if frozen_connector and not model.vision_dropout else "vision_tokens"
        about = {"stage": self.stage, "vision": _fingerprint(model, self.stage), "pictures": image_processor.to_dict()}
        name = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:16]
        self.folder = (folder or cache_folder() / "features") / name
        self._writing: tuple[int, FileLock] | None = None
        self._digests: dict[tuple[str, int, int], str] = {}
        self._places: dict[str, tuple[int, int]] = {}  # key -> (file, row)
        self._files: dict[int, np.memmap] = {}
        self._shape, self._dtype = self._row_form()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "about.json").write_text(
                json.dumps(about | {"shape": self._shape, "dtype": str(self._dtype)}, default=str)
            )
        except OSError as error:
            raise UserError(f"{self.folder}: the feature cache cannot be written ({error.strerror})") from None
        self._read_index()

    def __getstate__(self) -> dict[str, Any]:
        """For the loader's processes, which only look up."""
        return self.__dict__ | {"model": None, "_files": {}, "_writing": None}

    def key(self, image: ImageInput, mirrored: bool = False) -> str:
        """Digest of a picture's content (its file's bytes, or its pixels)."""
        if isinstance(image, str | os.PathLike):
            stat = os.stat(image)
            known = (os.fspath(image), stat.st_size, stat.st_mtime_ns)
            if known not in self._digests:
                self._digests[known] = hashlib.sha256(Path(image).read_bytes()).hexdigest()
            digest = self._digests[known]
        else:
            rgb = open_image(image)
            digest = hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).hexdigest()
        return digest + "-mirrored" if mirrored else digest

    def missing(self, images: Iterable[tuple[ImageInput, bool]]) -> list[tuple[str, ImageInput, bool]]:
        """Of (picture, mirrored) pairs those that are not in the cache, each once, with their keys."""
        found: dict[str, tuple[str, ImageInput, bool]] = {}
        for image, mirrored in images:
            key = self.key(image, mirrored)
            if key not in self._places:
                found.setdefault(key, (key, image, mirrored))
        return list(found.values())

    @torch.no_grad()
    def add(self, items: Sequence[tuple[str, ImageInput, bool]]) -> None:
        """Look at pictures and keep what is seen; on disk when this returns."""
        pixels = torch.stack([pixels_of(self.image_processor, image, mirrored) for _, image, mirrored in items])
        features = self.look(pixels)
        writer = self._claim()
        rows = self.folder / f"rows-{writer}.bin"
        have = sum(1 for file, _ in self._places.values() if file == writer)
        try:
            with rows.open("r+b" if rows.exists() else "w+b") as file:
                file.seek(have * self._row_bytes)
                file.write(features.contiguous().view(torch.uint8).numpy().tobytes())
                file.flush()
                os.fsync(file.fileno())
            with rows.with_suffix(".jsonl").open("a") as index:
                index.writelines(json.dumps({"key": key}) + "\n" for key, *_ in items)
        except OSError as error:
            raise UserError(f"{rows}: cannot be written ({error.strerror}); what was kept before stays valid") from None
        for i, (key, *_) in enumerate(items):
            self._places[key] = (writer, have + i)
        self._files.pop(writer, None)

    @torch.no_grad()
    def look(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, size, size) -> features, on the CPU, as they are kept."""
        model = self.model
        tokens = model.get_vision_tokens(pixels.to(model.device))
        features = model.get_connector_features(tokens) if self.stage == "connector_features" else tokens
        return features.to("cpu", self._dtype)

    def get(self, image: ImageInput, mirrored: bool = False) -> torch.Tensor:
        """The features of one picture, (T, V) or (K, W); KeyError if it is not in the cache."""
        file, row = self._places[self.key(image, mirrored)]
        if file not in self._files:
            path = self.folder / f"rows-{file}.bin"
            rows = path.stat().st_size // self._row_bytes
            self._files[file] = np.memmap(path, np.uint8, "r", shape=(rows, self._row_bytes))
        raw = torch.from_numpy(np.array(self._files[file][row]))
        return raw.view(self._dtype).view(self._shape)

    def refresh(self) -> None:
        """Take notice of what other processes have added."""
        self._read_index()
        self._files.clear()

    def _claim(self) -> int:
        """The number of a data file that this process alone writes, for as long as the cache is in use."""
        if self._writing is None:
            number = 0
            while True:
                lock = FileLock(self.folder / f"rows-{number}.lock")
                try:
                    lock.acquire(timeout=0)
                    break
                except Timeout:
                    number += 1
            self._writing = (number, lock)
            self._read_index()  # another process may have written to it before
        return self._writing[0]

    def _row_form(self) -> tuple[list[int], torch.dtype]:
        """Shape and dtype of a row, from looking at a grey picture."""
        size = self.image_processor.size
        self._dtype = next(self.model.vision_tower.parameters()).dtype
        shape = list(self.look(torch.zeros(1, 3, size, size)).shape[1:])
        self._row_bytes = int(np.prod(shape)) * self._dtype.itemsize
        return shape, self._dtype

    def _read_index(self) -> None:
        for index in sorted(self.folder.glob("rows-*.jsonl")):
            number = int(index.stem.split("-")[1])
            rows = index.with_suffix(".bin")
            whole = rows.stat().st_size // self._row_bytes if rows.exists() else 0
            text = index.read_text()
            lines = text[: text.rfind("\n") + 1].splitlines()[:whole]
            cut_short = sum(len(line) + 1 for line in lines) != len(text)
            if cut_short and self._writing and self._writing[0] == number:  # take off what does not count
                index.write_text("".join(line + "\n" for line in lines))
            for row, line in enumerate(lines):
                self._places[json.loads(line)["key"]] = (number, row)


def pixels_of(
    image_processor: MiniGPT4ImageProcessor,
    image: ImageInput,
    mirrored: bool,
    crop: Part | None = None,
) -> torch.Tensor:
    """One picture, or the part of it that `crop` says (`Sample.crop`), as (3, size, size), mirrored left to right if asked."""
    if crop is not None:
        image = part_of_image(image, crop)
    shown: Any = ImageOps.mirror(open_image(image)) if mirrored else image
    return image_processor(shown)["pixel_values"][0]


def _fingerprint(model: MiniGPT4ForConditionalGeneration, stage: str) -> str:
    """A digest of the frozen weights that make the features: their names, shapes, and a sample of their values."""
    digest = hashlib.sha256()
    parts = {"vision_tower": model.vision_tower} | ({"connector": model.connector} if stage == "connector_features" else {})
    for part, module in parts.items():
        for name, tensor in module.state_dict().items():
            flat = tensor.detach().flatten()
            sample = flat[:: max(len(flat) // 64, 1)].float().cpu().numpy()
            digest.update(f"{part}.{name}{tuple(tensor.shape)}{tensor.dtype}".encode() + sample.tobytes())
    settings = (model.config.vision_feature_layer, model.config.vision_norm_eps)
    return digest.hexdigest() + repr(settings) + repr(sorted(_shape_settings(model).items()))


def _shape_settings(model: MiniGPT4ForConditionalGeneration) -> dict[str, Any]:
    """What of the vision encoder's configuration changes its output for the same weights."""
    config = model.config.vision_config.to_dict()
    return {key: config.get(key) for key in ("image_size", "patch_size", "feature_maps", "coordinates", "coordinate_scale")}
