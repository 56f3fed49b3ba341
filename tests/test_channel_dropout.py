"""Spatial dropout: which channels are hidden, and when."""

import pytest
import torch

from minigpt4.train.channel_dropout import drop_channels, without_some_channels


def test_in_training_an_image_goes_without_some_channels_everywhere():
    torch.manual_seed(0)
    tokens = torch.rand(40, 6, 50) + 1
    seen = without_some_channels(tokens, 0.25)
    gone = seen == 0
    assert torch.equal(gone, gone[:, :1].expand_as(gone))
    assert not torch.equal(gone[0], gone[1])
    assert gone.float().mean() == pytest.approx(0.25, abs=0.03)
    torch.testing.assert_close(seen[~gone], tokens[~gone] / 0.75)


def test_channels_are_hidden_in_training_alone(model):
    pixels = torch.randn(2, 3, model.config.image_size, model.config.image_size)
    expected = model.get_image_features(pixels)
    drop_channels(model, 0.5)
    assert torch.equal(model.get_image_features(pixels), expected)
    tokens = model.get_vision_tokens(pixels)
    model.train()
    assert not torch.allclose(model.get_image_features(vision_tokens=tokens), expected)
    assert torch.equal(model.get_vision_tokens(pixels), tokens)
