"""Frozen parts that are not there, or are something else: one line that says what was asked for and what to do."""

import pytest
import torch
from conftest import tiny_clip, tiny_config, tiny_llama, tiny_processor, tiny_tokenizer
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    MambaConfig,
    SiglipVisionConfig,
    SwinConfig,
)

from minigpt4.checkpoints.loading import load_system, save_trained
from minigpt4.checkpoints.parts import LLM, VISION, config_of_part, llm_of_part, tokenizer_of_part, vision_of_part
from minigpt4.errors import UserError
from minigpt4.model import MiniGPT4ForConditionalGeneration
from minigpt4.model.vision.shape import grid_and_width
from minigpt4.train.recipe import parse_recipe
from minigpt4.train.setup import prepare

SIGLIP = {"image_size": 32, "patch_size": 8, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1}
SIGLIP |= {"num_attention_heads": 2}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Small folders of all kinds."""
    folder = tmp_path_factory.mktemp("parts")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    AutoModelForCausalLM.from_config(tiny_llama()).save_pretrained(folder / "llm")
    mamba = MambaConfig(vocab_size=128, hidden_size=32, num_hidden_layers=1, state_size=4, bos_token_id=1, eos_token_id=2)
    AutoModelForCausalLM.from_config(mamba).save_pretrained(folder / "mamba")
    BertModel(BertConfig(vocab_size=128, **small)).save_pretrained(folder / "bert")
    for name in ("llm", "mamba", "bert"):
        tiny_tokenizer().save_pretrained(folder / name)
    AutoModel.from_config(tiny_clip()).save_pretrained(folder / "vision")
    AutoModel.from_config(SiglipVisionConfig(**SIGLIP)).save_pretrained(folder / "siglip")
    both = CLIPConfig(vision_config=tiny_clip().to_dict(), text_config={"vocab_size": 99, **small}, projection_dim=8)
    CLIPModel(both).save_pretrained(folder / "clip")
    (folder / "empty").mkdir()
    (folder / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    (folder / "weights.bin").write_bytes(bytes(100))
    return folder


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("./gone", VISION, "./gone: no such folder; the vision encoder was expected there. If it was moved"),
        ("./gone", LLM, "./gone: no such folder; the language model was expected there"),
        ("owner/none", LLM, "owner/none: no language model found: neither a folder here, nor a hub repository"),
        ("none", VISION, "none: no vision encoder found: neither a folder here, nor a hub repository"),
        ("empty", VISION, "empty: no vision encoder in this folder .no config.json.; expected what save_pretrained wrote"),
        ("model.gguf", LLM, "model.gguf: .* must be a folder .* this is a GGUF file; convert it once: AutoModelForCausalLM"),
        ("weights.bin", VISION, "weights.bin: the vision encoder must be a folder that save_pretrained wrote, or a hub id"),
        ("vision", LLM, "vision: a clip_vision_model model writes no text; expected a language model"),
    ],
)
def test_what_is_no_part_is_said_in_one_line(parts, name, part, said):
    source = str(parts / name) if (parts / name).exists() else name
    with pytest.raises(UserError, match=said) as caught:
        config_of_part(source, part)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=said):
        vision_of_part(source, tiny_clip(), torch.float32) if part == VISION else llm_of_part(source, torch.float32, {})


def test_parts_are_found_alone_and_beside_each_other(parts):
    assert config_of_part(str(parts / "vision"), VISION).model_type == "clip_vision_model"
    assert config_of_part(str(parts / "clip"), VISION).hidden_size == tiny_clip().hidden_size
    assert llm_of_part(str(parts / "llm"), torch.float32, {}).config.model_type == "llama"
    with pytest.raises(UserError, match="vision: the tokenizer of the language model cannot be loaded"):
        tokenizer_of_part(str(parts / "vision"))


def test_weights_that_are_not_there_are_not_made_up(parts):
    with pytest.raises(UserError, match="bert: lacks 6 weights of a language model, the first is cls.predictions"):
        llm_of_part(str(parts / "bert"), torch.float32, {})
    with pytest.raises(UserError, match=r"image_size 48 does not fit the weights of this vision encoder: .*position_embedding"):
        vision_of_part(str(parts / "siglip"), SiglipVisionConfig(**SIGLIP | {"image_size": 48}), torch.float32)


def recipe_of(parts, tmp_path, **model):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "?", "answer": "!"}\n')
    model = {"vision": str(parts / "vision"), "text": str(parts / "llm"), "template": "chatml"} | model
    pack = model.pop("pack", True)
    images = model.pop("images", [])
    data = {"datasets": [{"format": "jsonl", "annotations": str(rows)}], "batch": 1, "pack": pack}
    given = {"model": model, "trained": {"projection": True}, "data": data, "steps": 1, "output": str(tmp_path / "out")}
    given["validation"] = {"every": 1, "images": images}
    return parse_recipe(given | {"precision": "fp32", "schedule": {"lr": 0.1}}, "recipe")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"vision": "llm"}, "the recipe's model cannot be built: a llama model of image_size 224 is no vision encoder"),
        ({"text": "gone/none"}, "no language model found"),
        ({"text": "mamba"}, r"data.pack: rows of several examples are not for a recurrent language model \(mamba\)"),
        ({"images": ["nowhere.jpg"]}, "validation.images: nowhere.jpg: no such file"),
        ({"image_size": 64}, "image_size 64 does not fit the weights of this vision encoder"),
    ],
)
def test_a_recipe_with_an_unfit_part(parts, tmp_path, model, said):
    named = {key: str(parts / value) for key, value in model.items() if key in ("vision", "text") and "/" not in value}
    with pytest.raises(UserError, match=said):
        prepare(recipe_of(parts, tmp_path, **model | named))


def test_a_recurrent_language_model_learns_without_packing(parts, tmp_path):
    prepared = prepare(recipe_of(parts, tmp_path, text=str(parts / "mamba"), pack=False))
    assert prepared[0].config.text_config.model_type == "mamba"


@pytest.mark.parametrize("part", ["vision", "llm"])
def test_a_part_that_is_gone_after_training_is_named(parts, tmp_path, part):
    config = tiny_config(vision_config=tiny_clip())
    for name, key in (("vision", "vision_source"), ("llm", "text_source")):
        setattr(config, key, str(tmp_path / name if name == part else parts / name))
    (tmp_path / part).symlink_to(parts / part)
    model = MiniGPT4ForConditionalGeneration(config)
    save_trained(model, tiny_processor(config), tmp_path / "trained")
    load_system(tmp_path / "trained")
    (tmp_path / part).unlink()
    kind = "vision encoder" if part == "vision" else "language model"
    with pytest.raises(UserError, match=f"{part}: no such folder; the {kind} was expected there. If it was moved, say where"):
        load_system(tmp_path / "trained")


def test_the_last_feature_map_is_measured():
    swin = SwinConfig(image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1], num_heads=[2, 2, 2], window_size=4)
    assert grid_and_width(swin) == (4, 32)
    assert grid_and_width(tiny_clip()) == (4, 24)
    swin.image_size = 96
    assert grid_and_width(swin) == (6, 32)
    text = MambaConfig(hidden_size=32)
    text.image_size = 32
    with pytest.raises(ValueError, match="a mamba model of image_size 32 is no vision encoder: it takes no images"):
        grid_and_width(text)
