"""Language models in few bits, on the CPU: close to the whole ones, and everything around them as it was."""

import pytest
import torch
from conftest import tiny_config, tiny_llama, tiny_model, tiny_processor
from PIL import Image

import minigpt4
from minigpt4.checkpoints.loading import load_system, save_trained
from minigpt4.checkpoints.quantize import quantization_config
from minigpt4.cli import app
from minigpt4.errors import UserError
from minigpt4.model.modeling import MiniGPT4ForConditionalGeneration

WIDE = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 4}
LORA = {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}


def test_wrong_wishes_are_said(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="8bit or 4bit, not '3bit'"):
        quantization_config("3bit", torch.float32)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"minigpt4\[quant\]"):
        quantization_config("4bit", torch.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    model = tiny_model(text_config=tiny_llama(**WIDE), lora=LORA)
    model.save_pretrained(folder)
    tiny_processor(model.config).save_pretrained(folder)
    return folder


def likeness(a, b):
    return torch.cosine_similarity(a.flatten(), b.flatten(), 0).item()


@pytest.mark.parametrize(("bits", "least"), [("8bit", 0.99), ("4bit", 0.85)])
def test_a_llm_in_few_bits_says_nearly_the_same(folder, bits, least):
    pytest.importorskip("bitsandbytes")
    whole, _ = load_system(folder, dtype=torch.float32)
    assistant = minigpt4.load(folder, dtype="float32", quantize=bits, device="cpu")
    model = assistant.model
    linear = model.language_model.model.layers[0].mlp.up_proj
    assert type(linear).__name__ == {"8bit": "Linear8bitLt", "4bit": "Linear4bit"}[bits]
    assert type(model.projection) is torch.nn.Linear
    assert type(model.vision_tower.encoder.layers[0].mlp.fc1) is torch.nn.Linear
    assert type(model.language_model.lm_head) is torch.nn.Linear
    pixels = torch.randn(1, 3, 32, 32)
    ids = torch.tensor([[5, *[model.config.image_token_id] * model.config.num_image_tokens, *range(10, 20)]])
    with torch.no_grad():
        assert torch.equal(model.get_image_features(pixels), whole.get_image_features(pixels))
        have, want = (m(input_ids=ids, pixel_values=pixels).logits for m in (model, whole))
    assert least < likeness(have, want) < 1
    assert model.generate(input_ids=ids, pixel_values=pixels, max_new_tokens=3, do_sample=False).shape == (1, 3)


def test_a_trained_folder_over_a_llm_in_few_bits(tmp_path):
    pytest.importorskip("bitsandbytes")
    base = tiny_model(text_config=tiny_llama(**WIDE))
    processor = tiny_processor(base.config)
    base.vision_tower.save_pretrained(tmp_path / "vision")
    base.language_model.save_pretrained(tmp_path / "llm")
    processor.tokenizer.save_pretrained(tmp_path / "llm")
    sources = {"vision_source": str(tmp_path / "vision"), "text_source": str(tmp_path / "llm")}
    config = tiny_config(text_config=tiny_llama(**WIDE), lora=LORA, **sources)
    model = MiniGPT4ForConditionalGeneration(config, base.vision_tower, base.language_model)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, 0, 0.3)
    save_trained(model, processor, tmp_path / "trained")
    whole, _ = load_system(tmp_path / "trained", dtype=torch.float32)
    few, _ = load_system(tmp_path / "trained", dtype=torch.float32, quantize="8bit")
    assert type(few.language_model.model.layers[0].mlp.up_proj).__name__ == "Linear8bitLt"
    ids = torch.tensor([[5, *range(10, 20)]])
    with torch.no_grad():
        assert 0.99 < likeness(few(input_ids=ids).logits, whole(input_ids=ids).logits) < 1


def test_a_device_map_places_the_system(folder):
    model, _ = load_system(folder, dtype=torch.float32, device_map="auto")
    whole, _ = load_system(folder, dtype=torch.float32)
    ids = torch.tensor([[5, *range(10, 20)]])
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, whole(input_ids=ids).logits)


@pytest.mark.parametrize("options", [["--quantize", "8bit", "--device", "cpu"], ["--device", "auto"]])
def test_commands_take_both(folder, tmp_path, capsys, options):
    pytest.importorskip("bitsandbytes")
    photo = tmp_path / "photo.png"
    Image.new("RGB", (40, 30), "red").save(photo)
    arguments = ["ask", str(photo), "what?", "--model", str(folder), "--dtype", "float32", "--max-new-tokens", "4", "--json"]
    app([*arguments, *options], standalone_mode=False)
    assert '"answer"' in capsys.readouterr().out
