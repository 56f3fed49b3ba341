"""What made an answer: the system, its decoding, and the images it was shown. It stands beside every answer in a file, so that
a file is not continued by somebody else, or about another image."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..checkpoints.pocket import FOLDERS
from ..errors import UserError
from ..io.jsonl import Row
from ..media.images import ImageInput, regular_file

BY, IMAGES = "by", "image_digest"
"""The keys that an answer's row gets."""
PARSED = "parsed"
"""The key for what an answer says, read as it is scored; null where nothing can be read in it."""


def signature(model: str, settings: Mapping[str, Any]) -> str:
    """Who answers: the system's name, a fingerprint of its weights where they lie here, and how it decodes."""
    folder = FOLDERS.get(model) or (Path(model) if Path(model).is_dir() else None)
    name = model if folder is None else f"{model}@{_fingerprint(folder)}"
    return " ".join([name, *(f"{key}={value}" for key, value in sorted(settings.items()))])


def digest(images: Iterable[ImageInput]) -> str | None:
    """A fingerprint of the contents of image files; None where an image is no file.

    Raises:
        UserError: a file that is not there.
    """
    found = hashlib.sha256()
    for image in images:
        if not isinstance(image, str | Path):
            return None
        with regular_file(image).open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:16]


def check_maker(file: Path, rows: Iterable[Row], by: str) -> None:
    """Raises UserError where one of the rows in a file was made by somebody else, or does not say by whom."""
    for row in rows:
        if row.get(BY) != by:
            other = f"by {row[BY]}, not by {by}" if BY in row else "that do not say what made them"
            raise UserError(f"{file}: holds answers {other}; name another file, or remove it")


def _fingerprint(folder: Path) -> str:
    """Of the ends of every file of weights, which differ whenever training has gone on, and of the settings."""
    found = hashlib.sha256()
    kinds = ("*.safetensors", "*.bin", "*config.json", "task_settings.json")
    for path in sorted(path for kind in kinds for path in folder.glob(kind)):
        size, span = path.stat().st_size, 1 << 20
        with path.open("rb") as file:
            found.update(f"{path.name} {size} ".encode() + file.read(span))
            if size > span:
                file.seek(max(span, size - span))
                found.update(file.read())
    return found.hexdigest()[:8]
