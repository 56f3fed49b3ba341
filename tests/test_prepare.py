"""A base whose vision encoder is set to give more begins as the base was, and its vision encoder sees as it did."""

from pathlib import Path

import pytest
import torch
from conftest import tiny_folder
from test_train import recipe_of, world  # noqa: F401  (a fixture)

from minigpt4.checkpoints.folders import read_task_settings, write_task_settings
from minigpt4.checkpoints.loading import load_system
from minigpt4.errors import UserError
from minigpt4.model.adapters import learn_merged, merged_for_use
from minigpt4.model.vision.efficientnet_lite import EfficientNetLiteConfig
from minigpt4.train.loop import train
from minigpt4.train.recipe import parse_recipe
from minigpt4.train.setup import parameter_groups, prepare

VISION = {"image_size": 128, "width_multiplier": 0.3, "depth_multiplier": 0.5}


def prepared(world, base, **config):
    changes = {"model": {"base": str(base), "config": {"concat_order": "square"} | config}, "trained__lora": None}
    return prepare(parse_recipe(recipe_of(world, world / "x", **changes), "test"))[0]


@pytest.fixture
def base(tmp_path):
    return tiny_folder(tmp_path / "base", vision_config=EfficientNetLiteConfig(**VISION), concat_order="square")


def test_a_system_that_is_told_places_begins_as_it_was(world, base):
    narrow = load_system(base, dtype=torch.float32)[0]
    wide = prepared(world, base, position_octaves=3)
    assert wide.config.token_width == narrow.config.token_width + 12
    pixels = torch.randn(3, 3, 128, 128)
    tokens = wide.get_vision_tokens(pixels)
    torch.testing.assert_close(tokens, narrow.get_vision_tokens(pixels))
    torch.testing.assert_close(tokens, wide.get_vision_tokens(pixels))  # looking has not changed the vision encoder
    torch.testing.assert_close(wide.get_image_features(pixels), narrow.get_image_features(pixels), atol=1e-5, rtol=1e-5)
    older = prepared(world, base, vision_config={"coordinates": 3, "coordinate_scale": 8.0})  # as recipes said it before
    assert (older.config.position_octaves, older.config.position_scale) == (3, 8.0)


def test_no_image_goes_without_what_tells_places(world, base):
    config = {"concat_order": "square", "position_octaves": 3}
    changes = {"model": {"base": str(base), "config": config}, "trained__lora": None, "trained__vision_dropout": 0.9}
    model = prepare(parse_recipe(recipe_of(world, world / "x", **changes), "test"))[0]
    model.vision_tower.bn1.bias.data += 1  # random vision encoders this small see next to nothing
    weight = model.projection.weight.data.view(-1, 4, model.config.token_width)
    weight[..., -12:] = 1.0
    pixels = torch.randn(2, 3, 128, 128)
    whole = model.get_image_features(pixels)
    assert not torch.allclose(model.train().get_image_features(pixels), whole)
    weight[..., :-12] = 0.0
    torch.testing.assert_close(model.get_image_features(pixels), model.eval().get_image_features(pixels))


def test_adapters_of_the_base_are_kept(world, base, tmp_path):
    first = train(parse_recipe(recipe_of(world, tmp_path / "first", model={"base": str(base)}, steps=2), "test"))
    narrow = load_system(first, dtype=torch.float32, merge=False)[0]
    changes = {"model": {"base": str(first), "config": {"position_octaves": 3}}}
    wide = prepare(parse_recipe(recipe_of(world, tmp_path / "x", **changes), "test"))[0]
    for name, weight in narrow.language_model.state_dict().items():
        torch.testing.assert_close(wide.language_model.state_dict()[name], weight)
    assert any(".lora_B." in name and weight.any() for name, weight in narrow.language_model.state_dict().items())


@pytest.mark.parametrize("vision", [{"width_multiplier": 0.5}, {"feature_maps": ["stage5"]}])
def test_a_vision_with_other_weights_or_less_to_say_is_refused(world, base, vision):
    with pytest.raises(UserError, match="vision_config"):
        prepared(world, base, **vision)


def test_merged_for_use_is_the_same_model_and_leaves_no_trace(world, base):
    model = prepare(parse_recipe(recipe_of(world, world / "x", model={"base": str(base)}), "test"))[0]
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.3)
    before = {name: weight.clone() for name, weight in model.language_model.state_dict().items()}
    ids = torch.arange(10)[None]
    apart = model.language_model(ids).logits
    with merged_for_use(model.language_model):
        merged = model.language_model(ids).logits
        assert any(not torch.equal(weight, before[name]) for name, weight in model.language_model.state_dict().items())
    torch.testing.assert_close(merged, apart, atol=1e-4, rtol=1e-4)
    after = model.language_model.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    assert torch.equal(model.language_model(ids).logits, apart)


