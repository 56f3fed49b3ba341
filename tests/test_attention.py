"""Attention in groups against the library's plain attention, on small random minds."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, Gemma2Config

from minigpt4.model.attention import _PLAIN, GROUPED, plain_attention
from minigpt4.model.packing import packed_attention_mask

SIZES = {
    "vocab_size": 50, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 6,
    "head_dim": 8, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


@pytest.fixture(params=[("llama", 6), *((kind, 2) for kind in sorted(_PLAIN))], ids=str)
def mind(request):
    kind, shared = request.param
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZES, num_key_value_heads=shared)
    return AutoModelForCausalLM.from_config(config).eval()


def both(mind, run):
    """What `run` gives with the library's attention, and with ours."""
    found = []
    for name in ("eager", plain_attention(mind.config)):
        mind.set_attn_implementation(name)
        mind.zero_grad()
        found.append(run())
    assert mind.config._attn_implementation == GROUPED
    return found


def test_outputs_and_gradients_are_those_of_plain_attention(mind):
    ids, mask = torch.randint(3, 50, (3, 9)), torch.ones(3, 9, dtype=torch.long)
    mask[0, :4] = 0

    def run():
        logits = mind(input_ids=ids, attention_mask=mask).logits[mask.bool()]
        logits.square().sum().backward()
        return logits.detach(), [p.grad.clone() for p in mind.parameters()]

    (expected, gradients), (found, own) = both(mind, run)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(own, gradients, atol=1e-4, rtol=1e-4)


def test_packed_rows_too(mind):
    examples = torch.tensor([[0, 0, 0, 1, 1, -1], [0, 0, 0, 0, 0, 0]])
    branches = torch.tensor([[0, 1, 2, 0, 0, 0], [0, 0, 1, 1, 2, 2]])
    mask, embeds = packed_attention_mask(examples, branches, torch.float32), torch.randn(2, 6, 48)
    expected, found = both(mind, lambda: mind(inputs_embeds=embeds, attention_mask=mask).logits.detach())
    torch.testing.assert_close(found[examples >= 0], expected[examples >= 0])


def test_with_a_cache_it_goes_on_as_without(mind):
    ids = torch.randint(3, 50, (2, 7))

    @torch.no_grad()
    def in_two():
        cache = DynamicCache()
        first = mind(input_ids=ids[:, :5], past_key_values=cache).logits
        return torch.cat([first, mind(input_ids=ids[:, 5:], past_key_values=cache).logits], 1)

    expected, found = both(mind, in_two)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found, mind(input_ids=ids).logits.detach())


def test_minds_with_attention_of_their_own_keep_it():
    assert plain_attention(Gemma2Config()) == "eager"  # it caps its scores
