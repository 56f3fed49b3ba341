"""Low-rank adapters in the language model (LoRA, arXiv 2106.09685): added through `peft` for training, merged without it for
use."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..errors import UserError

_ADAPTER_KEY = re.compile(r"^(.*)\.lora_(A|B)\.(?:default\.)?weight$")


def add_lora(language_model: nn.Module, lora: dict[str, Any]) -> None:
    """Put trainable adapters into `language_model`, in place.

    Args:
        lora: ``r`` (rank), ``alpha``, ``dropout`` and ``target_modules``, as in ``MiniGPT4Config.lora``.

    Raises:
        UserError: a target that no module has the name of, or a module that is no linear layer.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError("adapters in the language model need the package peft: pip install 'minigpt4[train]'") from None
    config = LoraConfig(
        r=lora["r"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora.get("dropout", 0.0),
        target_modules=list(lora["target_modules"]),
        bias="none",
    )
    _check_targets(language_model, lora["target_modules"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")  # peft sets it itself for each module
        try:
            inject_adapter_in_model(config, language_model)
        except ValueError as error:
            raise UserError(f"adapters cannot be put into this language model ({' '.join(str(error).split())[:200]})") from None


def _check_targets(language_model: nn.Module, targets: Sequence[str]) -> None:
    linear: dict[str, None] = {}  # last parts of the names of linear layers, in their order
    matched: set[str] = set()
    for name, module in language_model.named_modules():
        plain = isinstance(module, (nn.Linear, Conv1D))
        if plain:
            linear[name.rpartition(".")[2]] = None
        for target in targets:
            if name == target or name.endswith(f".{target}"):
                matched.add(target)
                if not plain and type(module).__module__.startswith("torch.nn."):
                    raise UserError(f"target_modules: {name} is a {type(module).__name__}; adapters are for linear layers")
    if unknown := [target for target in targets if target not in matched]:
        raise UserError(
            f"target_modules: this language model has no module named {', '.join(unknown)}; "
            f"its linear layers are {', '.join(linear)}"
        )


def set_lora(language_model: nn.Module, has: dict[str, Any] | None, wanted: dict[str, Any] | None) -> bool:
    """Give the language model the adapters that are wanted, in place: kept if it has such, else merged and begun anew.

    Returns:
        Whether adapters were merged, so that the language model's own weights are no longer those of its source.
    """
    if has is not None and wanted is not None and lora_form(has) == lora_form(wanted):
        for module in language_model.modules():
            for dropout in getattr(module, "lora_dropout", {}).values():
                if isinstance(dropout, nn.Dropout):
                    dropout.p = wanted.get("dropout", 0.0)
        return False
    if has is not None:
        merge_in_place(language_model)
    if wanted is not None:
        add_lora(language_model, wanted)
    return has is not None


def lora_form(lora: dict[str, Any]) -> tuple:
    """What two descriptions must share for adapters of the one to go on as adapters of the other."""
    return lora["r"], lora["alpha"], tuple(sorted(lora["target_modules"]))


def merge_in_place(language_model: nn.Module) -> None:
    """Add all adapters that `peft` keeps apart to the weights they adapt, and take them out."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(language_model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(language_model.get_submodule(parent), child, module.get_base_layer())
    language_model.__dict__.pop("peft_config", None)  # else the next adapters are taken for a second set


def learn_merged(language_model: nn.Module) -> None:
    """Let adapters be learnt through W + (alpha / r) B A, made anew at each step.

    Outputs and gradients are those of adapters kept apart, up to rounding, for fewer and larger products and no sums of
    activations. Until the backward pass has gone by, the sums take as much memory as the weights they stand for.

    Raises:
        UserError: weights that cannot be added to (quantised, divided among processes), dropout, or several adapters.
    """
    from peft.tuners.lora import Linear, LoraLayer

    layers: list[tuple[str, Any]] = [(n, m) for n, m in language_model.named_modules() if isinstance(m, LoraLayer)]
    for name, module in layers:
        weight = module.get_base_layer().weight
        dropout = any(isinstance(d, nn.Dropout) and d.p for d in module.lora_dropout.values())
        plain = isinstance(module, Linear) and isinstance(module.get_base_layer(), nn.Linear)  # others store it transposed
        plain = plain and type(weight.data) is torch.Tensor and weight.is_floating_point()
        if dropout or not plain or len(module.active_adapters) != 1:
            raise UserError(f"merged_adapters is for one adapter without dropout beside plain weights, which {name} is not")
        module.forward = _LearntMerged(module)


class _LearntMerged:
    """The forward function of an adapted linear layer: the sum of weights is made at each call, which costs as much as one
    token for each rank."""

    def __init__(self, layer: Any):
        (adapter,) = layer.active_adapters
        self.layer, self.base, self.scale = layer, layer.get_base_layer(), layer.scaling[adapter]
        self.a, self.b = layer.lora_A[adapter], layer.lora_B[adapter]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.layer.merged:  # the weight is the sum already: see `merged_for_use`
            return self.base(x)
        y = _Adapted.apply(x.to(self.base.weight.dtype), self.base.weight, self.a.weight, self.b.weight, self.scale)
        return y if self.base.bias is None else y + self.base.bias


class _Adapted(torch.autograd.Function):
    """x (W + s B A)^T, with gradients for x, A and B, and none for W."""

    @staticmethod
    def forward(ctx, x, weight, a, b, scale):
        with torch.autocast(weight.device.type, enabled=False):
            both = torch.addmm(weight, b.to(weight.dtype), a.to(weight.dtype), alpha=scale)
        ctx.save_for_backward(x, both, a, b)
        ctx.scale = scale
        return F.linear(x, both)

    @staticmethod
    def backward(ctx, gradient):
        x, weight, a, b = ctx.saved_tensors
        x_NI, gradient_NO = x.flatten(0, -2), gradient.to(weight.dtype).flatten(0, -2)
        low_NR, gradient_NR = x_NI @ a.to(weight.dtype).t(), gradient_NO @ b.to(weight.dtype)
        gradient_a = (gradient_NR.t() @ x_NI).to(a.dtype) * ctx.scale
        gradient_b = (gradient_NO.t() @ low_NR).to(b.dtype) * ctx.scale
        gradient_x = (gradient_NO @ weight).view(x.shape) if ctx.needs_input_grad[0] else None
        return gradient_x, None, gradient_a, gradient_b, None


@contextmanager
@torch.no_grad()
def merged_for_use(language_model: nn.Module) -> Iterator[None]:
    """Inside, adapters are part of the weights they adapt, which makes long generation faster; afterwards the weights are
    exactly what they were. Weights that cannot be added to (quantised, divided among processes) keep their adapters apart."""
    kept: list[tuple[Any, nn.Parameter, torch.Tensor]] = []
    try:
        if hasattr(language_model, "peft_config"):
            from peft.tuners.lora import LoraLayer

            layers: list[Any] = [module for module in language_model.modules() if isinstance(module, LoraLayer)]
            for layer in layers:
                weight = layer.get_base_layer().weight
                if type(weight.data) is torch.Tensor and weight.is_floating_point():
                    kept.append((layer, weight, weight.data))
                    delta = sum(layer.get_delta_weight(adapter) for adapter in layer.active_adapters)
                    weight.data = (weight.data.float() + delta).to(weight.dtype)
                    layer.merged_adapters = list(layer.active_adapters)
        yield
    finally:
        for layer, weight, data in kept:
            weight.data, layer.merged_adapters = data, []


@torch.no_grad()
def merge_lora(language_model: nn.Module, adapters: dict[str, torch.Tensor], lora: dict[str, Any]) -> None:
    """Add trained adapters to the weights they adapt: W + (alpha / r) B A, computed in float32.

    Args:
        adapters: ``{module}.lora_A.weight`` (r, in) and ``{module}.lora_B.weight`` (out, r), names relative to
            `language_model`, with or without peft's ``default.``.

    Raises:
        UserError: an adapter without its other half, for a module that this language model does not have, or for one that is
            no linear layer.
    """
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in adapters.items():
        match = _ADAPTER_KEY.match(key)
        if match is None:
            raise UserError(f"{key} is not an adapter's weight (expected ...lora_A.weight or ...lora_B.weight)")
        pairs.setdefault(match[1], {})[match[2]] = tensor
    scale = lora["alpha"] / lora["r"]
    modules = dict(language_model.named_modules())
    for name, pair in pairs.items():
        if len(pair) != 2:
            raise UserError(f"the adapter of {name} has only one of its two matrices")
        if name not in modules:
            raise UserError(f"the adapter of {name} fits no module of this language model")
        weight = modules[name].weight
        delta = (pair["B"].float() @ pair["A"].float()) * scale
        if isinstance(modules[name], Conv1D):  # GPT-2's linear layers: the weight is stored as (in, out)
            delta = delta.T
        elif not isinstance(modules[name], nn.Linear):
            raise UserError(f"the adapter of {name} is for a linear layer, not for {type(modules[name]).__name__}")
        if delta.shape != weight.shape:
            raise UserError(f"the adapter of {name} is for a weight of {tuple(delta.shape)}, not {tuple(weight.shape)}")
        weight.copy_(weight.float() + delta)
