"""The files of a trained folder that hold weights: what training changed, and nothing of what it left as it was.

    trained.safetensors        projection.*, and if trained: connector.*, vision_tower.*, language_model.*
    adapter_model.safetensors  the language model's adapters, if it has any, under the names of `peft`
    adapter_config.json        what `peft` wants to know of them

So ``peft.PeftModel.from_pretrained(language_model, folder)`` takes the adapters as well. Folders of earlier versions have them
in trained.safetensors, as ``language_model.<module>.lora_{A,B}.weight``, which is also how they are called here.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ..errors import UserError
from ..io.atomic import write_text
from .folders import TASK_SETTINGS, TRAINED, in_one_line

ADAPTERS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
LORA = ".lora_"
LANGUAGE_MODEL = "language_model."
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
"""The files of a tokenizer, where a trained folder has its own."""
NOT_IN_ALL = (ADAPTERS, ADAPTER_CONFIG, TASK_SETTINGS, "generation_config.json", *TOKENIZER_FILES)
"""Files that a trained folder may have and need not. One that an earlier system left there would be taken for the new one's."""
_PEFT = "base_model.model."


def read_trained(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a trained folder, by name.

    Raises:
        UserError: a file that is damaged, or that holds something else.
    """
    weights = read_tensors(folder / TRAINED)
    if (folder / ADAPTERS).exists():
        adapters = read_tensors(folder / ADAPTERS)
        if other := [name for name in adapters if not (name.startswith(_PEFT) and LORA in name)]:
            raise UserError(f"{folder / ADAPTERS}: {other[0]} is not the name of an adapter's weight, as peft writes it")
        weights |= {LANGUAGE_MODEL + name.removeprefix(_PEFT): tensor for name, tensor in adapters.items()}
    return weights


def write_trained(
    folder: Path, weights: Mapping[str, torch.Tensor], lora: Mapping[str, Any] | None, base: str | None = None
) -> None:
    """Write the weights of a trained folder. Adapters that lie there and are not among them are removed.

    Args:
        lora: of the adapters among `weights`, as in ``MiniGPT4Config.lora``.
        base: the hub id of the language model that the adapters are for, if it has one.
    """
    adapters = {name: tensor for name, tensor in weights.items() if name.startswith(LANGUAGE_MODEL) and LORA in name}
    others = {name: tensor for name, tensor in weights.items() if name not in adapters}
    if adapters and lora:
        stored = {_PEFT + name.removeprefix(LANGUAGE_MODEL): tensor for name, tensor in adapters.items()}
        save_file(stored, folder / ADAPTERS, metadata={"format": "pt"})
        about = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "inference_mode": True,
            "r": lora["r"],
            "lora_alpha": lora["alpha"],
            "lora_dropout": lora.get("dropout", 0.0),
            "target_modules": sorted(lora["target_modules"]),
            "bias": "none",
        }
        write_text(folder / ADAPTER_CONFIG, json.dumps(about, indent=2) + "\n")
    save_file(others, folder / TRAINED, metadata={"format": "pt"})
    if not (adapters and lora):
        remove_others(folder, (ADAPTERS, ADAPTER_CONFIG), ())


def remove_others(folder: Path, names: Collection[str], written: Collection[str]) -> None:
    """Remove files of these names that were not written this time. Raises OSError."""
    for name in names:
        if name not in written:
            (folder / name).unlink(missing_ok=True)


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """A safetensors file, whole.

    Raises:
        UserError: it is damaged.
    """
    try:
        return load_file(file)
    except Exception as error:  # safetensors raises its own kinds, without a common base
        raise UserError(f"{file}: damaged or cut short ({in_one_line(error)})") from error
