"""Frozen parts by name: a folder or a hub id, and what to say where it is neither or does not fit."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as library

from ..errors import UserError
from ..model.modeling import vision_class
from .folders import in_one_line

VISION, LLM = "vision encoder", "language model"
_KEYS = {VISION: ("vision_config", "vision"), LLM: ("text_config", "text")}
_HEADS = re.compile(r"pool|head|classifier|mask_token|visual_projection")
"""Weights of vision encoders that nothing here asks for; folders need not have them."""
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def config_of_part(source: str, part: str) -> PreTrainedConfig:
    """The configuration of a vision encoder or a language model, also of one that lies in a system of both (CLIP and its kin).

    Raises:
        UserError: nothing there, or something else.
    """
    with _told(source, part):
        config = AutoConfig.from_pretrained(source)
    config = getattr(config, _KEYS[part][0], config)
    if part == LLM and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(f"{source}: a {config.model_type} model writes no text; expected a language model")
    return config


def tokenizer_of_part(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a language model. Raises UserError as `config_of_part` does."""
    with _told(source, LLM, "tokenizer of the language model"):
        return AutoTokenizer.from_pretrained(source)


def vision_of_part(source: str, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """A vision encoder with its weights.

    Raises:
        UserError: nothing there, or weights that do not fit `config`.
    """
    with _told(source, VISION), _quietly():
        model, report = vision_class(config).from_pretrained(
            source, config=config, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
        )
    missing = {name for name in report["missing_keys"] if not _HEADS.search(name)}
    _must_fit(source, VISION, missing, report["mismatched_keys"], f"image_size {getattr(config, 'image_size', None)}")
    return model


def vision_as(tower: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """A vision encoder with the same weights that computes as `config` says; the one given, if it does so already.

    Raises:
        UserError: that would take other weights.
    """
    before, wanted = _told_apart(tower.config), _told_apart(config)
    if before == wanted:
        return tower
    weight = next(tower.parameters())
    built = type(tower)(config)
    try:
        built.load_state_dict(tower.state_dict())
    except RuntimeError:
        changed = sorted(name for name in {*before, *wanted} if before.get(name) != wanted.get(name))
        raise UserError(f"vision_config: another {', '.join(changed)} would take other weights of the vision encoder") from None
    for module in built.modules():
        module._is_hf_initialized = True  # so that what it becomes part of does not initialise it
    return built.to(device=weight.device, dtype=weight.dtype).train(tower.training)


def _told_apart(config: PreTrainedConfig) -> dict[str, Any]:
    """What of a configuration says how a part computes."""
    no_setting = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")
    return {name: value for name, value in config.to_dict().items() if name not in no_setting}


def llm_of_part(source: str, dtype: torch.dtype, options: dict[str, Any]) -> PreTrainedModel:
    """A language model with its weights; `options` are for ``from_pretrained``. Raises UserError as `vision_of_part` does."""
    config_of_part(source, LLM)
    with _told(source, LLM), _quietly():
        model, report = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    _must_fit(source, LLM, report["missing_keys"], report["mismatched_keys"], "its config.json")
    return model


def _must_fit(source: str, part: str, missing: Any, mismatched: Any, what: str) -> None:
    if mismatched:
        name, found, wanted = min(mismatched)
        raise UserError(
            f"{source}: {what} does not fit the weights of this {part}: {name} is of shape {tuple(found)}, not {tuple(wanted)}"
        )
    if missing:
        raise UserError(f"{source}: lacks {len(missing)} weights of a {part}, the first is {min(missing)}")


@contextmanager
def _told(source: str, part: str, what: str | None = None) -> Iterator[None]:
    """The library's errors in one line, with what was asked for, and what to do where that is plain."""
    path, key = Path(source), _KEYS[part][1]
    if path.is_file():
        with path.open("rb") as file:
            gguf = file.read(4) == b"GGUF"
        kind = "a GGUF file" if gguf else "a file"
        if gguf and part == LLM:
            kind += (
                f"; convert it once: AutoModelForCausalLM.from_pretrained({str(path.parent)!r}, gguf_file={path.name!r})"
                ".save_pretrained(FOLDER), and its tokenizer alike"
            )
        raise UserError(f"{source}: the {part} must be a folder that save_pretrained wrote, or a hub id; this is {kind}")
    if path.is_dir() and not (path / "config.json").is_file():
        raise UserError(f"{source}: no {part} in this folder (no config.json); expected what save_pretrained wrote")
    if not path.exists() and not _HUB_ID.fullmatch(source):
        raise UserError(
            f"{source}: no such folder; the {part} was expected there. If it was moved, say where it is: "
            f"{key}_source in the config.json of a trained folder, or model.{key} in a recipe"
        )
    try:
        yield
    except Exception as error:  # the library's errors have no common base
        if isinstance(error, UserError):
            raise
        if not path.exists():
            raise UserError(
                f"{source}: no {part} found: neither a folder here, nor a hub repository that can be fetched "
                f"({in_one_line(error)})"
            ) from error
        raise UserError(f"{source}: the {what or part} cannot be loaded ({in_one_line(error)})") from error


@contextmanager
def _quietly() -> Iterator[None]:
    """The library would print a table of weights that it did not find; what matters of it is said here."""
    before = library.get_verbosity()
    library.set_verbosity_error()
    try:
        yield
    finally:
        library.set_verbosity(before)
