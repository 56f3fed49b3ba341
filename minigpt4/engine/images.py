"""Images encoded once: by content, as long as there is room for them."""

import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Protocol

import torch

from ..media.images import ImageInput
from ..model.processing import MiniGPT4Processor
from .completion import EncodedImage
from .limits import out_of_memory
from .ticket import Ticket

_FILES = 4096  # names of files that are remembered with what was in them


class Disk(Protocol):
    """Keeps embeddings for other processes (`inference.image_disk`)."""

    def get(self, key: str) -> torch.Tensor | None:
        """What is kept of an image, (K, H)."""

    def put(self, key: str, embeds: torch.Tensor) -> None:
        """Keep an image."""


class ImageCache:
    """What the language model receives for images, the least recently used ones forgotten first.

    Args:
        features: encodes images: pixels (P, 3, S, S) -> (P, K, H).
        most_bytes: of embeddings that are kept; 0 keeps none.
        disk: keeps them for other processes, where that is asked for.
    """

    def __init__(
        self,
        features: Callable[[torch.Tensor], torch.Tensor],
        processor: MiniGPT4Processor,
        most_bytes: int,
        disk: Disk | None = None,
    ):
        self.features, self.processor, self.most_bytes, self.disk = features, processor, most_bytes, disk
        self.bytes = self.hits = self.misses = 0
        self._kept: OrderedDict[str, EncodedImage] = OrderedDict()
        self._files: OrderedDict[tuple, str] = OrderedDict()  # (name, size, time, inode) -> key
        self._lock = Lock()

    @torch.inference_mode()
    def encode(self, images: Sequence[ImageInput | EncodedImage]) -> list[EncodedImage]:
        """The images in order; those that are not known yet go through the vision encoder together.

        Raises:
            UserError: an image that cannot be opened.
        """
        with self._lock:
            found: dict[int, EncodedImage] = {}
            new: dict[str, tuple[torch.Tensor, list[int]]] = {}
            seen: dict[object, str] = {}  # files and objects of this call
            for i, image in enumerate(images):
                if isinstance(image, EncodedImage):
                    found[i] = image
                    continue
                file = _file_of(image)
                same = file or id(image)
                key = seen.get(same) or (self._files.get(file) if file else None)
                if key is not None and key in self._kept:
                    found[i] = self._take(key)
                    continue
                if key is not None and key in new:
                    new[key][1].append(i)
                    continue
                pixels = self.processor.image_processor([image])["pixel_values"]
                key = hashlib.blake2b(pixels.numpy().tobytes(), digest_size=16).hexdigest()
                seen[same] = key
                if file:
                    self._files[file] = key
                    if len(self._files) > _FILES:
                        self._files.popitem(last=False)
                if key in self._kept:
                    found[i] = self._take(key)
                elif key not in new and self.disk is not None and (known := self.disk.get(key)) is not None:
                    self.hits += 1
                    found[i] = self._keep(EncodedImage(key, known))
                else:
                    new.setdefault(key, (pixels, []))[1].append(i)
            if new:
                batch = torch.cat([pixels for pixels, _ in new.values()])
                embeds = self.features(batch)
                for (key, (_, places)), embed in zip(new.items(), embeds, strict=True):
                    found |= dict.fromkeys(places, self._keep(EncodedImage(key, embed.clone())))
                    if self.disk is not None:
                        self.disk.put(key, embed)
                self.misses += len(new)
            return [found[i] for i in range(len(images))]

    def _take(self, key: str) -> EncodedImage:
        self.hits += 1
        self._kept.move_to_end(key)
        return self._kept[key]

    def _keep(self, encoded: EncodedImage) -> EncodedImage:
        self._kept[encoded.key] = encoded
        self.bytes += encoded.embeds.nbytes
        while self._kept and self.bytes > self.most_bytes:
            _, oldest = self._kept.popitem(last=False)
            self.bytes -= oldest.embeds.nbytes
        return encoded


def _file_of(image: ImageInput) -> tuple | None:
    """What tells a file on disk from another one, and from what it was before; none for what is no file."""
    if not isinstance(image, str | os.PathLike):
        return None
    try:
        stat = os.stat(image)
    except (OSError, ValueError):
        return None  # opening it will say what is wrong
    return os.path.abspath(image), stat.st_size, stat.st_mtime_ns, stat.st_ino


def with_images(group: list[Ticket], cache: ImageCache) -> list[Ticket]:
    """The tickets whose images could be encoded, and have them now; the others fail, each by itself."""
    begun = time.monotonic()
    known = [ticket for ticket in group if ticket.images]  # they had to wait for another prompt
    if known:
        rest = with_images([ticket for ticket in group if not ticket.images], cache)
        return [ticket for ticket in group if ticket in known or ticket in rest]
    try:
        encoded = cache.encode([image for ticket in group for image in ticket.request.images])
    except Exception as error:
        if len(group) > 1:
            return [ticket for one in group for ticket in with_images([one], cache)]
        group[0].fail(out_of_memory(error))
        return []
    for ticket in group:
        own, encoded = encoded[: len(ticket.request.images)], encoded[len(ticket.request.images) :]
        ticket.take_images(own, time.monotonic() - begun)
    return group
