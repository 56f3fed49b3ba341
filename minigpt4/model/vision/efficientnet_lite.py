"""EfficientNet-Lite as a `transformers` vision tower: the pocket model's vision encoder.

Architecture: Tan & Le 2019 (arXiv 1905.11946), table 1, in the "Lite" form published with TensorFlow's TPU models:
no squeeze-and-excitation, ReLU6 everywhere, stem and head not scaled by the width multiplier, first and last stage
not repeated by the depth multiplier. Convolutions pad as TensorFlow's ``SAME`` does: any surplus goes right and down.

It may give what its ImageNet classifier says of the image as well (`EfficientNetLiteConfig.class_grids`). The classifier has
the last blocks for itself, so that it stays what it was while those of the patches are trained.

Parameter names follow the PyTorch checkpoints that circulate under ``efficientnet-lite*-*.pth`` (without their leading
underscores), so `convert_state_dict` renames, and copies the last blocks for the classifier.
"""

import math
import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

# Table 1 of the paper: expansion, channels, repeats, stride, kernel; the width and depth multipliers scale 2 and 3.
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_STEM_CHANNELS, _HEAD_CHANNELS = 32, 1280
_CLASSES = 1000
_CLASS_BLOCKS = 6
"""Blocks at the end that the classifier has for itself; `train.setup.freeze` lets no more of them be trained."""
CLASS_SHARPNESS = 2.0
"""By which the classifier's scores are multiplied before the softmax: it was trained with smoothed labels, and says 42 % where
it is right in 88 of 100; so it says 89 where it is right in 89 (199 photographs, docs/LOG.md)."""


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class EfficientNetLiteConfig(PreTrainedConfig):
    """Which EfficientNet-Lite, and which of its feature maps become tokens.

    Args:
        width_multiplier, depth_multiplier: (1.1, 1.2) is Lite2; (1.0, 1.0) is Lite0.
        image_size: side of the square input in pixels, a multiple of 32.
        feature_maps: the maps whose channels are joined in each token, each one of ``"head"`` (stride 32, 1280
            channels) or ``"stage1"`` .. ``"stage7"``. A map finer than stride 32 is folded, so that a token holds
            all of its cells in the 32x32 pixels that the token stands for.
        class_grids: for each number n, the classifier's probabilities for the n x n parts of the image (1: all), as tokens
            before those of the patches: 1000 channels, and noughts after them. First of all comes one with what the
            classifier goes by, its features of the whole image (1280 channels).
    """

    model_type = "efficientnet_lite"

    width_multiplier: float = 1.1
    depth_multiplier: float = 1.2
    image_size: int = 320
    feature_maps: list[str] | tuple[str, ...] = ("head",)
    class_grids: list[int] | tuple[int, ...] = ()

    def __post_init__(self, **kwargs):
        for older in ("coordinates", "coordinate_scale"):  # MiniGPT4Config has these now, under other names
            kwargs.pop(older, None)
        super().__post_init__(**kwargs)
        if self.image_size % 32:
            raise ValueError(f"image_size of EfficientNet-Lite must be a multiple of 32, not {self.image_size}")
        known = ["head", *(f"stage{i}" for i in range(1, len(_STAGES) + 1))]
        for name in self.feature_maps:
            if name not in known:
                raise ValueError(f"unknown feature map {name!r}; known: {', '.join(known)}")
        self.feature_maps, self.class_grids = list(self.feature_maps), list(self.class_grids)
        cells = self.image_size // 32
        if wrong := [n for n in self.class_grids if n < 1 or cells % n]:
            raise ValueError(f"class_grids: {cells} x {cells} cells cannot be parted into {wrong[0]} x {wrong[0]}")
        if self.class_grids and self.hidden_size < _HEAD_CHANNELS:
            raise ValueError(f"class_grids: tokens of {self.hidden_size} channels have no room for {_HEAD_CHANNELS} features")

    def stages(self) -> list[tuple[int, int, int, int, int]]:
        """The seven stages after scaling: (expansion, channels, repeats, stride, kernel)."""
        last = len(_STAGES) - 1
        return [
            (
                t,
                _round_channels(c * self.width_multiplier),
                n if i in (0, last) else math.ceil(n * self.depth_multiplier),
                s,
                k,
            )
            for i, (t, c, n, s, k) in enumerate(_STAGES)
        ]

    @property
    def patch_size(self) -> int:
        return 32

    @property
    def num_class_lists(self) -> int:
        """Tokens just before the patches, each with the probabilities of `num_classes` classes."""
        return sum(n * n for n in self.class_grids)

    @property
    def num_class_features(self) -> int:
        """Channels of the first token, with what the classifier goes by, where there is one."""
        return _HEAD_CHANNELS if self.class_grids else 0

    @property
    def num_classes(self) -> int:
        return _CLASSES

    @property
    def hidden_size(self) -> int:
        """Channels of a token: the sum over `feature_maps`, finer maps counted with all their folded cells."""
        sizes, stride = {"head": _HEAD_CHANNELS}, 2
        for i, (_, channels, _, s, _) in enumerate(self.stages(), 1):
            stride *= s
            sizes[f"stage{i}"] = channels * (32 // stride) ** 2
        return sum(sizes[name] for name in self.feature_maps)


def _round_channels(channels: float) -> int:
    """Nearest multiple of 8, never more than 10 % below."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class _SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's ``SAME`` padding, computed from the size of each input."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        pads = []
        for size, kernel, stride in zip(
            reversed(x_BCHW.shape[2:]), reversed(self.kernel_size), reversed(self.stride), strict=True
        ):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        left, right, top, bottom = pads
        if (left, top) == (right, bottom):  # most are: the convolution pads by itself, and nothing is copied
            around = (top, left)
        else:
            x_BCHW, around = F.pad(x_BCHW, pads), (0, 0)
        return F.conv2d(x_BCHW, self.weight, self.bias, self.stride, around, self.dilation, self.groups)


class _Block(nn.Module):
    """Inverted residual: expand (1x1), filter each channel (kxk), project (1x1), add the input where shapes allow."""

    def __init__(self, c_in: int, c_out: int, expansion: int, stride: int, kernel: int):
        super().__init__()
        c_mid = c_in * expansion
        self.expands, self.adds = expansion != 1, stride == 1 and c_in == c_out
        if self.expands:
            self.expand_conv = nn.Conv2d(c_in, c_mid, 1, bias=False)
            self.bn0 = _batch_norm(c_mid)
        self.depthwise_conv = _SameConv2d(c_mid, c_mid, kernel, stride, groups=c_mid, bias=False)
        self.bn1 = _batch_norm(c_mid)
        self.project_conv = nn.Conv2d(c_mid, c_out, 1, bias=False)
        self.bn2 = _batch_norm(c_out)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self.bn0(self.expand_conv(x_BCHW)), inplace=True) if self.expands else x_BCHW
        y = F.relu6(self.bn1(self.depthwise_conv(y)), inplace=True)
        y = self.bn2(self.project_conv(y))
        return x_BCHW + y if self.adds else y


class _ClassBranch(nn.Module):
    """The last blocks as they came, the head and its Linear: a map (B, C, H, W) -> features (B, 1, 1280) of all of it, and
    probabilities (B, parts, classes)."""

    def __init__(self, blocks: list[_Block], c_in: int, grids: Sequence[int]):
        super().__init__()
        self.grids = grids
        self.blocks = nn.ModuleList(blocks)
        self.conv_head = nn.Conv2d(c_in, _HEAD_CHANNELS, 1, bias=False)
        self.bn1 = _batch_norm(_HEAD_CHANNELS)
        self.fc = nn.Linear(_HEAD_CHANNELS, _CLASSES)

    def forward(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        x_BCHW = F.relu6(self.bn1(self.conv_head(x_BCHW)), inplace=True)
        parts = [F.adaptive_avg_pool2d(x_BCHW, n).flatten(2).transpose(1, 2) for n in self.grids]
        probabilities = (CLASS_SHARPNESS * self.fc(torch.cat(parts, 1)).float()).softmax(-1)
        return x_BCHW.mean((2, 3)).unsqueeze(1), probabilities


class EfficientNetLiteModel(PreTrainedModel):
    """EfficientNet-Lite: ``pixel_values`` (B, 3, S, S) -> tokens (B, class tokens + (S/32)^2, hidden_size).

    Tokens are in raster order: left to right, then top to bottom; class tokens come first, if the configuration asks for them.
    Pixels are scaled with mean = std = 0.5.
    """

    config_class = EfficientNetLiteConfig
    base_model_prefix = "efficientnet_lite"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _keys_to_ignore_on_load_unexpected = [r"^class_branch\."]  # of a folder that has it, where it is not asked for

    def __init__(self, config: EfficientNetLiteConfig):
        super().__init__(config)
        self.conv_stem = _SameConv2d(3, _STEM_CHANNELS, 3, 2, bias=False)
        self.bn0 = _batch_norm(_STEM_CHANNELS)
        self.blocks = nn.ModuleList()
        self.stage_ends: dict[int, str] = {}  # index of a stage's last block -> the stage's name
        c_in, forms = _STEM_CHANNELS, []
        for i, (expansion, c_out, repeats, stride, kernel) in enumerate(config.stages(), 1):
            for r in range(repeats):
                forms.append((c_in, c_out, expansion, stride if r == 0 else 1, kernel))
                self.blocks.append(_Block(*forms[-1]))
                c_in = c_out
            self.stage_ends[len(self.blocks) - 1] = f"stage{i}"
        self.conv_head = nn.Conv2d(c_in, _HEAD_CHANNELS, 1, bias=False)
        self.bn1 = _batch_norm(_HEAD_CHANNELS)
        self.class_branch = None
        if config.class_grids:
            self.class_branch = _ClassBranch([_Block(*form) for form in forms[-_CLASS_BLOCKS:]], c_in, config.class_grids)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **kwargs) -> BaseModelOutput:
        size = self.config.image_size
        if pixel_values.shape[-2:] != (size, size):
            raise ValueError(f"the vision encoder expects {size} x {size} pixels, not {tuple(pixel_values.shape[-2:])}")
        maps, before = {}, []
        x = F.relu6(self.bn0(self.conv_stem(pixel_values)), inplace=True)
        for i, block in enumerate(self.blocks):
            if self.class_branch is not None and i == len(self.blocks) - _CLASS_BLOCKS:
                with torch.no_grad():
                    before = list(self.class_branch(x))
            x = block(x)
            if i in self.stage_ends:
                maps[self.stage_ends[i]] = x
        if "head" in self.config.feature_maps:
            maps["head"] = F.relu6(self.bn1(self.conv_head(x)), inplace=True)
        grid = size // 32
        chosen = [F.pixel_unshuffle(maps[m], maps[m].shape[-1] // grid) for m in self.config.feature_maps]
        tokens = torch.cat(chosen, 1).flatten(2).transpose(1, 2)
        wide = [F.pad(each.to(tokens.dtype), (0, tokens.shape[2] - each.shape[2])) for each in before]
        return BaseModelOutput(last_hidden_state=torch.cat([*wide, tokens], 1))


def convert_state_dict(official: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename a published ``efficientnet-lite*.pth`` state dict to ours, with the classifier's own last blocks."""
    ours = {re.sub(r"(^|\.)_", r"\1", name): tensor for name, tensor in official.items()}
    first = 1 + max(int(name.split(".")[1]) for name in ours if name.startswith("blocks.")) - _CLASS_BLOCKS
    classifier = {}
    for name, tensor in ours.items():
        part, _, rest = name.partition(".")
        if part == "blocks" and int(rest.partition(".")[0]) >= first:
            number, _, rest = rest.partition(".")
            classifier[f"class_branch.blocks.{int(number) - first}.{rest}"] = tensor.clone()
        elif part in ("conv_head", "bn1"):
            classifier[f"class_branch.{name}"] = tensor.clone()
    classifier |= {f"class_branch.{name}": ours.pop(name) for name in ("fc.weight", "fc.bias")}
    return ours | classifier
