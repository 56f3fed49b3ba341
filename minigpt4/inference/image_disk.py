"""Encoded images on disk, for who asks about the same ones in one process after another (`MINIGPT4_IMAGE_CACHE`)."""

import contextlib
import hashlib
import logging
import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import UserError
from ..io.atomic import whole_file
from ..io.cache_dir import cache_folder
from ..model.modeling import MiniGPT4ForConditionalGeneration

log = logging.getLogger(__name__)

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def bytes_of(size: str, name: str) -> int:
    """A size as people write it, ``500MB`` or ``2 GB``, in bytes.

    Raises:
        UserError: it is none; it says so of `name`.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]B|)\s*", size, re.IGNORECASE)
    if found is None:
        raise UserError(f"{name} must be a number with KB, MB, GB or TB behind it, like 2GB, not {size!r}")
    return int(float(found[1]) * _UNITS[found[2].upper()])


class ImageDisk:
    """A folder of encoded images of one system, the least recently used ones removed first. Processes may share it.

    A disk that is full, or a folder that cannot be written to, costs no answer: it is said once, and images are encoded again.

    Args:
        model: whose vision encoder, connector and projection made them; others' are in folders of their own.
        most_bytes: of all files, of all systems.
        by: which backend encodes.
    """

    def __init__(self, model: MiniGPT4ForConditionalGeneration, most_bytes: int, by: str = "torch"):
        self.model, self.most_bytes, self.by, self.hits = model, most_bytes, by, 0
        self._all = cache_folder() / "images"
        self._folder: Path | None = None
        self._room = -1  # bytes that may be written before it is looked again how much there is
        self._failed = False

    def get(self, key: str) -> torch.Tensor | None:
        """What is kept of an image, (K, H); none if nothing is, or if it is damaged."""
        file = self._file(key)
        try:
            embeds = load_file(file, device=str(self.model.device))["embeds"]
        except (OSError, SafetensorError, KeyError):  # a damaged one is written anew
            return None
        with contextlib.suppress(OSError):  # a cache that may only be read
            os.utime(file)
        self.hits += 1
        return embeds

    def put(self, key: str, embeds: torch.Tensor) -> None:
        """Keep an image."""
        if self._failed or embeds.nbytes > self.most_bytes:
            return
        file = self._file(key)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(file) as part:
                save_file({"embeds": embeds.contiguous()}, part)
            self._room -= file.stat().st_size
            if self._room < 0:
                self._tidy()
        except (OSError, UserError) as error:
            self._failed = True
            log.warning("encoded images are not kept on disk: %s", error)

    def _file(self, key: str) -> Path:
        if self._folder is None:
            self._folder = self._all / _fingerprint(self.model, self.by)
        return self._folder / f"{key}.safetensors"

    def _tidy(self) -> None:
        """Remove what was not used for longest, down to nine tenths of the room."""
        found = []
        for path in self._all.glob("*/*.safetensors"):
            with contextlib.suppress(OSError):  # another process removes some too
                stat = path.stat()
                found.append((stat.st_mtime_ns, stat.st_size, path))
        used = sum(size for _, size, _ in found)
        for _, size, path in sorted(found) if used > self.most_bytes else ():
            if used <= self.most_bytes * 9 // 10:
                break
            path.unlink(missing_ok=True)
            used -= size
        self._room = self.most_bytes - used


def _fingerprint(model: MiniGPT4ForConditionalGeneration, by: str) -> str:
    """What makes embeddings of pixels: every weight of it, its precision, its device, and the backend."""
    found = hashlib.blake2b(f"{by} {model.device.type} {model.config.to_json_string()}".encode(), digest_size=12)
    for part in (model.vision_tower, model.connector, model.projection):
        for name, weight in part.state_dict().items():
            found.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            found.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
