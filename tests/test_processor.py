"""The processor and the model take what those of other systems in transformers take, and refuse the rest by name."""

import base64
import io

import numpy as np
import pytest
import torch
from conftest import tiny_config, tiny_model, tiny_processor
from PIL import Image

from minigpt4.errors import UserError
from minigpt4.prompt.templates import IMAGE


@pytest.fixture
def processor():
    return tiny_processor(tiny_config())


@pytest.fixture
def photo(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "a.png"
    Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return path


def forms(path):
    """One picture in every form."""
    data = path.read_bytes()
    array = np.asarray(Image.open(path))
    tensor = torch.from_numpy(array.copy())
    encoded = base64.b64encode(data).decode()
    return {
        "str": str(path),
        "path": path,
        "file address": f"file://{path}",
        "data address": f"data:image/png;base64,{encoded}",
        "pil": Image.open(path),
        "bytes": data,
        "file": io.BytesIO(data),
        "array": array,
        "channels first": array.transpose(2, 0, 1),
        "tensor": tensor,
        "floats": tensor.permute(2, 0, 1) / 255,
        "batch": array[None],
        "nested": [[array]],
    }


def test_an_image_in_any_form_gives_the_same_pixels(processor, photo):
    wanted = processor.image_processor(photo)["pixel_values"]
    for name, given in forms(photo).items():
        out = processor(images=given, text=f"{IMAGE} a")
        assert torch.equal(out["pixel_values"], wanted), name
    with pytest.raises(UserError, match="values from 0 to 1"):
        processor(images=wanted[0], text=IMAGE)
    with pytest.raises(UserError, match="found int"):
        processor(images=[3], text=IMAGE)
    with pytest.raises(UserError, match=r"shape \(5, 7, 9\) is no image"):
        processor(images=np.zeros((5, 7, 9), np.uint8), text=IMAGE)


def test_nested_lists_are_counted_text_by_text(processor, photo):
    texts = [f"{IMAGE} {IMAGE} a", f"{IMAGE} b"]
    assert processor(images=[[photo, photo], [photo]], text=texts)["pixel_values"].shape[0] == 3
    with pytest.raises(UserError, match=r"\[2, 1\] placeholder.*\[1, 2\] picture"):
        processor(images=[[photo], [photo, photo]], text=texts)


@pytest.mark.parametrize("key", ["image", "path", "url", "image_url", "base64"])
def test_parts_of_messages(processor, photo, key):
    encoded = base64.b64encode(photo.read_bytes()).decode()
    value = {"url": f"file://{photo}", "image_url": {"url": f"data:image/png;base64,{encoded}"}, "base64": encoded}.get(
        key, str(photo)
    )
    kind = "image_url" if key == "image_url" else "image"
    conversation = [{"role": "user", "content": [{"type": kind, key: value}, {"type": "text", "text": "a <ImageHere>?"}]}]
    out = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert out["pixel_values"].shape[0] == 1
    assert out["input_ids"][0].tolist() == processor.prompt_ids([{"role": "user", "content": f"{IMAGE} a < ImageHere>?"}])
    for part in ({"type": "image"}, {"type": "video", "path": "x"}, {"type": "text", "path": "x"}):
        with pytest.raises(UserError, match="part"):
            processor.apply_chat_template([{"role": "user", "content": [part]}])


def test_batches_of_conversations(processor, photo):
    said = [{"role": "user", "content": "a"}]
    longer = [{"role": "user", "content": [{"type": "image", "path": photo}, {"type": "text", "text": "bcd"}]}]
    texts = processor.apply_chat_template([said, longer])
    assert texts == [processor.apply_chat_template(one) for one in (said, longer)]
    out = processor.apply_chat_template([said, longer], add_generation_prompt=True, tokenize=True, return_dict=True)
    assert out["attention_mask"].sum(1).tolist() == [
        processor.apply_chat_template(one, add_generation_prompt=True, tokenize=True).shape[1] for one in (said, longer)
    ]
    assert out["pixel_values"].shape[0] == 1


def test_padding_and_truncation(processor, photo):
    texts = ["abc", "abcdef"]
    assert processor(text=texts)["input_ids"].shape == (2, 6)
    assert processor(text=texts, padding="max_length", max_length=9)["input_ids"].shape == (2, 9)
    cut = processor(text=texts, truncation=True, max_length=4)
    assert cut["attention_mask"].sum(1).tolist() == [3, 4]
    assert processor(text=texts, padding=False, return_tensors=None)["input_ids"] == [processor.encode(text) for text in texts]
    with pytest.raises(UserError, match="unequal length"):
        processor(text=texts, padding=False)
    with pytest.raises(UserError, match="cut into a picture"):
        processor(images=photo, text=f"{IMAGE}abc", truncation=True, max_length=6)
    with pytest.raises(UserError, match="needs max_length"):
        processor(text=texts, padding="max_length")


@pytest.mark.parametrize("wrong", [{"paddding": True}, {"max_lenght": 3}, {"videos": [1]}, {"add_special_tokens": True}])
def test_unknown_keywords_are_refused_by_name(processor, wrong):
    (name,) = wrong
    with pytest.raises(UserError, match=f"unknown keyword '{name}'"):
        processor(text="a", **wrong)
    with pytest.raises(UserError, match=f"unknown keyword '{name}'"):
        processor.apply_chat_template([{"role": "user", "content": "a"}], **wrong)
    assert processor(text="a", videos=None, audio=None)["input_ids"].shape == (1, 1)


def test_resizing_the_word_embeddings_resizes_the_head():
    model = tiny_model()
    model.resize_token_embeddings(140)
    assert model.get_output_embeddings().weight.shape[0] == model.get_input_embeddings().weight.shape[0] == 140
    assert model(input_ids=torch.tensor([[3, 4]])).logits.shape[-1] == 140
