"""What made an answer: the system, its decoding, and the images it was shown. It stands beside every answer in a file, so that
a file is not continued by somebody else, or about another image."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoints.pocket import FOLDERS
from ..errors import UserError
from ..io.digest import content
from ..io.hub import commit_of, is_hub_id
from ..io.jsonl import Row
from ..media.images import ImageInput, regular_file

BY, IMAGES = "by", "image_digest"
"""The keys that an answer's row gets."""
PARSED = "parsed"
"""The key for what an answer says, read as it is scored; null where nothing can be read in it."""
EARLIER = "earlier"
"""The key that marks the answer to what an earlier run asked, and the last one did not."""

_WHOLE = 4 << 20  # bytes of a file up to which all of it counts: this is done before every command
_WEIGHTS = ("*.safetensors", "*.bin", "*.pth", "*.gguf")
_TOKENS = ("tokenizer*.json", "*.model", "vocab.*", "merges.txt", "added_tokens.json", "special_tokens_map.json", "*.jinja")
_KINDS = (*_WEIGHTS, *_TOKENS, "*config.json", "task_settings.json")
_SOURCES = ("vision_source", "text_source", "base_source")  # of a config.json: where the parts lie that are not in the folder
_NO_SETTING = ("transformers_version", "_name_or_path", "architectures", "base_model_name_or_path")


def signature(model: str, settings: Mapping[str, Any]) -> str:
    """Who answers: the system's name, a fingerprint of all that it is made of where that lies here or on the hub, and how it
    decodes.

    Raises:
        UserError: one of its files cannot be read.
    """
    made_of = _system(model)
    name = model if made_of == model else f"{model}@{made_of[:8]}"
    return " ".join([name, *(f"{key}={value}" for key, value in sorted(settings.items()))])


def digest(images: Iterable[ImageInput]) -> str | None:
    """A fingerprint of the contents of image files; None where an image is no file.

    Raises:
        UserError: a file that is not there.
    """
    found = []
    for image in images:
        if not isinstance(image, str | Path):
            return None
        with regular_file(image).open("rb") as file:
            found.append(hashlib.file_digest(file, "sha256").digest())
    return _together(found)


def digest_of(contents: Iterable[bytes]) -> str:
    """What `digest` gives of files with these contents."""
    return _together(hashlib.sha256(data).digest() for data in contents)


def _together(digests: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()[:16]


def check_maker(file: Path, rows: Iterable[Row], by: str) -> None:
    """Raises UserError where one of the rows in a file was made by somebody else, or does not say by whom."""
    for row in rows:
        if row.get(BY) != by:
            other = f"by {row[BY]}, not by {by}" if BY in row else "that do not say what made them"
            raise UserError(f"{file}: holds answers {other}; name another file, or remove it")


def check_unchanged(file: Path, images: Sequence[ImageInput], before: str | None) -> None:
    """Raises UserError where images are not what they were when an answer in a file was made. That one is gone is no change.

    Args:
        before: what the answer's row says of them.
    """
    if before is None:
        return
    try:
        now = digest(images)
    except UserError:
        return
    if now is not None and now != before:
        names = ", ".join(str(image) for image in images)
        raise UserError(f"{names}: has changed since {file} was written; remove its row there, or name another file")


def _system(name: str, seen: frozenset[Path] = frozenset()) -> str:
    """`_source` of a system by the name that --model takes."""
    return _source(str(FOLDERS.get(name, name)), seen)


def _source(name: str, seen: frozenset[Path]) -> str:
    """What tells one state of a system or of a part from another: a digest of its folder, or its commit on the hub. Where
    neither is known, its name. The pocket model's parts never change, so that their name is enough."""
    folder = Path(name)
    if folder.is_dir():
        return "" if folder.resolve() in seen else _fingerprint(folder, seen | {folder.resolve()})
    return (commit_of(name) if is_hub_id(name) else None) or name


def _fingerprint(folder: Path, seen: frozenset[Path]) -> str:
    """Of what answers depend on: the weights, the settings, the tokenizer, and what lies elsewhere of a system."""
    found = hashlib.sha256()
    for path in sorted({path for kind in _KINDS for path in folder.glob(kind) if path.is_file()}):
        try:
            found.update(f"{path.name} ".encode() + (_settings(path) or content(path, _WHOLE)))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    config = _json(folder / "config.json")
    for option in _SOURCES:
        name, beside = config.get(option), folder / "vision"
        if isinstance(name, str):
            if option == "vision_source" and name != "pocket" and beside.is_dir() and not Path(name).exists():
                name = str(beside)  # as `checkpoints` finds it after a move
            source = _system(name, seen) if option == "base_source" else name if name == "pocket" else _source(name, seen)
            found.update(f"{option} {source} ".encode())
    return found.hexdigest()[:8]


def _settings(path: Path) -> bytes | None:
    """A file of settings in one way of writing them, without what changes no answer; None of other files."""
    written = _json(path) if path.suffix == ".json" and path.name != "tokenizer.json" else {}
    kept = {key: value for key, value in written.items() if key not in (*_SOURCES, *_NO_SETTING)}
    return json.dumps(kept, sort_keys=True).encode() if written else None


def _json(path: Path) -> dict[str, Any]:
    """What a file says, if it is there and an object of JSON; else nothing."""
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # whoever loads the system says so
        return {}
    return written if isinstance(written, dict) else {}
