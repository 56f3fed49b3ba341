"""What a frozen vision encoder makes of a picture, kept on disk: it need not look twice.

A cache is a folder for one vision encoder and one way of preparing pictures (its name holds their fingerprint). Rows all have
one shape, so the data file is rows end to end and nothing else:

    cache/<fingerprint>/about.json       shape and dtype of a row, and what it was made with
    cache/<fingerprint>/rows-<n>.bin     rows; a process writes to one file at a time, which it holds by rows-<n>.lock
    cache/<fingerprint>/rows-<n>.jsonl   one line a row, written after it: {"key", "row", "digest"}
    cache/<fingerprint>/damaged.jsonl    rows whose bytes are no longer what their line says: {"file", "row"}

Keys are digests of image files, so moved or renamed images are still known and changed ones are not. A row's number is where
it lies in its file, whoever wrote the rows before it; its digest is checked when it is read. A row without its line, or a line
that a kill has cut short, does not count.
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

from ..errors import UserError
from ..io.atomic import write_text
from ..io.cache_dir import cache_folder
from ..io.jsonl import rows_after, whole_rows
from ..media.images import ImageInput, Part, image_digest, open_image, part_of_image, regular_file
from .modeling import MiniGPT4ForConditionalGeneration
from .processing import MiniGPT4ImageProcessor

_FORMAT = 2  # of the files; a change makes every cache anew
_INSTEAD = "name another data.cache_folder, or go without: --set data.cache_features=false"


class NotKept(UserError):
    """Features cannot be kept here: the disk is read-only or full. They can still be computed."""


class FeatureCache:
    """Features of pictures, by content. What is kept in a folder that cannot be written is read.

    Args:
        folder: where caches are kept; the user's cache folder when not given.
        connector_varies: whether the connector is given other channels each time, so that its work cannot be kept.
        stage: ``"vision_tokens"`` (B, T, V), or ``"connector_features"`` (B, K, W) where the connector is a Q-Former that
            is frozen as well, so that its work is saved too, unless it is given other channels each time.
    """

    def __init__(
        self,
        model: MiniGPT4ForConditionalGeneration,
        image_processor: MiniGPT4ImageProcessor,
        folder: Path | None = None,
        connector_varies: bool = False,
    ):
        self.model, self.image_processor = model, image_processor
        is_qformer = model.config.connector == "qformer"  # others cost nothing, and what they give may be larger
        frozen_connector = is_qformer and not any(p.requires_grad for p in model.connector.parameters())
        self.stage = "connector_features" if frozen_connector and not connector_varies else "vision_tokens"
        about = {
            "format": _FORMAT,
            "stage": self.stage,
            "vision": _fingerprint(model, self.stage),
            "pictures": image_processor.to_dict(),
        }
        name = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:16]
        self.folder = (folder or cache_folder() / "features") / name
        self._writing: tuple[int, FileLock] | None = None
        self._digests: dict[tuple[str, int, int], str] = {}
        self._latest: dict[str, str] = {}  # of a file's name the digest it had last
        self._places: dict[str, tuple[int, int, str]] = {}  # key -> (file, row, digest of the row)
        self._read: dict[Path, tuple[list[tuple[int, int]], int]] = {}  # index -> its state, and how far it was read
        self._noted: list[tuple[int, int]] = []
        self._files: dict[int, np.memmap] = {}
        self._shape, self._dtype = self._row_form()
        written = json.dumps(about | {"shape": self._shape, "dtype": str(self._dtype)}, default=str)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "about.json").exists():
                write_text(self.folder / "about.json", written)
        except OSError as error:
            raise NotKept(f"{self.folder}: the feature cache cannot be written ({error.strerror}); {_INSTEAD}") from None
        self._read_index()

    def __getstate__(self) -> dict[str, Any]:
        """For the loader's processes, which only look up."""
        return self.__dict__ | {"model": None, "_files": {}, "_writing": None}

    def key(self, image: ImageInput, mirrored: bool = False) -> str:
        """Digest of a picture's content (its file's bytes, or its pixels)."""
        digest = self._digest_of(image) if isinstance(image, str | os.PathLike) else image_digest(image)
        return digest + "-mirrored" if mirrored else digest

    def _digest_of(self, image: str | os.PathLike) -> str:
        """Of a file's bytes. A file that has vanished since it was read is known by its name."""
        name = os.fspath(image)
        try:
            path = regular_file(image)
            stat = path.stat()
            known = (name, stat.st_size, stat.st_mtime_ns)
            if known not in self._digests:
                self._digests[known] = image_digest(path)
        except (OSError, UserError) as error:
            if name in self._latest:
                return self._latest[name]
            raise error if isinstance(error, UserError) else UserError(f"{name}: cannot be read ({error.strerror})") from None
        self._latest[name] = self._digests[known]
        return self._digests[known]

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
        """Look at images and keep what is seen; on disk when this returns. What another process has added is left out.

        Raises:
            NotKept: the folder cannot be written.
            UserError: an image that cannot be read, or that changes while it is looked at.
        """
        writer = self._claim()
        self._read_index()
        new = {key: (image, mirrored) for key, image, mirrored in items if key not in self._places}
        if not new:
            return
        pixels = torch.stack([pixels_of(self.image_processor, image, mirrored) for image, mirrored in new.values()])
        for key, (image, mirrored) in new.items():
            if self.key(image, mirrored) != key:  # what was looked at need not be what the key stands for
                raise UserError(f"{image}: was changed while it was looked at; start again to look at it anew")
        features = self.look(pixels).contiguous().view(torch.uint8).flatten(1).numpy()
        path = self.folder / f"rows-{writer}.bin"
        lines: list[tuple[str, int, str]] = []
        try:
            with path.open("r+b" if path.exists() else "w+b") as file:
                first = file.seek(0, os.SEEK_END) // self._row_bytes  # behind whatever whole rows there are
                file.seek(first * self._row_bytes)
                file.write(features.tobytes())
                file.flush()
                os.fsync(file.fileno())
            for number, (key, row) in enumerate(zip(new, features, strict=True), first):
                lines.append((key, number, _digest(row)))
            index = path.with_suffix(".jsonl")
            cut = not _ends_line(index)
            with index.open("a", encoding="utf-8") as out:
                rows = (json.dumps({"key": key, "row": row, "digest": digest}) for key, row, digest in lines)
                out.write(("\n" if cut else "") + "".join(row + "\n" for row in rows))
        except OSError as error:
            kept = "what was kept before stays valid"
            raise NotKept(f"{path}: cannot be written ({error.strerror}); {kept}; {_INSTEAD}") from None
        self._files.pop(writer, None)
        self._places |= {key: (writer, row, digest) for key, row, digest in lines}

    @torch.no_grad()
    def look(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, size, size) -> features, on the CPU, as they are kept."""
        model = self.model
        tokens = model.get_vision_tokens(pixels.to(model.device))
        features = model.get_connector_features(tokens) if self.stage == "connector_features" else tokens
        return features.to("cpu", self._dtype)

    def get(self, image: ImageInput, mirrored: bool = False) -> torch.Tensor:
        """The features of one image, (T, V) or (K, W).

        Raises:
            KeyError: it is not in the cache.
            UserError: its file is not what it was when its features were kept, or they are damaged on disk.
        """
        key = self.key(image, mirrored)
        if key not in self._places and isinstance(image, str | os.PathLike):
            raise UserError(f"{os.fspath(image)}: was changed after its features were kept; start again to look at it anew")
        file, row, digest = self._places[key]
        if file not in self._files:
            path = self.folder / f"rows-{file}.bin"
            rows = path.stat().st_size // self._row_bytes
            self._files[file] = np.memmap(path, np.uint8, "r", shape=(rows, self._row_bytes))
        raw = np.array(self._files[file][row]) if row < len(self._files[file]) else np.zeros(0, np.uint8)
        if _digest(raw) != digest:
            damaged = f"{self.folder}/rows-{file}.bin: row {row} is damaged"
            try:
                with (self.folder / "damaged.jsonl").open("a") as out:
                    out.write(json.dumps({"file": file, "row": row}) + "\n")
            except OSError as error:  # the next run would read it again
                raise UserError(f"{damaged}, and that cannot be noted there ({error.strerror}); {_INSTEAD}") from None
            raise UserError(f"{damaged}; start again, and it is made anew")
        return torch.from_numpy(raw).view(self._dtype).view(self._shape)

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
                except OSError as error:
                    raise NotKept(
                        f"{self.folder}: the feature cache cannot be written ({error.strerror}); {_INSTEAD}"
                    ) from None
            self._writing = (number, lock)
        return self._writing[0]

    def _row_form(self) -> tuple[list[int], torch.dtype]:
        """Shape and dtype of a row, from looking at a grey picture."""
        size = self.image_processor.size
        self._dtype = next(self.model.vision_tower.parameters()).dtype
        shape = list(self.look(torch.zeros(1, 3, size, size)).shape[1:])
        self._row_bytes = int(np.prod(shape)) * self._dtype.itemsize
        return shape, self._dtype

    def _read_index(self) -> None:
        """Every row that has its line; lines that are none, and files that are not ours, are passed over.

        Of a file that has grown only what is new is read: this is done before every few images that are added.
        """
        noted = _state(self.folder / "damaged.jsonl")
        files = {index: _state(index, index.with_suffix(".bin")) for index in sorted(self.folder.glob("rows-*.jsonl"))}
        if noted != self._noted or any(not _grown(before, files.get(index)) for index, (before, _) in self._read.items()):
            self._places, self._read, self._noted = {}, {}, noted
        lines = [(line.get("file"), line.get("row")) for line in whole_rows(self.folder / "damaged.jsonl")]
        damaged = {place for place in lines if all(isinstance(number, int) for number in place)}
        for index, state in files.items():
            number, (before, place) = index.stem.removeprefix("rows-"), self._read.get(index, (None, 0))
            if not (number.isdecimal() and index.with_suffix(".bin").is_file()) or state == before:
                continue
            rows, place = rows_after(index, place)
            whole = index.with_suffix(".bin").stat().st_size // self._row_bytes  # after its lines: rows are written before them
            self._read[index] = state, place
            for line in rows:
                key, row, digest = line.get("key"), line.get("row"), line.get("digest")
                if not (isinstance(key, str) and isinstance(row, int) and isinstance(digest, str) and 0 <= row < whole):
                    continue
                if (int(number), row) not in damaged:
                    self._places[key] = (int(number), row, digest)


def _state(*paths: Path) -> list[tuple[int, int]]:
    """Each file's number on its disk, and its size; zeros where there is no file."""
    return [(found.st_ino, found.st_size) if (found := _stat(path)) else (0, 0) for path in paths]


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _grown(before: list[tuple[int, int]], now: list[tuple[int, int]] | None) -> bool:
    """Whether each file is still the same one, and no shorter than it was."""
    return now is not None and all(one[0] == two[0] and one[1] <= two[1] for one, two in zip(before, now, strict=True))


def _ends_line(path: Path) -> bool:
    """Whether the last line of a file is whole, or there is none."""
    if not path.exists() or not path.stat().st_size:
        return True
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _digest(row: np.ndarray) -> str:
    return hashlib.blake2b(row.tobytes(), digest_size=8).hexdigest()


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
    settings: tuple = (model.config.vision_feature_layer, model.config.vision_norm_eps)
    if stage == "connector_features" and model.config.position_octaves:
        settings += (model.config.position_octaves, model.config.position_scale)
    return digest.hexdigest() + repr(settings) + repr(sorted(_shape_settings(model).items()))


def _shape_settings(model: MiniGPT4ForConditionalGeneration) -> dict[str, Any]:
    """What of the vision encoder's configuration changes its output for the same weights."""
    config = model.config.vision_config.to_dict()
    settings = {key: config.get(key) for key in ("image_size", "patch_size", "feature_maps")}
    if config.get("class_grids"):
        settings["class_grids"] = config["class_grids"]
    return settings
