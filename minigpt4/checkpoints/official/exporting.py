"""What was trained, out again in the published layout: a ``.pth`` that the published code loads as its ``ckpt``."""

import os
from pathlib import Path

import torch

from ...errors import UserError
from ...io.atomic import saying, whole_file
from ...model.configuration import MiniGPT4Config
from ..folders import TRAINED, find_folder, read_config
from ..loading import adapters_merged
from ..trained import read_trained
from .files import weights_of_folder
from .keys import official_name
from .sizes import CONCAT


def export_official(source: str | os.PathLike, output: str | os.PathLike, *, qformer: bool = False) -> list[str]:
    """Write the projection and the adapters of a system as a published training checkpoint.

    Args:
        source: a folder of either kind, or a hub id. Tensors are taken from its files as they are, not converted.
        output: the ``.pth`` to write.
        qformer: the Q-Former and its queries as well, for one that was trained further (published: frozen).

    Returns:
        The names written.

    Raises:
        UserError: a system that the published code cannot express, or one without what should be written.
    """
    folder, output = find_folder(source), Path(output)
    config = read_config(folder)
    _check(folder, config, qformer)
    if (folder / TRAINED).exists():
        stored = read_trained(folder)
    else:
        wanted = ("projection.", "connector.")
        stored = {
            name: file.tensor(name)
            for file in weights_of_folder(folder)
            for name in file.names()
            if name.startswith(wanted) or ".lora_" in name
        }
    weights = {}
    for name in sorted(stored, key=lambda name: (not name.startswith("language_model."), name)):
        if name.startswith("connector.") and not qformer:
            continue
        official = official_name(name)
        if official is None:
            raise UserError(f"{folder}: {name} was trained, and published checkpoints have no place for it")
        weights[official] = stored[name].contiguous()
    if "llama_proj.weight" not in weights:
        raise UserError(f"{folder}: has no projection to export")
    with saying(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(output) as part:
            torch.save({"model": weights}, part)
    return list(weights)


def _check(folder: Path, config: MiniGPT4Config, qformer: bool) -> None:
    """That the published code could build this system around the checkpoint."""
    problems = {
        f"its projection has {config.projection_depth} layers": config.projection_depth != 1,
        f"it joins {config.concat_factor} patches ({config.concat_order})": config.connector == "concat"
        and (config.concat_factor, config.concat_order) != (CONCAT, "row"),
        f"its vision encoder is a {config.vision_config.model_type}": config.vision_config.model_type != "blip_2_vision_model",
        f"its language model is a {config.text_config.model_type}": config.text_config.model_type != "llama",
        "it has no Q-Former": qformer and config.connector != "qformer",
        "adapters of an earlier stage are part of its language model": _merged_before(config),
    }
    for what, wrong in problems.items():
        if wrong:
            raise UserError(f"{folder}: cannot be written as a published checkpoint: {what}")


def _merged_before(config: MiniGPT4Config) -> bool:
    if config.base_source is None:
        return False
    before = read_config(find_folder(config.base_source))
    return adapters_merged(config, before) or _merged_before(before)
