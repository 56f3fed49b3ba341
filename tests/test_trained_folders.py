"""Trained folders: adapters as `peft` writes and reads them, and folders of earlier versions."""

import json

import pytest
import torch
from conftest import tiny_folder, tiny_llama, tiny_model, tiny_processor
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import GPT2Config

from minigpt4.checkpoints.folders import TRAINED
from minigpt4.checkpoints.loading import load_system, save_trained
from minigpt4.checkpoints.trained import ADAPTER_CONFIG, ADAPTERS, read_trained, write_trained
from minigpt4.errors import UserError

IDS = torch.tensor([[1, 17, 40, 99, 5], [1, 3, 3, 70, 8]])
KINDS = {
    "llama": (tiny_llama(), ["q_proj", "down_proj"]),
    "gpt2": (GPT2Config(vocab_size=128, n_embd=32, n_layer=2, n_head=4, n_positions=512), ["c_attn", "c_proj"]),
}


@pytest.fixture(params=KINDS)
def made(request, tmp_path):
    """A whole system, a trained folder with adapters that change its language model, and what that says."""
    text, targets = KINDS[request.param]
    tiny_folder(tmp_path / "base", text_config=text)
    plain, _ = load_system(tmp_path / "base", dtype=torch.float32)
    lora = {"r": 3, "alpha": 12, "dropout": 0.1, "target_modules": targets}
    model = tiny_model(text_config=text, lora=lora, base_source=str(tmp_path / "base"))
    own = plain.state_dict()
    model.load_state_dict({k: own.get(k.replace("base_layer.", ""), v) for k, v in model.state_dict().items()})
    save_trained(model, tiny_processor(model.config), tmp_path / "trained")
    with torch.no_grad():
        return tmp_path / "trained", plain.language_model, model.language_model(IDS).logits


def same(logits, expected):
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_peft_reads_them_onto_the_plain_language_model(made):
    folder, language_model, expected = made
    assert not torch.allclose(language_model(IDS).logits, expected, atol=1e-2)
    adapted = PeftModel.from_pretrained(language_model, folder).eval()
    same(adapted(IDS).logits, expected)
    about = adapted.peft_config["default"]
    assert (about.r, about.lora_alpha, about.lora_dropout, about.inference_mode) == (3, 12, 0.1, True)
    same(adapted.merge_and_unload()(IDS).logits, expected)


@torch.no_grad()
def test_what_peft_writes_we_read(made, tmp_path):
    folder, language_model, expected = made
    PeftModel.from_pretrained(language_model, folder).save_pretrained(tmp_path / "by peft")
    for name in (ADAPTERS, ADAPTER_CONFIG):
        (folder / name).write_bytes((tmp_path / "by peft" / name).read_bytes())
    same(load_system(folder, dtype=torch.float32)[0].language_model(IDS).logits, expected)


@pytest.mark.parametrize("merge", [True, False])
@torch.no_grad()
def test_folders_of_earlier_versions_say_the_same(made, merge):
    folder, _, expected = made
    assert not any(".lora_" in name for name in load_file(folder / TRAINED))
    same(load_system(folder, dtype=torch.float32, merge=merge)[0].language_model(IDS).logits, expected)
    save_file(read_trained(folder), folder / TRAINED)  # all in one file, under our names
    for name in (ADAPTERS, ADAPTER_CONFIG):
        (folder / name).unlink()
    same(load_system(folder, dtype=torch.float32, merge=merge)[0].language_model(IDS).logits, expected)


def test_without_adapters_there_is_one_file(tmp_path):
    write_trained(tmp_path, {"projection.weight": torch.ones(2)}, None)
    assert [path.name for path in tmp_path.iterdir()] == [TRAINED]
    assert list(read_trained(tmp_path)) == ["projection.weight"]


def test_the_language_model_is_named_where_others_find_it(tmp_path):
    lora = {"r": 2, "alpha": 4, "dropout": 0.0, "target_modules": ["q_proj"]}
    for source, said in (("owner/llm", "owner/llm"), (str(tmp_path / "llm"), None), ("pocket", None)):
        model = tiny_model(lora=lora, text_source=source)
        save_trained(model, tiny_processor(model.config), tmp_path / "out")
        about = json.loads((tmp_path / "out" / ADAPTER_CONFIG).read_text())
        assert about["base_model_name_or_path"] == said
        assert str(tmp_path) not in json.dumps(about)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda file: file.unlink(), r"lacks 8 weight\(s\) that this system trains, the first is language_model"),
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), f"{ADAPTERS}: damaged or cut short"),
        (lambda file: save_file({"x": torch.ones(1)}, file), f"{ADAPTERS}: x is not the name of an adapter's weight"),
    ],
)
def test_spoiled_adapters_are_named(tmp_path, spoil, says):
    tiny_folder(tmp_path / "base")
    lora = {"r": 3, "alpha": 12, "dropout": 0.0, "target_modules": ["q_proj", "down_proj"]}
    model = tiny_model(lora=lora, base_source=str(tmp_path / "base"))
    save_trained(model, tiny_processor(model.config), tmp_path / "trained")
    spoil(tmp_path / "trained" / ADAPTERS)
    with pytest.raises(UserError, match=says):
        load_system(tmp_path / "trained", merge=False)
