"""The connector: what turns the vision encoder's patch tokens into inputs of the projection.

Where the configuration says so (`position_octaves`), each patch token is first joined with sines and cosines of its place: a
convolution sees the same everywhere, and without them the language model is not told where a token lies.

Shapes: B pictures, T vision encoder tokens (class token and registers first, then N = G x G patches in raster order), V the
vision encoder's width (in a connector: with the position channels), K image tokens, W the connector's width.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .configuration import MiniGPT4Config


class PositionChannels(nn.Module):
    """Joins patch tokens with their places: (B, T, V) -> (B, T, V + 4 octaves). It has no parameters, and does nothing for 0
    octaves. Tokens that have no place (class token, registers) get noughts."""

    def __init__(self, config: MiniGPT4Config):
        super().__init__()
        self.grid, self.octaves, self.scale = config.vision_grid, config.position_octaves, config.position_scale

    def forward(self, tokens_BTV: torch.Tensor) -> torch.Tensor:
        if not self.octaves:
            return tokens_BTV
        places_TP = F.pad(self.scale * waves(self.grid, self.octaves), (0, 0, tokens_BTV.shape[1] - self.grid**2, 0))
        places_BTP = places_TP.to(tokens_BTV.device, tokens_BTV.dtype).expand(len(tokens_BTV), -1, -1)
        return torch.cat([tokens_BTV, places_BTP], -1)


def waves(grid: int, octaves: int) -> torch.Tensor:
    """Sines and cosines of the centres of a grid's cells, across and down: (grid x grid, 4 octaves), in raster order."""
    centres = (torch.arange(grid) + 0.5) / grid * math.pi
    across, down = centres.expand(grid, grid), centres[:, None].expand(grid, grid)
    found = [wave(2**k * along) for k in range(octaves) for along in (across, down) for wave in (torch.sin, torch.cos)]
    return torch.stack(found).flatten(1).t()


class ConcatConnector(nn.Module):
    """Join neighbouring patch tokens along their width: (B, T, V) -> (B, N / k, k V). It has no parameters, but for the
    classifier of one's own classes.

    Source: MiniGPT-v2 paper, section 2.1 ("concatenate four adjacent visual tokens"). The published weights join four
    consecutive tokens in raster order, i.e. horizontal strips (``row``); ``square`` joins 2 x 2 patches instead.

    With `class_tokens` c, each list of C class probabilities becomes c tokens before those of the patches, and all are c C
    channels wider: (B, lists c + N / k, k V + c C). In the i-th token of a list its probabilities are the i-th C of these
    channels, and all else is nought, so that the one Linear after this has a vector for each class and i. The first lists are
    those of one's own classes, if there are any.
    """

    def __init__(self, config: MiniGPT4Config):
        super().__init__()
        self.positions = PositionChannels(config)
        self.factor, self.order, self.grid = config.concat_factor, config.concat_order, config.vision_grid
        self.class_tokens, self.classes = config.class_tokens, config.num_classes
        self.own, self.own_lists = None, config.own_lists
        if self.own_lists:
            self.own = nn.Linear(config.vision_config.num_class_features, sum(self.own_lists))

    def forward(self, tokens_BTV: torch.Tensor) -> torch.Tensor:
        patches = self.grid * self.grid
        surplus = tokens_BTV.shape[1] - patches
        if surplus < 0:
            raise ValueError(
                f"the vision encoder gave {tokens_BTV.shape[1]} tokens, fewer than its {self.grid} x {self.grid} patches"
            )
        x_BNV = self.positions(tokens_BTV)[:, surplus:]  # class token and registers carry no place: they are left out
        if self.order == "square":
            side, across = math.isqrt(self.factor), self.grid // math.isqrt(self.factor)
            x_BNV = x_BNV.unflatten(1, (across, side, across, side)).transpose(2, 3)
        x_BKW = x_BNV.reshape(len(x_BNV), patches // self.factor, -1)
        if not self.class_tokens:
            return x_BKW
        lists_BLC = self._class_lists(tokens_BTV[:, :surplus])
        apart = [
            F.pad(lists_BLC, (i * self.classes, (self.class_tokens - 1 - i) * self.classes)) for i in range(self.class_tokens)
        ]
        classes_BKW = torch.stack(apart, 2).flatten(1, 2)
        return torch.cat([F.pad(classes_BKW, (x_BKW.shape[2], 0)), F.pad(x_BKW, (0, classes_BKW.shape[2]))], 1)

    def _class_lists(self, tokens_BTV: torch.Tensor) -> torch.Tensor:
        """Of what comes before the patches, features and lists: (B, lists, all classes)."""
        first = self.classes - sum(self.own_lists)
        lists_BLC = F.pad(tokens_BTV[:, 1:, :first], (0, self.classes - first))
        if self.own is None:
            return lists_BLC
        own, scores_B1C = [], self.own(tokens_BTV[:, :1, : self.own.in_features].to(self.own.weight.dtype)).float()
        for scores in scores_B1C.split(self.own_lists, -1):
            size = scores.shape[-1]
            own.append(F.pad(scores.softmax(-1).to(lists_BLC.dtype), (first, self.classes - first - size)))
            first += size
        return torch.cat([*own, lists_BLC], 1)


class QFormerConnector(nn.Module):
    """Learnt queries read the picture through BLIP-2's Q-Former: (B, T, V) -> (B, queries, W)."""

    def __init__(self, config: MiniGPT4Config):
        from transformers import Blip2QFormerModel  # 50 ms of imports that other connectors need not wait for

        super().__init__()
        self.positions = PositionChannels(config)
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, config.qformer_config.hidden_size))
        self.qformer = Blip2QFormerModel(config.qformer_config)

    def forward(self, tokens_BTV: torch.Tensor) -> torch.Tensor:
        queries = self.query_tokens.expand(len(tokens_BTV), -1, -1)
        return self.qformer(query_embeds=queries, encoder_hidden_states=self.positions(tokens_BTV)).last_hidden_state


CONNECTORS = {"concat": ConcatConnector, "qformer": QFormerConnector}
