"""The released systems at full size, on the meta device: their sizes are the published ones."""

import pytest
import torch
from conftest import tiny_model
from official_files import vision_tensors

from minigpt4.checkpoints.official.full_size import SYSTEMS, count_parameters, full_size, memory
from minigpt4.checkpoints.official.keys import Place, Unneeded, checkpoint_place, official_name, vision_place
from minigpt4.checkpoints.official.sizes import vision_depth
from minigpt4.checkpoints.official.writing import resize_positions
from minigpt4.errors import UserError
from minigpt4.model.modeling import MiniGPT4ForConditionalGeneration

VISION_224, QFORMER = 985_894_528, 105_162_240
POSITIONS = (32 * 32 - 16 * 16) * 1408  # at 448 pixels the table of positions is larger
LLM_7B, LLM_13B = 6_738_415_616, 13_015_864_320


@pytest.mark.parametrize(
    ("name", "vision", "connector", "projection", "trained", "llm", "image_tokens"),
    [
        ("minigpt4-vicuna-7b", VISION_224, QFORMER, 3_149_824, 3_149_824, LLM_7B, 32),
        ("minigpt4-vicuna-13b", VISION_224, QFORMER, 3_937_280, 3_937_280, LLM_13B, 32),
        ("minigpt4-llama2-7b", VISION_224, 0, 23_072_768, 23_072_768, LLM_7B, 64),
        ("minigptv2-7b", VISION_224 + POSITIONS, 0, 23_072_768, 56_627_200, LLM_7B, 256),
    ],
)
def test_parameters(name, vision, connector, projection, trained, llm, image_tokens):
    config = full_size(name)
    counts = count_parameters(config)
    wanted = {"vision": vision, "connector": connector, "projection": projection, "trained": trained, "llm": llm}
    assert {k: counts[k] for k in wanted} == wanted
    assert config.num_image_tokens == image_tokens
    assert config.vision_config.layer_norm_eps == 1e-6
    assert config.vision_norm_eps == 1e-5
    assert counts["adapters"] == (33_554_432 if config.lora else 0)


def test_every_system_is_tested():
    assert len(SYSTEMS) == 4
    with pytest.raises(UserError, match=r"unknown system 'x'; there are minigpt4-vicuna-7b"):
        full_size("x")


def test_memory_is_that_of_the_weights_and_of_what_is_remembered():
    config = full_size("minigptv2-7b")
    parts = count_parameters(config)
    wanted = 2 * (sum(parts[k] for k in ("vision", "norm", "connector", "projection", "llm")))
    need = memory(config, torch.bfloat16, tokens=1000)
    assert need["weights"] == pytest.approx(wanted, rel=1e-3)
    assert need["cache"] == 2 * 2 * 32 * 4096 * 1000  # keys and values, two bytes, layers, width, tokens
    assert memory(config, torch.float32, tokens=1000)["weights"] == pytest.approx(2 * need["weights"])
    assert memory(config, torch.bfloat16, tokens=0, llm_bits=4)["weights"] == pytest.approx(5.78e9, rel=1e-3)


def test_the_counts_are_those_of_a_real_model():
    model = tiny_model("qformer")
    counts = count_parameters(model.config)
    keys = model.config.vision_config.hidden_size * model.config.vision_config.num_hidden_layers
    total = sum(counts[k] for k in ("vision", "norm", "connector", "projection", "llm"))
    assert total + keys == sum(p.numel() for p in model.parameters())
    with torch.device("meta"):
        MiniGPT4ForConditionalGeneration(model.config)


# names ----------------------------------------------------------------------------------------------------------------


def test_the_released_vision_loses_its_last_block_once():
    assert vision_depth(40, 1408) == 39
    assert vision_depth(39, 1408) == 39  # already without it
    assert vision_depth(4, 64) == 3


def test_names_go_out_as_they_came_in():
    names = ["llama_proj.weight", "llama_proj.bias", "query_tokens", "Qformer.bert.embeddings.LayerNorm.bias"]
    names += [
        "Qformer.bert.encoder.layer.4.crossattention.self.key.weight",
        "Qformer.bert.encoder.layer.3.output_query.dense.bias",
    ]
    names += [
        f"llama_model.base_model.model.model.layers.31.self_attn.{m}.lora_{x}.weight"
        for m in ("q_proj", "v_proj")
        for x in "AB"
    ]
    for name in names:
        place = checkpoint_place(name, 39)
        assert isinstance(place, Place)
        assert official_name(place.name) == name
    assert official_name("language_model.model.norm.weight") is None


def test_every_official_name_of_the_vision_is_known():
    for name in vision_tensors(blocks=3):
        place = vision_place(name, 2)
        assert isinstance(place, Unneeded if "blocks.2." in name or name.startswith(("fc_norm", "head")) else Place), name
        assert checkpoint_place(f"visual_encoder.{name}", 2) == place
    assert vision_place("blocks.0.attn.qkv.bias", 2) is None
    assert vision_place("block.0.norm1.weight", 2) is None


def test_positions_of_the_same_grid_are_left_alone_and_others_keep_the_class():
    table = torch.randn(1, 17, 6)
    assert resize_positions(table, 4) is table
    larger = resize_positions(table.half(), 8)
    assert larger.shape == (1, 65, 6)
    assert larger.dtype == torch.float32
    assert torch.equal(larger[:, 0], table.half().float()[:, 0])
    flat = torch.ones(1, 17, 2)
    torch.testing.assert_close(resize_positions(flat, 7), torch.ones(1, 50, 2))
