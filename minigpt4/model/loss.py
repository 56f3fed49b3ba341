"""Cross-entropy through a frozen LM head, without ever holding all its logits.

With a vocabulary of 50,000 to 150,000, logits and their gradient are the largest tensors of a training step, and a frozen
head needs neither afterwards. Here they exist for a few rows at a time; the gradient of the hidden states is computed on
the way forward, so the backward pass is a scaling. (The idea is known from Cut Cross-Entropy and Liger Kernel.)
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

_ROWS = 256  # logits of this many positions at a time: 50 MB at 49,152 words in float32

_PLAIN_HEADS = frozenset(["llama", "mistral", "qwen2", "qwen3", "gpt2", "phi3", "smollm3", "olmo2", "gpt_neox", "opt"])
"""Language models whose logits are the head's product and nothing more (no soft caps, no scales)."""


def has_plain_frozen_head(language_model: Any) -> bool:
    """Whether `frozen_head_cross_entropy` computes what this language model's own head and a cross-entropy would."""
    head = language_model.get_output_embeddings()
    return (
        language_model.config.get_text_config().model_type in _PLAIN_HEADS
        and type(head) is nn.Linear
        and head.bias is None
        and not head.weight.requires_grad
    )


def frozen_head_cross_entropy(
    hidden_NH: torch.Tensor, weight_VH: torch.Tensor, targets_N: torch.Tensor, factors_N: torch.Tensor | None = None
) -> torch.Tensor:
    """Sum over rows of the negative log likelihood of `targets_N` under ``softmax(hidden weight^T)``, each row times its
    factor if there are any."""
    return _FrozenHead.apply(hidden_NH.to(weight_VH.dtype), weight_VH, targets_N, factors_N)


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_NH, weight_VH, targets_N, factors_N):
        gradient_NH = torch.empty_like(hidden_NH)
        total = torch.zeros((), dtype=torch.float32, device=hidden_NH.device)
        for rows in range(0, len(hidden_NH), _ROWS):
            chunk = slice(rows, rows + _ROWS)
            logits_RV = F.linear(hidden_NH[chunk], weight_VH).float()
            targets_R1 = targets_N[chunk, None]
            log_sum_R1 = torch.logsumexp(logits_RV, -1, keepdim=True)
            loss_R1 = log_sum_R1 - logits_RV.gather(1, targets_R1)
            total += (loss_R1 if factors_N is None else loss_R1 * factors_N[chunk, None]).sum()
            softmax_RV = logits_RV.sub_(log_sum_R1).exp_()
            softmax_RV.scatter_add_(1, targets_R1, torch.full_like(targets_R1, -1, dtype=torch.float32))
            gradient_NH[chunk] = softmax_RV.to(weight_VH.dtype) @ weight_VH
            if factors_N is not None:
                gradient_NH[chunk] *= factors_N[chunk, None].to(gradient_NH.dtype)
        ctx.save_for_backward(gradient_NH)
        return total

    @staticmethod
    def backward(ctx, gradient):
        (gradient_NH,) = ctx.saved_tensors
        return gradient_NH * gradient.to(gradient_NH.dtype), None, None, None
