"""Several examples in one row, and several answers to one prompt, without any seeing another.

A packed row holds examples one after the other; inside an example, tokens of branch 0 are shared (the picture and the
question), and every other branch is one continuation of them (an answer). A token sees what came before it in its own
branch and in the shared part of its own example:

    example   0 0 0 0 0 0 0 1 1 1 1 -          (- is padding, example -1)
    branch    0 0 0 1 1 2 2 0 0 1 1 -
    position  0 1 2 3 4 3 4 0 1 2 3 0

The last token of the shared part is repeated at the head of each branch, so that every answer's first token is
predicted, as usual, from the position before it.
"""

import torch


def packed_attention_mask(example_ids: torch.Tensor, branch_ids: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """Additive mask (B, 1, S, S) for packed rows: 0 where a token may look, the smallest number of `dtype` elsewhere.

    Args:
        example_ids: (B, S), -1 for padding. Padding sees itself, so that no row of the softmax is empty.
        branch_ids: (B, S), 0 for what all branches of an example share; ``None`` when no example branches.
    """
    same = example_ids[:, :, None] == example_ids[:, None, :]
    if branch_ids is not None:
        same &= (branch_ids[:, :, None] == branch_ids[:, None, :]) | (branch_ids[:, None, :] == 0)
    allowed_BSS = torch.tril(same)
    mask = torch.zeros(allowed_BSS.shape, dtype=dtype, device=example_ids.device)
    return mask.masked_fill_(~allowed_BSS, torch.finfo(dtype).min).unsqueeze(1)
