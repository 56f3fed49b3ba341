"""The sizes of a published system, read from its files, and what was mixed up when they do not go together."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import Blip2QFormerConfig, Blip2VisionConfig

from ...errors import UserError
from .files import TorchFile, Weights

CONCAT = 4  # neighbouring patch tokens that the systems without a Q-Former join
VISION_WIDTH, VISION_DEPTH = 1408, 39  # EVA ViT-g: 40 blocks in the file, the last of which is not used
HEAD_WIDTH = {"vision": 88, "qformer": 64}
NORM_EPS = 1e-5  # of the norm after the vision encoder
LLMS = {4096: "7B", 5120: "13B"}
LORA_ALPHA, LORA_DROPOUT = 16, 0.05  # published; neither is stored in the released files


@dataclass(frozen=True)
class Kind:
    """One published family of systems."""

    name: str
    template: str
    connector: str
    image_size: int
    lora: bool
    max_new_tokens: int
    repetition_penalty: float


KINDS = {
    kind.name: kind
    for kind in (
        Kind("minigpt4-vicuna", "vicuna-v0", "qformer", 224, False, 300, 1.05),
        Kind("minigpt4-llama2", "llama-2", "concat", 224, False, 300, 1.05),
        Kind("minigptv2", "minigpt-v2", "concat", 448, True, 500, 1.0),
    )
}


def vision_depth(blocks: int, width: int) -> int:
    """How many of a file's blocks are used: all but the last, unless it has been taken out of the file already."""
    return blocks if (width, blocks) == (VISION_WIDTH, VISION_DEPTH) else blocks - 1


def vision_config(weights: Weights, image_size: int, heads: int | None) -> Blip2VisionConfig:
    """The vision encoder's configuration, from ``eva_vit_g.pth``; `heads` where they are not of the released vision encoder's
    width."""
    names = set(weights.names())
    if not {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"} <= names:
        raise UserError(f"{weights.file}: not the vision encoder (eva_vit_g.pth): {looks_like(weights)}")
    width = weights.shape("cls_token")[-1]
    blocks = 1 + max(int(m[1]) for m in map(re.compile(r"blocks\.(\d+)\.").match, names) if m)
    patch = weights.shape("patch_embed.proj.weight")[-1]
    if image_size % patch:
        raise UserError(f"image size {image_size} is not a multiple of the vision encoder's patches of {patch} pixels")
    return Blip2VisionConfig(
        hidden_size=width,
        intermediate_size=weights.shape("blocks.0.mlp.fc1.weight")[0],
        num_hidden_layers=vision_depth(blocks, width),
        num_attention_heads=_heads(weights, width, heads, "vision", "--vit-heads"),
        image_size=image_size,
        patch_size=patch,
    )


def qformer_config(weights: Weights, bert: dict[str, Any]) -> tuple[Blip2QFormerConfig, int]:
    """The Q-Former's configuration and its number of queries, from BLIP-2's file; `bert` is a BERT config.json."""
    names = set(weights.names())
    first = "Qformer.bert.encoder.layer.0."
    needed = {"query_tokens", f"{first}intermediate_query.dense.weight", f"{first}crossattention.self.key.weight"}
    if not needed <= names:
        raise UserError(f"{weights.file}: not BLIP-2's file with the Q-Former: {looks_like(weights)}")
    layers = {int(m[1]) for m in map(re.compile(r"Qformer\.bert\.encoder\.layer\.(\d+)\.").match, names) if m}
    crossed = [i for i in sorted(layers) if f"Qformer.bert.encoder.layer.{i}.crossattention.self.key.weight" in names]
    frequency = crossed[1] if len(crossed) > 1 else len(layers)
    if crossed != list(range(0, len(layers), frequency)):
        raise UserError(f"{weights.file}: its Q-Former reads the picture in layers {crossed}, which follow no fixed step")
    _, queries, width = weights.shape("query_tokens")
    config = Blip2QFormerConfig(
        hidden_size=width,
        num_hidden_layers=len(layers),
        num_attention_heads=_heads(weights, width, bert.get("num_attention_heads"), "qformer", "--qformer-config"),
        intermediate_size=weights.shape(f"{first}intermediate_query.dense.weight")[0],
        encoder_hidden_size=weights.shape(f"{first}crossattention.self.key.weight")[1],
        cross_attention_frequency=frequency,
        **{k: bert[k] for k in ("hidden_act", "layer_norm_eps") if k in bert},
    )
    return config, queries


def bert_settings(file: Path | None, qformer: Path) -> dict[str, Any]:
    """The BERT configuration of a Q-Former that is not of the released size: named, or beside its file."""
    beside = qformer.with_name("bert_config.json")
    file = beside if file is None and beside.exists() else file
    if file is None:
        return {}
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file}: not a BERT config.json ({error})") from error


