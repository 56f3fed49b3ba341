"""The weighted mean of several trainings of the same system."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedConfig

from ..checkpoints.folders import TASK_SETTINGS, find_folder, read_config
from ..checkpoints.loading import adapters_merged
from ..checkpoints.pocket import FOLDERS
from ..checkpoints.trained import TOKENIZER_FILES, read_trained, remove_others, write_trained
from ..errors import UserError
from ..io.atomic import saying, whole_file
from ..model.adapters import lora_form
from ..model.configuration import MiniGPT4Config

_SETTINGS = ("config.json", "processor_config.json", "generation_config.json", TASK_SETTINGS, *TOKENIZER_FILES)
"""What the last folder has of these, the mean has, and no others."""


def average(shares: Mapping[str, float], target: str | Path) -> Path:
    """Write the mean of the folders in `shares`, each weighed by its share, in bfloat16; returns `target`.

    Settings come from the last folder. The shares are brought to a sum of one.

    Raises:
        UserError: a folder has no weights, or they are not those of the same system.
    """
    if len(shares) < 2 or min(shares.values()) < 0 or sum(shares.values()) <= 0:
        raise UserError(f"{target}: a mean needs two folders or more, with shares that are not negative")
    total, system, lora = sum(shares.values()), None, None
    mixed: dict[str, torch.Tensor] = {}
    for folder, share in shares.items():
        try:
            weights = read_trained(Path(folder))
            config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, AttributeError, SafetensorError) as error:
            raise UserError(f"{folder}: cannot be read ({error})") from None
        shapes = {name: weight.shape for name, weight in weights.items()}
        own, lora = _system(Path(folder), config), config.get("lora")
        other: str | None = None if system is None else next((what for what, is_ in own.items() if is_ != system[what]), None)
        if mixed and (other or shapes != {name: weight.shape for name, weight in mixed.items()}):
            differ = f" ({other} differ)" if other else ""
            raise UserError(f"{folder}: these are not weights of the same system as {next(iter(shares))}{differ}")
        system = own
        for name, weight in weights.items():
            part = weight.float() * (share / total)
            mixed[name] = mixed[name] + part if name in mixed else part
    target = Path(target)
    last = Path(list(shares)[-1])
    whole = {name: weight.to(torch.bfloat16).contiguous() for name, weight in mixed.items()}
    with saying(target):
        target.mkdir(parents=True, exist_ok=True)
        written = {name for name in _SETTINGS if (last / name).exists()}
        for name in written:
            if (last / name).resolve() != (target / name).resolve():
                with whole_file(target / name) as file:
                    shutil.copyfile(last / name, file)
        write_trained(target, whole, lora)
        remove_others(target, _SETTINGS, written)
    return target


def _system(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What decides what the weights of a folder mean, beside their shapes."""
    read = read_config(folder)
    return {
        "what is seen of an image": _what_is_seen(config),
        "connectors": (read.connector, read.concat_factor, read.concat_order, read.vision_feature_layer, read.vision_norm_eps),
        "adapters": read.lora and lora_form(read.lora),
        "frozen weights": _changed_weights(read),
    }


def _changed_weights(config: MiniGPT4Config) -> tuple[Any, ...]:
    """Where the weights are that those of a folder change."""
    if config.base_source is None:
        return _place(config.vision_source), _place(config.text_source)
    merged = config.base_adapters == "merged"
    if config.base_adapters is None:
        merged = adapters_merged(config, read_config(find_folder(config.base_source)))
    return _place(config.base_source), merged


def _place(source: str | None) -> str | None:
    """A folder by its one full path; other names as they are."""
    folder = FOLDERS.get(str(source), Path(str(source)))
    return str(folder.resolve()) if folder.is_dir() else source


def _what_is_seen(config: dict[str, Any]) -> tuple[Any, ...]:
    """What of a configuration decides what weights mean: the vision encoder, the position channels, which older files have
    in its part, and the tokens of class probabilities."""
    # Some folders write every setting down, others those that are not the usual ones.
    usual = json.loads(PreTrainedConfig().to_json_string(use_diff=False))
    vision = {name: value for name, value in (config.get("vision_config") or {}).items() if value != usual.get(name)}
    for name in ("_name_or_path", "transformers_version", "dtype", "torch_dtype"):
        vision.pop(name, None)
    octaves, scale = vision.pop("coordinates", 0), vision.pop("coordinate_scale", 1.0)
    octaves, scale = (octaves, scale) if octaves else (config.get("position_octaves", 0), config.get("position_scale", 1.0))
    return vision, octaves, scale, config.get("class_tokens", 0), config.get("own_classes", 0)
