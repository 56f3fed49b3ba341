"""The network against plain `transformers` composition, and against itself under every way of calling it."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_clip, tiny_config, tiny_eva, tiny_llama, tiny_model, tiny_processor, tiny_qformer
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    ConvNextConfig,
    Dinov2Config,
    GPT2Config,
    MambaConfig,
    Qwen2Config,
    ResNetConfig,
    SiglipVisionConfig,
    SwinConfig,
)

from minigpt4.model import MiniGPT4Config, MiniGPT4ForConditionalGeneration
from minigpt4.model.connector import ConcatConnector
from minigpt4.model.modeling import IGNORE
from minigpt4.model.vision.efficientnet_lite import EfficientNetLiteConfig


def inputs(model, images=(1, 2), words=7):
    """Rows with one and two pictures among random words, unequal in length and padded on the left."""
    k, image = model.config.num_image_tokens, model.config.image_token_id
    rows = []
    for i, n in enumerate(images):
        row = torch.randint(3, 100, (words + 3 * i,)).tolist()
        for j in range(n):
            row[2 + 3 * j : 2 + 3 * j] = [image] * k
        rows.append(row)
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(r)) + r for r in rows])
    mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows])
    pixels = torch.randn(sum(images), 3, model.config.image_size, model.config.image_size)
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}


def by_hand(model, batch):
    """The same system written out: tower, connector, Linear, embeddings with pictures put in one by one, causal LM."""
    tokens = model.vision_tower(batch["pixel_values"]).last_hidden_state
    if model.config.connector == "qformer":
        queries = model.connector.query_tokens.expand(len(tokens), -1, -1)
        features = model.connector.qformer(query_embeds=queries, encoder_hidden_states=tokens).last_hidden_state
    else:
        patches = tokens[:, 1:]
        features = torch.stack(
            [torch.cat([p[i : i + 4] for i in range(0, len(p), 4)]).view(-1, 4 * p.shape[1]) for p in patches]
        )
    images = iter(F.linear(features, model.projection.weight, model.projection.bias))
    words = model.language_model.get_input_embeddings()
    rows = []
    for ids in batch["input_ids"].tolist():
        row, position = [], 0
        while position < len(ids):
            if ids[position] == model.config.image_token_id:
                image = next(images)
                row += list(image)
                position += len(image)
            else:
                row.append(words.weight[ids[position]])
                position += 1
        rows.append(torch.stack(row))
    return model.language_model(inputs_embeds=torch.stack(rows), attention_mask=batch["attention_mask"]).logits


@torch.no_grad()
def test_forward_equals_plain_transformers_composition(model):
    batch = inputs(model)
    torch.testing.assert_close(model(**batch).logits, by_hand(model, batch), atol=1e-5, rtol=1e-5)


VISION = {
    "clip": tiny_clip(),
    "siglip": SiglipVisionConfig(
        image_size=32, patch_size=8, hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    ),
    "dinov2": Dinov2Config(image_size=32, patch_size=8, hidden_size=24, num_hidden_layers=1, num_attention_heads=2),
    "eva": tiny_eva(),
    "efficientnet_lite": EfficientNetLiteConfig(image_size=128, width_multiplier=0.3, depth_multiplier=0.5),
    # whose last feature map is a grid of 4 x 4: as (B, C, 4, 4), as (B, 16, C), and without a size of its own
    "convnext": ConvNextConfig(image_size=128, patch_size=4, hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1]),
    "swin": SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4),
    "resnet": ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24], depths=[1, 1, 1], layer_type="basic", image_size=64),
}
LLMS = {
    "llama": tiny_llama(),
    "qwen2": Qwen2Config(
        vocab_size=128, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2
    ),
    "gpt2": GPT2Config(vocab_size=128, n_embd=32, n_layer=1, n_head=4, n_positions=256),
}


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("llm", LLMS)
def test_any_vision_with_any_llm_trains_and_speaks(vision, llm, tmp_path):
    config = MiniGPT4Config(vision_config=VISION[vision], text_config=LLMS[llm], concat_order="square")
    model = MiniGPT4ForConditionalGeneration(config).eval()
    batch = inputs(model)
    assert config.num_image_tokens == 4
    loss = model(**batch, labels=batch["input_ids"].masked_fill(batch["input_ids"] >= 100, IGNORE)).loss
    loss.backward()
    assert model.projection.weight.grad.abs().sum() > 0
    assert model.generate(**batch, max_new_tokens=3, do_sample=False, pad_token_id=0).shape == (2, 3)
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).vision_config.model_type == config.vision_config.model_type
    for (name, a), (_, b) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_a_vision_layer_can_be_chosen():
    config = tiny_config(vision_config=tiny_clip(), vision_feature_layer=-2)
    model = MiniGPT4ForConditionalGeneration(config).eval()
    pixels = torch.randn(1, 3, 32, 32)
    expected = model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2]
    assert torch.equal(model.get_vision_tokens(pixels), expected)


def test_last_norm_has_its_own_epsilon():
    model = MiniGPT4ForConditionalGeneration(tiny_config(vision_norm_eps=1e-5))
    assert model.vision_tower.post_layernorm.eps == 1e-5
    assert model.vision_tower.encoder.layers[0].layer_norm1.eps == 1e-6


@pytest.mark.parametrize(
    ("order", "expected"), [("row", [[1, 2, 3, 4], [5, 6, 7, 8]]), ("square", [[1, 2, 5, 6], [3, 4, 7, 8]])]
)
def test_concat_joins_strips_or_squares(order, expected):
    connector = ConcatConnector(tiny_config(vision_config=tiny_eva(), concat_order=order))
    tokens = torch.arange(17.0).view(1, 17, 1)  # the class token is 0, patches count from 1 in raster order
    assert connector(tokens)[0, :2].tolist() == expected


@pytest.mark.parametrize("kind", ["concat", "qformer"])
def test_places_are_told_beside_the_tokens_of_any_vision(kind):
    """Beside 24 channels of a CLIP with a class token: two octaves, by the formula, and noughts for what has no place."""
    qformer = {"qformer_config": tiny_qformer(encoder_hidden_size=24 + 8)} if kind == "qformer" else {}
    model = tiny_model(kind, vision_config=tiny_clip(), position_octaves=2, position_scale=3.0, **qformer)
    tokens = torch.randn(2, 1 + 16, 24)
    seen = model.connector.positions(tokens)
    assert torch.equal(seen[..., :24], tokens)
    assert not seen[:, 0, 24:].any()
    for place in range(16):
        x, y = ((v + 0.5) / 4 * math.pi for v in (place % 4, place // 4))
        waves = [f(2**k * v) for k in (0, 1) for v in (x, y) for f in (math.sin, math.cos)]
        torch.testing.assert_close(seen[:, 1 + place, 24:], 3.0 * torch.tensor(waves).expand(2, 8))
    moved = torch.cat([tokens[:, :1], tokens[:, 1:].roll(1, 1)], 1)
    assert model.get_image_features(vision_tokens=tokens).shape == (2, model.config.num_image_tokens, 32)
    if kind == "qformer":  # which without them reads tokens in any order alike
        same = tiny_model(kind, vision_config=tiny_clip())
        torch.testing.assert_close(same.connector(tokens), same.connector(moved))
        assert not torch.allclose(model.connector(tokens), model.connector(moved))


def test_older_files_have_the_places_in_the_vision_s_part():
    vision = {"model_type": "efficientnet_lite", "image_size": 64, "coordinates": 4, "coordinate_scale": 8.0}
    config = MiniGPT4Config(vision_config=vision, text_config=tiny_llama())
    assert (config.position_octaves, config.position_scale, config.token_width) == (4, 8.0, 1280 + 16)
    again = MiniGPT4Config(**config.to_dict())
    assert again.to_dict() == config.to_dict()
    assert "coordinates" not in config.to_dict()["vision_config"]
    assert MiniGPT4Config(vision_config=vision | {"coordinates": 0}, text_config=tiny_llama()).token_width == 1280


def test_images_may_enter_at_every_stage(model):
    batch = inputs(model)
    pixels = batch.pop("pixel_values")
    tokens = model.get_vision_tokens(pixels)
    features = model.get_connector_features(tokens)
    embeds = model.get_image_features(connector_features=features)
    expected = model(**batch, pixel_values=pixels).logits
    for stage in ({"vision_tokens": tokens}, {"connector_features": features}, {"image_embeds": embeds}):
        torch.testing.assert_close(model(**batch, **stage).logits, expected, atol=1e-6, rtol=1e-6)


def test_loss_is_that_of_full_logits_and_so_are_its_gradients(model):
    batch = inputs(model)
    labels = batch["input_ids"].masked_fill(torch.rand(batch["input_ids"].shape) < 0.5, IGNORE)
    labels[batch["input_ids"] >= 100] = IGNORE
    out = model(**batch, labels=labels)
    out.loss.backward()
    gradient = model.projection.weight.grad.clone()
    model.zero_grad()
    logits = model(**batch).logits
    full = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE)
    full.backward()
    torch.testing.assert_close(out.loss, full, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradient, model.projection.weight.grad, atol=1e-6, rtol=1e-5)
    assert len(out.logits) == (labels[:, 1:] != IGNORE).sum()


def test_loss_can_be_divided_by_a_count_from_outside(model):
    batch = inputs(model)
    labels = batch["input_ids"].masked_fill(batch["input_ids"] >= 100, IGNORE)
    count = (labels[:, 1:] != IGNORE).sum()
    mean = model(**batch, labels=labels).loss
    torch.testing.assert_close(model(**batch, labels=labels, num_items_in_batch=2 * count).loss * 2, mean)


def test_wrong_number_of_images_names_both_numbers(model):
    batch = inputs(model)
    batch["pixel_values"] = batch["pixel_values"][:2]
    with pytest.raises(ValueError, match=r"places for 3 picture\(s\).*2 picture\(s\)"):
        model(**batch)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_batch_equals_single(model, num_beams):
    batch = inputs(model, images=(1, 2, 1, 3))
    settings = {"max_new_tokens": 12, "do_sample": False, "num_beams": num_beams}
    together = model.generate(**batch, **settings)
    first = 0
    for i, n in enumerate((1, 2, 1, 3)):
        real = batch["attention_mask"][i].bool()
        alone = model.generate(
            input_ids=batch["input_ids"][i, real][None], pixel_values=batch["pixel_values"][first : first + n], **settings
        )
        first += n
        spoken = alone[0].tolist()
        assert together[i].tolist()[: len(spoken)] == spoken
        assert set(together[i].tolist()[len(spoken) :]) <= {0}  # what has ended is padding, whatever others still say


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 2.0, "no_repeat_ngram_size": 2},
        {"num_return_sequences": 3, "do_sample": True},
    ],
)
@pytest.mark.filterwarnings("ignore:Passing .* with `inputs_embeds`")
def test_a_prompt_is_read_once_for_all_its_beams(model, settings):
    """As if the library had read it for each beam by itself."""
    batch = inputs(model, images=(1, 2))
    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": 7, "pad_token_id": 0} | settings
    embeds = model.embed(batch["input_ids"], model.get_image_features(batch["pixel_values"]))
    torch.manual_seed(0)
    expected = model.language_model.generate(inputs_embeds=embeds, attention_mask=batch["attention_mask"], **settings)
    rows = []
    hook = model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(tuple(kwargs["inputs_embeds"].shape[:2])) if "inputs_embeds" in kwargs else None,
        with_kwargs=True,
    )
    torch.manual_seed(0)
    try:
        found = model.generate(**batch, **settings)
    finally:
        hook.remove()
    assert torch.equal(found, expected)
    length, copies = embeds.shape[1], max(settings.get(key, 1) for key in ("num_beams", "num_return_sequences"))
    assert rows == [(2, length - 1), (2 * copies, 1)]


@pytest.mark.parametrize("settings", [{"use_cache": False}, {"cache_implementation": "static"}])
def test_beams_without_a_growing_cache_say_the_same(model, settings):
    batch = inputs(model, images=(1, 2))
    plain = {"max_new_tokens": 6, "do_sample": False, "num_beams": 3}
    assert torch.equal(model.generate(**batch, **plain, **settings), model.generate(**batch, **plain))


def test_a_recurrent_llm_has_beams_as_well():
    """It keeps states, and no keys and values that beams could share."""
    llm = MambaConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2, state_size=4)
    model = tiny_model(text_config=llm)
    batch = inputs(model, images=(1, 1))
    embeds = model.embed(batch["input_ids"], model.get_image_features(batch["pixel_values"]))
    settings = {"max_new_tokens": 4, "num_beams": 2, "eos_token_id": 7, "pad_token_id": 0}
    expected = model.language_model.generate(inputs_embeds=embeds, attention_mask=batch["attention_mask"], **settings)
    assert torch.equal(model.generate(**batch, **settings), expected)


def test_the_head_multiplies_rows_that_lie_together(model):
    """Rows cut out of a longer tensor give the same; with a frozen head they take a CPU up to 150 times as long."""
    strides = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: strides.append(args[0].stride()))
    ids = torch.arange(8).repeat(3, 1)
    try:
        last = model(ids, logits_to_keep=1).logits
        model.generate(ids, max_new_tokens=2, do_sample=False)
        model.generate(ids[:1], max_new_tokens=2, do_sample=False)
    finally:
        hook.remove()
    hidden = model.config.text_config.hidden_size
    assert strides == [(hidden, hidden, 1)] * 5
    assert torch.allclose(last, model(ids).logits[:, -1:], atol=1e-6)


def test_rows_stop_by_themselves():
    model = tiny_model()
    batch = inputs(model, images=(1, 1))
    free = model.generate(**batch, max_new_tokens=8, do_sample=False)
    eos = free[0, 2].item()  # make what row 0 says third the end of sequence
    ended = model.generate(**batch, max_new_tokens=8, do_sample=False, eos_token_id=eos, pad_token_id=0)
    assert ended[0, 3:].eq(0).all()
    if eos not in free[1].tolist():
        assert torch.equal(ended[1], free[1])


def test_frozen_vision_stays_in_evaluation_mode_and_gets_no_gradient():
    model = tiny_model("qformer")
    model.vision_tower.requires_grad_(False)
    model.train()
    assert not model.vision_tower.training
    assert model.connector.training
    batch = inputs(model)
    assert not model.get_vision_tokens(batch["pixel_values"]).requires_grad


def test_image_token_id_needs_no_embedding_row():
    model = tiny_model()
    assert model.config.image_token_id == model.get_input_embeddings().num_embeddings


def test_config_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="cannot join"):
        tiny_config(concat_factor=3)
    with pytest.raises(ValueError, match="squares"):
        tiny_config(concat_factor=8, concat_order="square")
    with pytest.raises(ValueError, match="reads tokens of width 99"):
        tiny_config("qformer", qformer_config={"encoder_hidden_size": 99})
    with pytest.raises((ValueError, TypeError), match="connector"):
        tiny_config("resampler")


def test_deeper_projection_is_linears_with_gelu_between():
    model = tiny_model(projection_depth=3)
    x = torch.randn(2, 4, model.config.connector_size)
    l1, _, l2, _, l3 = model.projection
    torch.testing.assert_close(model.projection(x), l3(F.gelu(l2(F.gelu(l1(x))))))


def test_auto_processor_round_trip(tmp_path):
    config = tiny_config()
    processor = tiny_processor(config)
    config.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    text = "a<Img><ImageHere></Img> what?"
    assert again.encode(text) == processor.encode(text)
    assert again.image_processor.image_mean == processor.image_processor.image_mean
    assert again.num_image_tokens == config.num_image_tokens
