"""Plain attention in which query heads that share a key head are multiplied with it at once.

The library's plain attention first copies keys and values once for each query head that reads them, which costs a CPU a tenth
of a training step. Selected by name, like the library's own.
"""

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.masking_utils import eager_mask

GROUPED = "grouped"
_PLAIN = {"llama", "mistral", "qwen2", "qwen3", "smollm3", "granite", "olmo2"}
"""Minds (``model_type``) whose attention is this one: no caps on scores, sinks or biases between them."""


def plain_attention(config: PreTrainedConfig) -> str:
    """Which of the plain implementations is for a mind: this one, or the library's own of its kind."""
    return GROUPED if config.model_type in _PLAIN else "eager"


def grouped_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(Q K^T + mask) V, as the library's ``eager`` has it, softmax in float32.

    Args:
        query: (B, heads, Q, D).
        key, value: (B, key heads, S, D); each serves heads / key heads consecutive query heads.
        attention_mask: additive, (B or 1, 1, Q, S).

    Returns:
        (B, Q, heads, D), and the weights (B, heads, Q, S).
    """
    rows, heads, asking, width = query.shape
    shared = key.shape[1]
    together = query.reshape(rows, shared, heads // shared * asking, width) * scaling
    scores = (together @ key.transpose(2, 3)).view(rows, heads, asking, -1)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    out = weights.view(rows, shared, heads // shared * asking, -1) @ value
    return out.view(rows, heads, asking, width).transpose(1, 2).contiguous(), weights


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, eager_mask)