def lora_config(checkpoint: TorchFile, adapters: Iterable[str]) -> dict[str, Any]:
    """The adapters' description, from their names (ours) and shapes."""
    named = sorted(adapters)
    targets = {name.partition(".lora_")[0].rpartition(".")[2] for name in named}
    rank = min(min(checkpoint.shape(name)) for name in checkpoint.names() if ".lora_A." in name)
    alpha = _official_setting(checkpoint, "lora_alpha") or LORA_ALPHA
    return {"r": rank, "alpha": alpha, "dropout": LORA_DROPOUT, "target_modules": sorted(targets)}


def recognise(checkpoint: TorchFile, vision_width: int, wanted: str | None, qformer: Path | None) -> Kind:
    """Which family a checkpoint is of, by what it holds.

    Raises:
        UserError: it is not a checkpoint of this family, not of the kind that is wanted, or does not go with the other files.
    """
    file, names = checkpoint.file, checkpoint.names()
    if "llama_proj.weight" not in names:
        raise UserError(f"{file}: not a checkpoint of MiniGPT-4 or v2 (no llama_proj.weight): {looks_like(checkpoint)}")
    width = checkpoint.shape("llama_proj.weight")[1]
    adapters = [n for n in names if ".lora_" in n]
    is_v2 = bool(adapters) or any("base_model" in n for n in names)
    is_v2 = is_v2 or _official_setting(checkpoint, "arch") == "minigpt_v2"
    joined = width == CONCAT * vision_width
    found = "minigptv2" if is_v2 else "minigpt4-llama2" if joined else "minigpt4-vicuna"
    why = (
        "it has adapters (LoRA)" if adapters else "it was written by v2"
        if is_v2
        else f"its projection takes {width} = {CONCAT} x {vision_width} numbers, joined patch tokens"
        if joined
        else f"its projection takes {width} numbers, not {CONCAT} x {vision_width}: those of a Q-Former"
    )  # fmt: skip
    if wanted is not None and wanted not in KINDS:
        raise UserError(f"unknown kind {wanted!r}; there are {', '.join(KINDS)}")
    if wanted == "minigptv2" and not is_v2:
        raise UserError(
            f"{file}: has no adapters (LoRA), which MiniGPT-v2 has; without them it would not see. "
            f"This is a checkpoint of {found}, or its adapters were lost"
        )
    if wanted not in (None, found):
        raise UserError(f"{file}: a checkpoint of {found}, not of {wanted}: {why}")
    if is_v2 and not adapters:
        raise UserError(f"{file}: written by MiniGPT-v2, but its adapters (LoRA) were lost; without them it would not see")
    if found == "minigpt4-vicuna" and qformer is None:
        raise UserError(f"{file}: {why}; give BLIP-2's file with --qformer (blip2_pretrained_flant5xxl.pth)")
    if found != "minigpt4-vicuna" and qformer is not None:
        raise UserError(f"{qformer}: a Q-Former does not go with {file.name} ({found}): {why}")
    return KINDS[found]


def check_projection(checkpoint: TorchFile, connector_width: int, llm_width: int, llm: Path) -> None:
    """That the projection leads from this connector to this language model."""
    out, width = checkpoint.shape("llama_proj.weight")
    if width != connector_width:
        raise UserError(
            f"{checkpoint.file}: its projection takes {width} numbers, but these files give {connector_width} "
            "(the projection of a system with a Q-Former, or of one without, or another vision encoder)"
        )
    if out != llm_width:
        raise UserError(
            f"{checkpoint.file}: its projection leads to a language model of width {out}{called(out)}, "
            f"but {llm} is of width {llm_width}{called(llm_width)}"
        )


def looks_like(weights: Weights) -> str:
    """What a file seems to be, for messages."""
    names = weights.names()
    for mark, what in (
        ("llama_proj.", "it looks like a training checkpoint (--checkpoint)"),
        ("Qformer.", "it looks like BLIP-2's file (--qformer)"),
        ("blocks.", "it looks like the vision encoder (--vit)"),
        ("model.layers.", "it looks like a language model (--llm)"),
        ("visual_encoder.", "it looks like a whole BLIP-2 model"),
    ):
        if any(name.startswith(mark) for name in names):
            return what
    return f"its tensors are called {', '.join(names[:3])}, ..."


def _heads(weights: Weights, width: int, given: int | None, part: str, option: str) -> int:
    each = HEAD_WIDTH[part]
    if given is None and width % each:
        raise UserError(f"{weights.file}: of width {width}, not the released one's; say how many heads it has with {option}")
    heads = width // each if given is None else given
    if width % heads:
        raise UserError(f"{weights.file}: a width of {width} cannot be divided among {heads} heads")
    return heads


def called(width: int) -> str:
    """What a language model of that width is usually called, in brackets; nothing if it has no such name."""
    return f" ({LLMS[width]})" if width in LLMS else ""


def _official_setting(checkpoint: TorchFile, name: str) -> Any:
    """A setting of the model in the configuration that the published runner stores beside the weights."""
    config = checkpoint.extra.get("config")
    model = config.get("model") if isinstance(config, dict) else None
    return model.get(name) if isinstance(model, dict) else None
