"""A language model of the Llama type as an ONNX graph for ONNX Runtime, in float32 or with 8- or 4-bit weights.

    embeds (R, Q, H), seqlens (R) and total: positions of each row after this piece, less one, and most of them; keep: flat
    places of the hidden states that are wanted; keys_i, values_i (R, N, S, D) of each layer, written in place as new_keys_i,
    new_values_i -> logits (kept, V)

`engine.onnx_backend` runs it. Operators of ONNX Runtime's own (com.microsoft): attention with rotary positions and grouped
heads, fused norms, products with weights in blocks of 32 numbers that share a scale.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

OWN = "com.microsoft"
BLOCK = 32  # numbers that share a scale
BITS = {None: 32, "8bit": 8, "4bit": 4}
GRAPH = "model.onnx"


def unsupported(config: Any) -> str | None:
    """Why there is no such graph of a language model; none if there is."""
    if config.model_type != "llama":
        return f"it takes language models of the Llama type, and this one is a {config.model_type}"
    if getattr(config, "quantization_config", None) is not None:
        return "the language model is stored in few bits already"
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default" or getattr(config, "rope_scaling", None) not in (None, rope):
        return "the language model scales its rotary positions"
    if config.hidden_act != "silu" or config.attention_bias or config.mlp_bias:
        return "the language model has biases, or another activation than silu"
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if width % 16:  # ONNX Runtime's rotary positions want whole vectors
        return f"its attention wants heads of a multiple of 16 numbers, and these have {width}"
    return None


class Graph:
    """Nodes and weights of a graph that is being written."""

    def __init__(self, bits: int = 32):
        from onnx import helper, numpy_helper

        self.bits, self.helper, self.numpy = bits, helper, numpy_helper
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def weight(self, name: str, values: np.ndarray) -> str:
        self.weights.append(self.numpy.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, kind: str, inputs: list[str], *outputs: str, own: bool = False, **attributes: Any) -> str:
        """A node; returns its first output."""
        outputs = outputs or (f"_{len(self.nodes)}",)
        self.nodes.append(self.helper.make_node(kind, inputs, outputs, domain=OWN if own else "", **attributes))
        return outputs[0]

    def linear(self, name: str, x: str, weight: np.ndarray) -> str:
        """x times a weight (out, in), stored in the graph's bits if its rows are whole blocks."""
        out, width = weight.shape
        if self.bits == 32 or width % BLOCK:
            return self.node("MatMul", [x, self.weight(name, weight.T)])
        packed, scales = in_blocks(weight, self.bits)
        return self.node(
            "MatMulNBits",
            [x, self.weight(f"{name}.packed", packed), self.weight(f"{name}.scales", scales)],
            own=True,
            K=width,
            N=out,
            bits=self.bits,
            block_size=BLOCK,
            accuracy_level=4,  # products of whole numbers
        )

    def save(self, file: Path, inputs: list[Any], outputs: list[Any]) -> None:
        """Write the graph, and its weights in a file beside it."""
        import onnx

        model = self.helper.make_model(
            self.helper.make_graph(self.nodes, file.stem, inputs, outputs, self.weights),
            opset_imports=[self.helper.make_opsetid("", 17), self.helper.make_opsetid(OWN, 1)],
            ir_version=9,
        )
        onnx.save_model(
            model,
            file,
            save_as_external_data=True,
            location=f"{file.name}.data",
            size_threshold=1024,
            convert_attribute=False,
        )


