"""Spatial dropout: in training, each image goes without some channels of the vision encoder."""

import torch
import torch.nn.functional as F
from torch import nn

from ..model.modeling import MiniGPT4ForConditionalGeneration


def drop_channels(model: MiniGPT4ForConditionalGeneration, share: float) -> None:
    """From now on, while `model` is in training mode, what its connector is given lacks this share of the channels, others for
    each image. The channels that tell places, which the connector adds, are always there; so are class probabilities, and the
    features before them."""
    first = 1 + model.config.vision_config.num_class_lists if model.config.class_tokens else 0

    def hook(connector: nn.Module, given: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        if not model.training:
            return None
        return (torch.cat([given[0][:, :first], without_some_channels(given[0][:, first:], share)], 1),)

    model.connector.register_forward_pre_hook(hook)


def without_some_channels(tokens_PTV: torch.Tensor, share: float) -> torch.Tensor:
    """Images' tokens with a share of their channels at nought, the same ones everywhere in an image, and the others as much
    larger (Tompson et al. 2015, arXiv 1411.4280)."""
    return F.dropout1d(tokens_PTV.transpose(1, 2), share).transpose(1, 2)
