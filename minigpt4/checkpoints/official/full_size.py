"""The released systems by name, at full size: their configurations, and how large they are.

Sources: the released files and their configurations (EVA ViT-g, BLIP-2's Q-Former, Vicuna v0 and Llama-2).
"""

import torch
from transformers import Blip2QFormerConfig, Blip2VisionConfig, LlamaConfig

from ...errors import UserError
from ...model.configuration import MiniGPT4Config
from ...model.modeling import MiniGPT4ForConditionalGeneration
from .sizes import KINDS, LORA_ALPHA, LORA_DROPOUT, NORM_EPS

LORA = {"r": 64, "alpha": LORA_ALPHA, "dropout": LORA_DROPOUT, "target_modules": ["q_proj", "v_proj"]}


def full_size(name: str) -> MiniGPT4Config:
    """The configuration of a released system, by its name in `SYSTEMS`."""
    if name not in SYSTEMS:
        raise UserError(f"unknown system {name!r}; there are {', '.join(SYSTEMS)}")
    kind_name, llm = SYSTEMS[name]
    kind = KINDS[kind_name]
    return MiniGPT4Config(
        vision_config=Blip2VisionConfig(image_size=kind.image_size),
        text_config=LlamaConfig(**_LLMS[llm]),
        connector=kind.connector,
        qformer_config=Blip2QFormerConfig() if kind.connector == "qformer" else None,
        lora=dict(LORA) if kind.lora else None,
        vision_norm_eps=NORM_EPS,
    )


def count_parameters(config: MiniGPT4Config) -> dict[str, int]:
    """Parameters by part, counted as in the published files, without making any.

    The vision encoder's count leaves out the keys' biases, which are zeros there and no parameters; ``norm`` is the norm after
    the vision encoder.
    """
    plain = MiniGPT4Config.from_dict(config.to_dict() | {"lora": None})
    with torch.device("meta"):
        model = MiniGPT4ForConditionalGeneration(plain)
    vision = model.config.vision_config
    norm = sum(p.numel() for p in model.vision_tower.post_layernorm.parameters())
    keys = vision.hidden_size * vision.num_hidden_layers
    counts = {
        "vision": sum(p.numel() for p in model.vision_tower.parameters()) - norm - keys,
        "norm": norm,
        "connector": sum(p.numel() for p in model.connector.parameters()),
        "projection": sum(p.numel() for p in model.projection.parameters()),
        "llm": sum(p.numel() for p in model.language_model.parameters()),
        "adapters": 0,
    }
    if config.lora is not None:
        for name, module in model.language_model.named_modules():
            if name.rpartition(".")[2] in config.lora["target_modules"]:
                counts["adapters"] += config.lora["r"] * sum(module.weight.shape)
    counts["trained"] = counts["projection"] + counts["adapters"]
    return counts


def memory(config: MiniGPT4Config, dtype: torch.dtype, tokens: int, llm_bits: int | None = None) -> dict[str, int]:
    """Bytes that answering takes at least: the weights, and keys and values of a conversation.

    Args:
        tokens: of the conversation, its pictures' included, and its answer.
        llm_bits: 8 or 4 for a language model whose layers are stored in so many bits; its embeddings and head are not.
    """
    counts, text = count_parameters(config), config.text_config
    rest = 2 * text.vocab_size * text.hidden_size
    layers = counts["llm"] - rest
    vision_side = sum(counts[part] for part in ("vision", "norm", "connector", "projection"))
    weights = dtype.itemsize * (vision_side + rest) + layers * (llm_bits or 8 * dtype.itemsize) // 8
    heads = text.num_key_value_heads or text.num_attention_heads
    cache = 2 * dtype.itemsize * text.num_hidden_layers * heads * (text.hidden_size // text.num_attention_heads) * tokens
    return {"weights": weights, "cache": cache}


_LLAMA = {"vocab_size": 32000, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": False}
_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
_13B = {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40}
_LLMS = {
    "vicuna-7b": _LLAMA | _7B | {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6},
    "vicuna-13b": _LLAMA | _13B | {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6},
    "llama-2-7b": _LLAMA | _7B | {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
}
SYSTEMS = {
    "minigpt4-vicuna-7b": ("minigpt4-vicuna", "vicuna-7b"),
    "minigpt4-vicuna-13b": ("minigpt4-vicuna", "vicuna-13b"),
    "minigpt4-llama2-7b": ("minigpt4-llama2", "llama-2-7b"),
    "minigptv2-7b": ("minigptv2", "llama-2-7b"),
}