def in_blocks(weight: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """A weight (out, in) in blocks of `BLOCK` numbers along each row: bytes (out, blocks, BLOCK * bits / 8), the lower half of
    a byte first, and a scale a block (out * blocks). A number is scale * (stored - 2 ** (bits - 1)); the largest of a block is
    exact.
    """
    blocks = weight.reshape(len(weight), -1, BLOCK)
    middle = 1 << (bits - 1)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    scales = (largest / -middle).astype(np.float32)
    scales[scales == 0] = 1
    stored = np.clip(np.rint(blocks / scales) + middle, 0, 2 * middle - 1).astype(np.uint8)
    if bits == 4:
        stored = stored[..., 0::2] | (stored[..., 1::2] << 4)
    return stored, scales.reshape(-1)


def write_graph(weights: Mapping[str, np.ndarray], config: Any, bits: int, folder: Path) -> None:
    """Write ``model.onnx`` and its weights beside it.

    Args:
        weights: of a ``LlamaForCausalLM``, float32, by its names.
        config: for which `unsupported` has nothing to say.
        bits: 32, 8 or 4 for the weights of linear layers; of the head 8 at the least.
    """
    import onnx
    from onnx import TensorProto

    graph, value = Graph(bits), onnx.helper.make_tensor_value_info
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    rope = getattr(config, "rope_parameters", None) or {}
    theta = rope.get("rope_theta") or getattr(config, "rope_theta", 10_000.0)
    turns = np.outer(np.arange(config.max_position_embeddings), 1 / theta ** (np.arange(0, width, 2) / width))
    rotary = [graph.weight("cos", np.cos(turns).astype(np.float32)), graph.weight("sin", np.sin(turns).astype(np.float32))]
    inputs = [
        value("embeds", TensorProto.FLOAT, ["R", "Q", config.hidden_size]),
        value("seqlens", TensorProto.INT32, ["R"]),
        value("total", TensorProto.INT32, []),
        value("keep", TensorProto.INT64, ["kept"]),
    ]
    outputs = [value("logits", TensorProto.FLOAT, ["kept", config.vocab_size])]
    sums = "embeds"

    def normed(name: str, added: str | None) -> str:
        """The norm of the sum of all that was added so far."""
        nonlocal sums
        scale = graph.weight(name, weights[name])
        if added is None:
            return graph.node("SimplifiedLayerNormalization", [sums, scale], axis=-1, epsilon=config.rms_norm_eps)
        out, new = f"{name}.out", f"{name}.sum"
        inputs_ = [sums, added, scale]
        graph.node("SkipSimplifiedLayerNormalization", inputs_, out, "", "", new, own=True, epsilon=config.rms_norm_eps)
        sums = new
        return out

    added: str | None = None
    for layer in range(config.num_hidden_layers):
        at = f"model.layers.{layer}."
        x = normed(f"{at}input_layernorm.weight", added)
        joined = np.concatenate([weights[f"{at}self_attn.{kind}_proj.weight"] for kind in "qkv"])
        asked = graph.linear(f"{at}qkv", x, joined)
        names = [f"keys_{layer}", f"values_{layer}"]
        inputs += [value(name, TensorProto.FLOAT, ["R", groups, "S", width]) for name in names]
        outputs += [value(f"new_{name}", TensorProto.FLOAT, ["R", groups, "S", width]) for name in names]
        seen = graph.node(
            "GroupQueryAttention",
            [asked, "", "", *names, "seqlens", "total", *rotary],
            f"{at}seen",
            *(f"new_{name}" for name in names),
            own=True,
            num_heads=heads,
            kv_num_heads=groups,
            do_rotary=1,
        )
        x = normed(
            f"{at}post_attention_layernorm.weight", graph.linear(f"{at}o", seen, weights[f"{at}self_attn.o_proj.weight"])
        )
        gate = graph.linear(f"{at}gate", x, weights[f"{at}mlp.gate_proj.weight"])
        up = graph.linear(f"{at}up", x, weights[f"{at}mlp.up_proj.weight"])
        inner = graph.node("Mul", [graph.node("QuickGelu", [gate], own=True, alpha=1.0), up])
        added = graph.linear(f"{at}down", inner, weights[f"{at}mlp.down_proj.weight"])
    x = normed("model.norm.weight", added)
    flat = graph.node("Reshape", [x, graph.weight("flat", np.array([-1, config.hidden_size]))])
    kept = graph.node("Gather", [flat, "keep"], axis=0)
    graph.bits = max(bits, 8)
    head = "lm_head.weight" if "lm_head.weight" in weights else "model.embed_tokens.weight"
    graph.node("Identity", [graph.linear("head", kept, weights[head])], "logits")
    graph.save(folder / GRAPH, inputs, outputs)
