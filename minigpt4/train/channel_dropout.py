"""Spatial dropout: in training, each image goes without some channels of the vision encoder."""

import torch
import torch.nn.functional as F
from torch import nn

from ..model.modeling import MiniGPT4ForConditionalGeneration


def drop_channels(model: MiniGPT4ForConditionalGeneration, share: float) -> None:
    """From now on, while `model` is in training mode, what its connector is given lacks this share of the channels, others for
    each image. The channels that tell places (`coordinates` of the vision encoder) are always there."""
    places = 4 * getattr(model.config.vision_config, "coordinates", 0)

    def hook(connector: nn.Module, given: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        return (without_some_channels(given[0], share, places),) if model.training else None

    model.connector.register_forward_pre_hook(hook)


def without_some_channels(tokens_PTV: torch.Tensor, share: float, kept: int = 0) -> torch.Tensor:
    """Images' tokens with a share of their channels at nought, the same ones everywhere in an image, and the others as much
    larger (Tompson et al. 2015, arXiv 1411.4280). The last `kept` channels stay as they are."""
    seen, rest = tokens_PTV.split([tokens_PTV.shape[-1] - kept, kept], -1)
    seen = F.dropout1d(seen.transpose(1, 2), share).transpose(1, 2)
    return torch.cat([seen, rest], -1)
