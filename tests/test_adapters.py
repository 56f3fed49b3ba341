"""Adapters in language models whose linear layers are stored otherwise (GPT-2's Conv1D)."""

import copy

import pytest
import torch
from conftest import tiny_llama
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config

from minigpt4.errors import UserError
from minigpt4.model.adapters import add_lora, learn_merged, merge_in_place, merge_lora, merged_for_use

GPT2 = GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2)
IDS = torch.arange(3, 11)[None]


def lora_on(*targets):
    return {"r": 2, "alpha": 4, "dropout": 0.0, "target_modules": list(targets)}


def adapted(config, lora):
    """A plain language model, the same with adapters apart, and the weights of these adapters."""
    plain = AutoModelForCausalLM.from_config(config).eval()
    apart = copy.deepcopy(plain)
    add_lora(apart, lora)
    with torch.no_grad():
        for name, parameter in apart.named_parameters():
            if ".lora_" in name:
                parameter.normal_(0, 0.3)
    return plain, apart, {k: v for k, v in apart.state_dict().items() if ".lora_" in k}


@pytest.mark.parametrize(
    ("config", "targets"),
    [(GPT2, ["attn.c_proj"]), (GPT2, ["c_attn", "c_fc", "mlp.c_proj"]), (tiny_llama(), ["q_proj", "v_proj", "down_proj"])],
)
def test_every_way_of_merging_gives_what_adapters_apart_give(config, targets):
    lora = lora_on(*targets)
    plain, apart, weights = adapted(config, lora)
    wanted = apart(IDS).logits
    assert (plain(IDS).logits - wanted).abs().max() > 1e-2
    merge_lora(plain, weights, lora)
    torch.testing.assert_close(plain(IDS).logits, wanted, atol=1e-5, rtol=1e-5)
    with merged_for_use(apart):
        torch.testing.assert_close(apart(IDS).logits, wanted, atol=1e-5, rtol=1e-5)
    merge_in_place(apart)
    assert not any(".lora_" in name for name, _ in apart.named_parameters())
    torch.testing.assert_close(apart(IDS).logits, wanted, atol=1e-5, rtol=1e-5)


def test_learning_through_the_sum_is_refused_where_weights_are_transposed():
    _, apart, _ = adapted(GPT2, lora_on("attn.c_proj"))
    with pytest.raises(UserError, match=r"which transformer.h.0.attn.c_proj is not"):
        learn_merged(apart)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["q_proj", "v_proj"], r"no module named q_proj, v_proj; its linear layers are c_attn, c_proj, c_fc"),
        (["c_attn", "c_fcc"], r"no module named c_fcc"),
        (["wte"], r"transformer.wte is a Embedding; adapters are for linear layers"),
        (["attn"], r"cannot be put into"),
    ],
)
def test_targets_that_are_not_there_or_no_linear_layers_are_named(targets, said):
    with pytest.raises(UserError, match=said) as caught:
        add_lora(AutoModelForCausalLM.from_config(GPT2), lora_on(*targets))
    assert "\n" not in str(caught.value)


def test_an_adapter_for_something_else_is_refused():
    weights = {"0.lora_A.weight": torch.ones(2, 4), "0.lora_B.weight": torch.ones(4, 2)}
    with pytest.raises(UserError, match="the adapter of 0 is for a linear layer, not for Embedding"):
        merge_lora(nn.Sequential(nn.Embedding(4, 4)), weights, lora_on("0"))