def test_merged_adapters_have_the_same_outputs_and_gradients(world, base):
    given = recipe_of(world, world / "x", model={"base": str(base)}, trained__lora__dropout=0.0, precision="fp32")
    model = prepare(parse_recipe(given, "test"))[0]
    learnt = {n: p for n, p in model.language_model.named_parameters() if p.requires_grad}
    for name, parameter in learnt.items():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.3)
    ids = torch.arange(12)[None]

    def look(lr):
        model.zero_grad()
        logits = model.language_model(ids).logits
        logits.logsumexp(-1).sum().backward()
        gradients = {name: parameter.grad.clone() for name, parameter in learnt.items()}
        with torch.no_grad():
            for parameter in learnt.values():
                parameter -= lr * parameter.grad
        return logits.detach(), gradients

    start = {name: parameter.detach().clone() for name, parameter in learnt.items()}
    apart = [look(0.01), look(0.01)]
    with torch.no_grad():
        for name, parameter in learnt.items():
            parameter.copy_(start[name])
    learn_merged(model.language_model)
    for (logits, gradients), (one, its) in zip(apart, [look(0.01), look(0.0)], strict=True):  # also after a step
        torch.testing.assert_close(one, logits, atol=1e-4, rtol=1e-4)
        for name in gradients:
            torch.testing.assert_close(its[name], gradients[name], atol=1e-3, rtol=1e-3)
    with merged_for_use(model.language_model), torch.no_grad():
        inside = model.language_model(ids).logits
    torch.testing.assert_close(inside, look(0.0)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"trained__lora__dropout": 0.1}, {"trained__lora": None}, {"compile": True}, {"sharding": "fsdp"}]
)
def test_merged_adapters_say_what_they_do_not_go_with(world, wrong):
    given = recipe_of(world, world / "x", **{"trained__lora__dropout": 0.0, "merged_adapters": True, **wrong})
    with pytest.raises(UserError, match="merged_adapters"):
        parse_recipe(given, "test")


def test_only_the_end_of_the_vision_learns_at_its_own_rate(world, base):
    given = recipe_of(world, world / "x", model={"base": str(base)}, trained__vision_tower=True, trained__vision_layers=2)
    model = prepare(parse_recipe(given, "test"))[0]
    vision = model.vision_tower
    last = len(vision.blocks) - 2
    learnt = {name for name, parameter in vision.named_parameters() if parameter.requires_grad}
    assert learnt == {
        name
        for name, _ in vision.named_parameters()
        if name.startswith(("conv_head.", "bn1.", f"blocks.{last}.", f"blocks.{last + 1}."))
    }
    groups = parameter_groups(model, 0.1, projection_factor=2.0, vision_factor=0.25)
    factor = {id(parameter): group["factor"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            wanted = {"vision_tower": 0.25, "projection": 2.0}.get(name.split(".")[0], 1.0)
            assert factor.pop(id(parameter)) == wanted
    assert not factor


def test_the_end_of_a_vision_learns_in_half_precision(world, base, tmp_path):
    """Its beginning is in bfloat16, its end in float32, and norms have statistics of the type of their weights."""
    given = recipe_of(world, tmp_path / "out", model={"base": str(base)}, precision="bf16", steps=2)
    given["trained"] |= {"vision_tower": True, "vision_layers": 3}
    tuned = load_system(train(parse_recipe(given, "test")), dtype=torch.float32)[0].vision_tower.state_dict()
    own = load_system(base, dtype=torch.float32)[0].vision_tower.state_dict()
    assert not torch.equal(tuned["conv_head.weight"], own["conv_head.weight"])
    for name in ("conv_stem.weight", "bn1.running_mean", "bn1.running_var"):
        torch.testing.assert_close(tuned[name], own[name])


def test_more_layers_than_the_vision_has_are_refused(world, base):
    given = recipe_of(world, world / "x", model={"base": str(base)}, trained__vision_tower=True, trained__vision_layers=99)
    with pytest.raises(UserError, match="vision_layers: 99"):
        prepare(parse_recipe(given, "test"))
    with pytest.raises(UserError, match="vision_tower: true"):
        parse_recipe(given | {"trained": {"vision_layers": 1}}, "test")


def test_a_vision_that_learnt_and_settings_by_task_are_kept_by_the_stages_after_it(world, base, tmp_path):
    first = recipe_of(world, tmp_path / "first", model={"base": str(base)}, trained__vision_tower=True, steps=2)
    first = train(parse_recipe(first, "test"))
    tuned, own = (load_system(folder, dtype=torch.float32)[0].vision_tower.state_dict() for folder in (first, base))
    changed = {name for name in own if not torch.equal(own[name], tuned[name])}
    assert "conv_stem.weight" in changed
    settings = {"caption": {"num_beams": 3}}
    write_task_settings(first, settings)
    assert not any("running" in name for name in changed)  # the statistics are those of many more pictures
    for lora in (recipe_of(world, "")["trained"]["lora"], None):  # the adapters go on, or become part of the base
        folder = tmp_path / f"then-{bool(lora)}"
        given = recipe_of(
            world, folder, model={"base": str(first), "config": {"concat_order": "row"}}, trained__lora=lora, steps=2
        )
        third = recipe_of(world, tmp_path / f"last-{bool(lora)}", model={"base": str(folder)}, trained__lora=lora, steps=2)
        for stage in (given, third):
            later = load_system(train(parse_recipe(stage, "test")), dtype=torch.float32)[0].vision_tower.state_dict()
            for name in tuned:
                torch.testing.assert_close(later[name], tuned[name], msg=name)
            assert read_task_settings(Path(stage["output"])) == settings
