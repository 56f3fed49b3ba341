"""Where a system's parts lie and what its folder says of them: configuration, decoding, pictures, tokenizer. No weights."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, GenerationConfig

from ..errors import UserError
from ..io.atomic import write_text
from ..io.hub import is_hub_id
from ..model.configuration import MiniGPT4Config
from ..model.processing import MiniGPT4ImageProcessor, MiniGPT4Processor
from ..prompt.tasks import NO_TASK, TASKS
from . import pocket

TRAINED = "trained.safetensors"
"""The file of a folder that holds what training changed, and nothing of what it left as it was."""

TASK_SETTINGS = "task_settings.json"
"""The file that says how questions of a task are decoded, where that differs from generation_config.json."""


def find_folder(source: str | os.PathLike) -> Path:
    """The folder of a system: one that ships, the named one, or a hub repository brought here."""
    if shipped := pocket.FOLDERS.get(str(source)):
        return shipped
    folder = Path(source)
    if folder.is_dir():
        return folder
    if not is_hub_id(source):
        names = ", ".join(pocket.FOLDERS)
        raise UserError(f"{source}: no such folder (give {names}, a folder, or a hub id like owner/name)")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source)))
    except Exception as error:  # network, permission, no such repository: all are the user's to mend
        raise UserError(
            f"{source}: neither a folder nor a hub repository that can be fetched ({in_one_line(error)})"
        ) from error


def read_config(folder: Path) -> MiniGPT4Config:
    """The configuration of a system's folder; a vision encoder that lies in it is found there even if the folder was moved.

    Raises:
        UserError: none there, a damaged one, or one of another kind of system.
    """
    written = _read_json(folder / "config.json", "not a MiniGPT-4 system")
    if (kind := written.get("model_type")) != MiniGPT4Config.model_type:
        raise UserError(f"{folder}: not a MiniGPT-4 system (its config.json says model_type {kind!r}, not 'minigpt4')")
    for part in ("vision_config", "text_config"):
        if not isinstance(written.get(part), dict):  # the library would put something large of its own there
            raise UserError(f"{folder}: not a whole system (its config.json lacks {part})")
    try:
        config = MiniGPT4Config.from_pretrained(folder)
    except Exception as error:  # the library's checks raise errors of many kinds
        raise UserError(f"{folder}: its config.json cannot be used ({in_one_line(error)})") from error
    if (
        config.vision_source not in (None, "pocket")
        and (folder / "vision").is_dir()
        and not Path(config.vision_source).exists()
    ):
        config.vision_source = str(folder / "vision")
    return config


def load_processor(folder: Path, tokenizer_folder: str | os.PathLike) -> MiniGPT4Processor:
    """The processor of a system whose tokenizer may lie elsewhere.

    Raises:
        UserError: its settings or the tokenizer are missing or damaged.
    """
    file = folder / "processor_config.json"
    settings = _read_json(file, "cannot be read")
    try:
        image = {k: v for k, v in settings["image_processor"].items() if k in ("size", "image_mean", "image_std")}
        ours = {k: settings[k] for k in ("template", "num_image_tokens", "image_token_id", "extra_bos") if k in settings}
        image_processor = MiniGPT4ImageProcessor(**image)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: has no settings for pictures ({in_one_line(error)})") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    except Exception as error:  # the library's errors have no common base
        raise UserError(f"{tokenizer_folder}: its tokenizer cannot be loaded ({in_one_line(error)})") from error
    return MiniGPT4Processor(image_processor, tokenizer, **ours)


def read_generation_config(folder: Path) -> GenerationConfig | None:
    """A folder's decoding settings, if it has any. The library passes over some that are damaged."""
    if not (folder / "generation_config.json").exists():
        return None
    try:
        return GenerationConfig.from_pretrained(folder)
    except Exception as error:
        raise UserError(f"{folder / 'generation_config.json'}: cannot be used ({in_one_line(error)})") from error


def read_task_settings(folder: Path) -> dict[str, dict[str, Any]]:
    """A system's decoding settings by task, like ``{"caption": {"num_beams": 3}, "question": {"max_new_tokens": 64}}``; empty
    where it has none. `NO_TASK` stands for questions that name no task.

    Raises:
        UserError: a damaged file, or an unknown task.
    """
    file = task_settings_file(folder)
    settings: Any = {}
    if file.name == TASK_SETTINGS:
        settings = _read_json(file, "cannot be read")
    elif file.exists():
        settings = _read_json(file, "not a MiniGPT-4 system").get("task_generation") or {}
    names = [*TASKS, NO_TASK]
    for task, own in settings.items():
        if task not in names:
            raise UserError(f"{file}: there is no task {task!r}; there are {', '.join(names)}")
        if not isinstance(own, dict):
            raise UserError(f'{file}: "{task}" must be an object of settings, like {{"num_beams": 3}}')
    return settings


def task_settings_file(folder: Path) -> Path:
    """Where a system's decoding settings by task stand: in a file of their own, or as ``task_generation`` in the config.json of
    older folders."""
    own = folder / TASK_SETTINGS
    return own if own.exists() else folder / "config.json"


def write_task_settings(folder: Path, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Write decoding settings by task into a folder; no file where there are none. Raises UserError as `io.atomic` does."""
    if settings:
        write_text(folder / TASK_SETTINGS, json.dumps(settings, indent=2) + "\n")
    else:
        (folder / TASK_SETTINGS).unlink(missing_ok=True)


def vision_folder(config: MiniGPT4Config) -> str:
    """Where the vision encoder's weights are: a folder or a hub id."""
    return str(pocket.prepared() / "vision") if config.vision_source == "pocket" else _named(config.vision_source, "vision")


def text_folder(config: MiniGPT4Config) -> str:
    """Where the language model's weights and tokenizer are: a folder or a hub id."""
    return str(pocket.prepared() / "llm") if config.text_source == "pocket" else _named(config.text_source, "llm")


def tokenizer_source(config: MiniGPT4Config) -> str | Path:
    """Where the tokenizer of a trained folder is."""
    if config.base_source is None:
        return text_folder(config)
    folder = find_folder(config.base_source)
    return tokenizer_source(read_config(folder)) if (folder / TRAINED).exists() else folder


def _named(source: str | None, part: str) -> str:
    if source is None:
        raise UserError(f"this folder holds trained weights alone, but its config.json does not say where the {part} is")
    return source


def _read_json(file: Path, otherwise: str) -> dict[str, Any]:
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: {otherwise} ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{file}: {otherwise} (not JSON: {error})") from None
    if not isinstance(written, dict):
        raise UserError(f"{file}: {otherwise} (not a JSON object)")
    return written


def in_one_line(error: Exception) -> str:
    """An error of a library in one line of bearable length."""
    text = " ".join(str(error).split())
    return (text if len(text) <= 300 else text[:300] + " ...") or type(error).__name__
