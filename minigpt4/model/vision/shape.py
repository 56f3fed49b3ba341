"""What a vision encoder gives for an image: how many tokens a side, and how wide they are."""

import functools
import math
from typing import Any

import torch
from transformers import PreTrainedConfig

_SHRINKING = ("depths", "hidden_sizes", "embed_dims")
"""Settings of encoders whose feature maps shrink on the way (ConvNeXt, Swin, ResNet, ...): the last one is what counts."""
_MOST_SURPLUS = 5


def grid_and_width(config: PreTrainedConfig) -> tuple[int, int]:
    """Tokens along one side of the square image, and channels of a token.

    Raises:
        ValueError: a model that takes no images, or that does not end in a square grid of tokens.
    """
    size, patch, width = (getattr(config, name, None) for name in ("image_size", "patch_size", "hidden_size"))
    plain = all(isinstance(value, int) for value in (size, patch, width))
    if plain and not any(getattr(config, name, None) for name in _SHRINKING):
        return size // patch, width  # type: ignore[operator, return-value]
    return _measured(type(config), config.to_json_string(use_diff=False))  # type: ignore[arg-type]


@functools.lru_cache(maxsize=64)
def _measured(kind: type[PreTrainedConfig], written: str) -> tuple[int, int]:
    """From the shape of what the encoder gives, which is worked out without weights."""
    import json

    from transformers import AutoModel

    config = kind(**json.loads(written))
    try:
        with torch.device("meta"), torch.no_grad():
            model: Any = AutoModel.from_config(config)
            if model.main_input_name != "pixel_values":
                raise ValueError("it takes no images")
            side = config.image_size
            shape = model(torch.empty(1, getattr(config, "num_channels", 3), side, side)).last_hidden_state.shape
        rows, columns, width = (*shape[2:], shape[1]) if len(shape) == 4 else (*[math.isqrt(shape[1])] * 2, shape[2])
        surplus = shape[1] - rows * columns if len(shape) == 3 else 0  # a class token, registers
        if rows != columns or surplus > _MOST_SURPLUS:
            raise ValueError(f"it ends in {tuple(shape)}, which is no square grid of tokens")
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"a {config.model_type} model of image_size {config.image_size} is no vision encoder: {said}"
        ) from error
    return rows, width
