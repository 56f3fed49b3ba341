"""A vision encoder with its connector and projection as one ONNX graph: pixels (1, 3, S, S) -> embeds (1, K, H), float32.

It is there for EfficientNet-Lite before a connector that joins patches, which the pocket model has. Batch norms are part of the
convolutions before them.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..model.connector import waves
from ..model.vision.efficientnet_lite import CLASS_SHARPNESS
from .onnx_graph import Graph


def has_vision_graph(config: Any) -> bool:
    """Whether there is such a graph of a system."""
    known = (config.vision_config.model_type, config.connector) == ("efficientnet_lite", "concat")
    return known and config.vision_feature_layer is None and config.projection_depth == 1


def write_vision(model: Any, file: Path) -> None:
    """Write the graph into a file, and its weights beside it.

    Args:
        model: a `MiniGPT4ForConditionalGeneration` for whose configuration `has_vision_graph`.
    """
    from onnx import TensorProto, helper

    config, graph = model.config, Graph()
    weights = {
        f"{part}.{name}": weight.detach().float().numpy()
        for part in ("vision_tower", "connector", "projection")
        for name, weight in getattr(model, part).state_dict().items()
    }
    tokens, lists = _vision_tower(graph, weights, config.vision_config, model.vision_tower.bn0.eps)
    wide = config.connector_size - config.class_channels
    joined = graph.node("Reshape", [_connector(graph, tokens, config), graph.weight("joined", np.array([-1, wide]))])
    weight, bias = weights["projection.weight"].T, weights["projection.bias"]
    projected = graph.node("Gemm", [joined, graph.weight("projection", weight[:wide]), graph.weight("projection.bias", bias)])
    if lists is not None:
        projected = graph.node("Concat", [*_class_tokens(graph, weights, config, *lists), projected], axis=0)
    shape = (1, config.num_image_tokens, config.text_config.hidden_size)
    graph.node("Reshape", [projected, graph.weight("shape", np.array(shape))], "embeds")
    side = config.image_size
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, (1, 3, side, side))
    graph.save(file, [pixels], [helper.make_tensor_value_info("embeds", TensorProto.FLOAT, shape)])


def _class_tokens(graph: Graph, weights: Mapping[str, np.ndarray], config: Any, features: str, lists: str) -> Iterator[str]:
    """What the language model receives for one's own classes and for the vision encoder's lists: (lists c, H) each."""
    count, width = config.class_tokens, config.text_config.hidden_size
    table = weights["projection.weight"].T[-config.class_channels :].reshape(count, config.num_classes, width)
    bias = graph.weight("classes.bias", np.tile(weights["projection.bias"], count))
    shape = graph.weight("classes.shape", np.array([-1, width]))

    def tokens(probabilities: str, name: str, classes: slice) -> str:
        side_by_side = table[:, classes].transpose(1, 0, 2).reshape(-1, count * width)
        product = graph.node("Gemm", [probabilities, graph.weight(name, side_by_side), bias])
        return graph.node("Reshape", [product, shape])

    theirs = config.num_classes - sum(config.own_lists)
    first = 0
    for number, size in enumerate(config.own_lists):
        own = slice(first, first + size)
        weight = graph.weight(f"own.{number}", weights["connector.own.weight"][own].T)
        bias_of = graph.weight(f"own.{number}.bias", weights["connector.own.bias"][own])
        probabilities = graph.node("Softmax", [graph.node("Gemm", [features, weight, bias_of])], axis=-1)
        yield tokens(probabilities, f"classes.own.{number}", slice(theirs + first, theirs + first + size))
        first += size
    yield tokens(lists, "classes", slice(theirs))


def _vision_tower(
    graph: Graph, weights: Mapping[str, np.ndarray], config: Any, eps: float
) -> tuple[str, tuple[str, str] | None]:
    """`EfficientNetLiteModel`: pixels -> patches (1, N, V); where it classifies, also features of the whole image (1, 1280) and
    probabilities (parts, classes)."""
    limits = [graph.weight(str(limit), np.array(limit, np.float32)) for limit in (0, 6)]
    size = config.image_size

    def conv(x: str, name: str, norm: str, stride: int = 1, alone: bool = False, clipped: bool = True) -> str:
        """A convolution with its norm, and ReLU6 where `clipped`; with `alone`, each channel by itself."""
        nonlocal size
        at = f"vision_tower.{norm}"
        scale = weights[f"{at}.weight"] / np.sqrt(weights[f"{at}.running_var"] + np.float32(eps))
        kernel = weights[f"vision_tower.{name}.weight"]
        inputs = [
            x,
            graph.weight(name, kernel * scale[:, None, None, None]),
            graph.weight(f"{name}.bias", weights[f"{at}.bias"] - weights[f"{at}.running_mean"] * scale),
        ]
        out = math.ceil(size / stride)
        surplus = max((out - 1) * stride + kernel.shape[-1] - size, 0)
        before, after, size = surplus // 2, surplus - surplus // 2, out
        pads, group = [before, before, after, after], len(kernel) if alone else 1
        y = graph.node("Conv", inputs, strides=[stride, stride], pads=pads, group=group)
        return graph.node("Clip", [y, *limits]) if clipped else y

    def block(x: str, at: str, c_in: int, c_out: int, expansion: int, stride: int) -> str:
        y = conv(x, f"{at}.expand_conv", f"{at}.bn0") if expansion != 1 else x
        y = conv(y, f"{at}.depthwise_conv", f"{at}.bn1", stride, alone=True)
        y = conv(y, f"{at}.project_conv", f"{at}.bn2", clipped=False)
        return graph.node("Add", [x, y]) if stride == 1 and c_in == c_out else y

    x, maps, befores = conv("pixels", "conv_stem", "bn0", 2), {}, []
    c_in = len(weights["vision_tower.conv_stem.weight"])
    for stage, (expansion, c_out, repeats, stride, _) in enumerate(config.stages(), 1):
        for repeat in range(repeats):
            form = (c_in, c_out, expansion, stride if repeat == 0 else 1)
            befores.append((x, size, form))
            x = block(x, f"blocks.{len(befores) - 1}", *form)
            c_in = c_out
        maps[f"stage{stage}"] = (x, c_in, size)
    if "head" in config.feature_maps:
        maps["head"] = (conv(x, "conv_head", "bn1"), len(weights["vision_tower.conv_head.weight"]), size)
    grid = config.image_size // 32
    folded = []
    for name in config.feature_maps:  # all cells of a finer map that a token stands for become channels
        x, channels, side = maps[name]
        cells = side // grid
        parted = graph.weight(f"{name}.parted", np.array([channels, grid, cells, grid, cells]))
        turned = graph.node("Transpose", [graph.node("Reshape", [x, parted])], perm=[1, 3, 0, 2, 4])
        folded.append(
            graph.node("Reshape", [turned, graph.weight(f"{name}.folded", np.array([1, grid * grid, channels * cells**2]))])
        )
    tokens = graph.node("Concat", folded, axis=2)
    if not config.class_grids:
        return tokens, None
    own = sum(name.startswith("vision_tower.class_branch.") and name.endswith(".depthwise_conv.weight") for name in weights)
    y, size, _ = befores[-own]
    for number, (_, _, form) in enumerate(befores[-own:]):
        y = block(y, f"class_branch.blocks.{number}", *form)
    y = conv(y, "class_branch.conv_head", "class_branch.bn1")
    channels, parts = len(weights["vision_tower.class_branch.conv_head.weight"]), []
    for n in config.class_grids:
        cells = graph.weight(f"parted {n}", np.array([channels, n, size // n, n, size // n]))
        averaged = graph.node("ReduceMean", [graph.node("Reshape", [y, cells])], axes=[2, 4], keepdims=0)
        rows = graph.node("Reshape", [averaged, graph.weight(f"parts {n}", np.array([channels, n * n]))])
        parts.append(graph.node("Transpose", [rows], perm=[1, 0]))
    features = graph.node("Concat", parts, axis=0)
    weight, bias = (
        graph.weight(f"fc.{kind}", CLASS_SHARPNESS * weights[f"vision_tower.class_branch.fc.{kind}"].T)
        for kind in ("weight", "bias")
    )
    whole = graph.node("ReduceMean", [y], axes=[2, 3], keepdims=0)
    return tokens, (whole, graph.node("Softmax", [graph.node("Gemm", [features, weight, bias])], axis=-1))


def _connector(graph: Graph, tokens: str, config: Any) -> str:
    """`ConcatConnector`: tokens (1, N, V) -> channels of K image tokens in order."""
    grid = config.vision_grid
    if config.position_octaves:
        places = config.position_scale * waves(grid, config.position_octaves).numpy()[None]
        tokens = graph.node("Concat", [tokens, graph.weight("places", places.astype(np.float32))], axis=2)
    if config.concat_order == "row":
        return tokens
    side = math.isqrt(config.concat_factor)
    parted = graph.weight("squares", np.array([grid // side, side, grid // side, side, config.token_width]))
    return graph.node("Transpose", [graph.node("Reshape", [tokens, parted])], perm=[0, 2, 1, 3, 4])
