"""Names of weights in the published files, and where each belongs.

Sources: the names are those of the released files (EVA ViT-g and BLIP-2 as LAVIS stores them, MiniGPT-4's and
MiniGPT-v2's training checkpoints); ours are those of `MiniGPT4ForConditionalGeneration`. `Place` says where a published
tensor goes; `Unneeded` that it is known and why nothing wants it.
"""

import re
from dataclasses import dataclass

VISION = "vision_tower."
LLM = "language_model."


@dataclass(frozen=True)
class Place:
    """A weight of ours, and which part of it the published tensor is."""

    name: str
    part: str = ""
    """``"q"`` or ``"v"`` for the two published thirds of a qkv bias; the key's third is zero."""


@dataclass(frozen=True)
class Unneeded:
    """Known, and nothing wants it."""

    why: str


_VISION = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
}
_VISION_BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_VISION_HEADS = ("head.", "fc_norm.", "norm.", "lm_head.", "mask_token")

_QFORMER_LAYER = re.compile(r"Qformer\.bert\.encoder\.layer\.(\d+)\.(.+)")
_QFORMER_TEXT = re.compile(r"(intermediate|output)\.(dense|LayerNorm)\.")
_ADAPTER = re.compile(r"llama_model\.base_model\.model\.(.+)\.lora_([AB])\.(?:default\.)?weight")
_BUFFERS = (".rotary_emb.inv_freq", ".position_ids")


def vision_place(name: str, depth: int) -> Place | Unneeded | None:
    """Where a tensor of ``eva_vit_g.pth`` goes, when the first `depth` blocks are used."""
    if name in _VISION:
        return Place(VISION + _VISION[name])
    if name.startswith(_VISION_HEADS):
        return Unneeded("heads of the vision encoder's own training")
    if not (match := _BLOCK.fullmatch(name)):
        return None
    number, rest = int(match[1]), match[2]
    module, _, leaf = rest.rpartition(".")
    target = f"{VISION}encoder.layers.{number}."
    if rest in ("attn.q_bias", "attn.v_bias"):
        place = Place(f"{target}self_attn.qkv.bias", rest[5])
    elif module in _VISION_BLOCK and leaf in ("weight", "bias") and rest != "attn.qkv.bias":
        place = Place(f"{target}{_VISION_BLOCK[module]}.{leaf}")
    else:
        return None
    return Unneeded("the vision encoder's last block, whose output is not used") if number >= depth else place


def connector_place(name: str) -> Place | Unneeded | None:
    """Where a tensor of BLIP-2's file goes: Q-Former, its queries, and the norm after the vision encoder."""
    if name == "query_tokens":
        return Place("connector.query_tokens")
    if name in ("ln_vision.weight", "ln_vision.bias"):
        return Place(f"{VISION}post_layernorm.{name.rpartition('.')[2]}")
    if name.endswith(_BUFFERS):
        return Unneeded("buffers that are computed, not learnt")
    if name.startswith("Qformer.bert.embeddings.LayerNorm."):
        return Place(f"connector.qformer.layernorm.{name.rpartition('.')[2]}")
    if match := _QFORMER_LAYER.fullmatch(name):
        if _QFORMER_TEXT.match(match[2]):
            return Unneeded("the Q-Former's half for text")
        rest = re.sub(r"^(attention|crossattention)\.self\.", r"\1.attention.", match[2])
        return Place(f"connector.qformer.encoder.layer.{match[1]}.{rest}")
    if name.startswith(("Qformer.bert.embeddings.", "Qformer.cls.")):
        return Unneeded("the Q-Former's half for text")
    if name.startswith(("t5_proj.", "opt_proj.", "vision_proj.", "text_proj.", "itm_head.", "temp")):
        return Unneeded("BLIP-2's own projections")
    if name.startswith("visual_encoder."):
        return Unneeded("BLIP-2's copy of the vision encoder, which comes from its own file")
    return None


def checkpoint_place(name: str, depth: int) -> Place | Unneeded | None:
    """Where a tensor of a training checkpoint goes: projection, adapters, and whatever else was trained."""
    if name in ("llama_proj.weight", "llama_proj.bias"):
        return Place(f"projection.{name.rpartition('.')[2]}")
    if match := _ADAPTER.fullmatch(name):
        return Place(f"{LLM}{match[1]}.lora_{match[2]}.default.weight")
    if name.endswith(_BUFFERS):
        return Unneeded("buffers that are computed, not learnt")
    if name.startswith("visual_encoder."):
        return vision_place(name.removeprefix("visual_encoder."), depth)
    return connector_place(name) if name.startswith(("Qformer.", "query_tokens", "ln_vision.")) else None


def llm_place(name: str) -> Place | Unneeded | None:
    """Where a tensor of the language model's folder goes."""
    if name.endswith(_BUFFERS):
        return Unneeded("buffers that are computed, not learnt")
    return Place(LLM + name)


def official_name(name: str) -> str | None:
    """The name in a training checkpoint of a weight of ours, or none for what those never hold (the language model's own
    weights)."""
    if name.startswith("projection."):
        return "llama_proj." + name.removeprefix("projection.")
    if match := re.fullmatch(r"language_model\.(.+)\.lora_([AB])\.(?:default\.)?weight", name):
        return f"llama_model.base_model.model.{match[1]}.lora_{match[2]}.weight"
    if name == "connector.query_tokens":
        return "query_tokens"
    if name.startswith("connector.qformer.layernorm."):
        return "Qformer.bert.embeddings.LayerNorm." + name.rpartition(".")[2]
    if match := re.fullmatch(r"connector\.qformer\.encoder\.layer\.(\d+)\.(.+)", name):
        rest = re.sub(r"^(attention|crossattention)\.attention\.", r"\1.self.", match[2])
        return f"Qformer.bert.encoder.layer.{match[1]}.{rest}"
    return None
