"""How much arithmetic a step is, and how much this machine can do: for the share of its peak that training reaches."""

import time
from functools import cache

import torch
from torch import nn

from ..data.collate import Batch
from ..model.modeling import MiniGPT4ForConditionalGeneration


@cache  # a pipeline's stages are of one process, and so are a test's many short runs
def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product here, best of five (a fraction of a second, once in a process).

    Large is what takes a fiftieth of a second at least: in a precision that a machine only imitates, a product of the size that
    others need takes minutes.
    """
    size, largest = 256, 8192 if device.type == "cuda" else 2048
    while size < largest and _product_seconds(size, device, dtype, times=2) < 0.02:
        size *= 2
    return 2 * size**3 / _product_seconds(size, device, dtype, times=6)


def _product_seconds(size: int, device: torch.device, dtype: torch.dtype, times: int) -> float:
    """The least time of a product of two square matrices, the first of `times` left out: it warms up."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    taken = []
    for _ in range(times):
        _wait(device)
        begun = time.perf_counter()
        a @ b
        _wait(device)
        taken.append(time.perf_counter() - begun)
    return min(taken[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class StepFlops:
    """Matrix-product FLOPs of training steps of one system, by what is frozen and what is computed.

    A weight costs 2 FLOPs a token forward, 2 for the gradient of its input, and 2 for its own gradient if it is trained.
    The head counts for supervised positions alone; attention's own products for the tokens that are there.
    """

    def __init__(self, model: MiniGPT4ForConditionalGeneration, stage: str):
        self.stage = stage
        head = next(model.get_output_embeddings().parameters())
        self.head = _cost(head)
        embeddings = next(model.get_input_embeddings().parameters())
        self.llm = sum(
            _cost(p) for p in model.language_model.parameters() if p.ndim == 2 and p is not head and p is not embeddings
        )
        text = model.config.get_text_config()
        self.attention = 12 * text.num_hidden_layers * text.hidden_size  # QK and AV, forward and backward, per pair seen
        self.projection = sum(6 * p.numel() - 2 * p.numel() for p in model.projection.parameters() if p.ndim == 2)
        self.image_tokens = model.config.num_image_tokens
        self.vision = 0.0 if stage != "pixel_values" else _vision_flops(model)

    def __call__(self, batch: Batch) -> float:
        """FLOPs of one forward and backward pass over a batch."""
        rows, _ = batch.inputs["input_ids"].shape
        seen = batch.tokens * batch.tokens / max(rows, 1) / 2  # each token sees half of its row on average
        return (
            self.llm * batch.tokens
            + self.head * batch.supervised
            + self.attention * seen
            + self.projection * batch.images * self.image_tokens
            + self.vision * batch.images
        )


def _cost(weight: nn.Parameter | torch.Tensor) -> int:
    return (6 if weight.requires_grad else 4) * weight.numel()


def _vision_flops(model: MiniGPT4ForConditionalGeneration) -> float:
    """FLOPs of the vision encoder and connector for one picture, counted while they look at a grey one; three times where they
    learn."""
    from torch.utils.flop_counter import FlopCounterMode

    size = model.config.image_size
    total = 0.0
    seen = torch.zeros(1, 3, size, size, device=model.device)
    for part, look in ((model.vision_tower, model.get_vision_tokens), (model.connector, model.get_connector_features)):
        with FlopCounterMode(display=False) as counter:
            seen = look(seen).detach()
        learns = any(p.requires_grad for p in part.parameters())
        total += counter.get_total_flops() * (3 if learns else 1)
    return total
