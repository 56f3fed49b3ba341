"""Stage after stage: what was written is, loaded again, what was trained, whatever became of the adapters before it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import tiny_folder
from test_train import LORA, metrics, recipe_of, run, world  # noqa: F401  (a fixture)

import minigpt4
from minigpt4.checkpoints.folders import read_config, read_task_settings, write_task_settings
from minigpt4.checkpoints.loading import load_system, save_trained, stored_name
from minigpt4.checkpoints.official.exporting import _merged_before
from minigpt4.checkpoints.pocket import FOLDERS
from minigpt4.checkpoints.trained import read_trained, write_trained
from minigpt4.errors import UserError
from minigpt4.model.vision.efficientnet_lite import EfficientNetLiteConfig
from minigpt4.train.average import average
from minigpt4.train.loop import Trainer
from minigpt4.train.recipe import load_recipe, parse_recipe
from minigpt4.train.setup import prepare

STEADY = LORA | {"dropout": 0.0}
WIDER = STEADY | {"r": 8}
VISION = EfficientNetLiteConfig(image_size=128, width_multiplier=0.3, depth_multiplier=0.5)


def stage(world, output, base, lora, fresh=(), **changes):
    changes = {"steps": 3, "validation": {"every": 100}, "trained__lora": lora} | changes
    return run(recipe_of(world, output, model={"base": str(base), "fresh": list(fresh)}, **changes))


@pytest.fixture
def seen(monkeypatch):
    """The language models of runs when they wrote their results, each as what it says of a few tokens."""
    found = []
    write = Trainer._write_result

    def writing(self):
        with torch.no_grad():
            found.append(self.model.eval().language_model(torch.arange(5, 25)[None]).logits)
        write(self)

    monkeypatch.setattr(Trainer, "_write_result", writing)
    return found


@torch.no_grad()
def says(folder):
    return load_system(folder, dtype=torch.float32)[0].language_model(torch.arange(5, 25)[None]).logits


CHAINS = {
    "merged, then of the same form again": ([STEADY, None, STEADY], (), "merged"),
    "continued, then merged": ([STEADY, STEADY, None], (), "merged"),
    "merged twice": ([STEADY, None, WIDER, None], (), "merged"),
    "begun anew in another form": ([STEADY, WIDER], ("lora",), "none"),
    "begun anew and left out": ([STEADY, None], ("lora",), "none"),
    "begun anew over merged ones": ([STEADY, None, WIDER, None], ("lora",), "none"),
    "begun anew in the same form": ([STEADY, STEADY], ("lora",), "none"),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_a_stage_loads_as_it_was_trained(world, tmp_path, seen, chain):
    loras, fresh, adapters = CHAINS[chain]
    folder = world / "base"
    for number, lora in enumerate(loras):
        anew = fresh if number == len(loras) - 1 else ()
        folder = stage(world, tmp_path / str(number), folder, lora, anew)
        torch.testing.assert_close(says(folder), seen[-1], atol=1e-3, rtol=1e-4)
    assert json.loads((folder / "config.json").read_text())["base_adapters"] == adapters
    assert _merged_before(read_config(folder)) == (adapters == "merged" or len(loras) > 2)


def test_a_whole_system_s_adapters_go_on_merge_or_begin_anew(world, tmp_path, seen):
    base = tiny_folder(tmp_path / "whole", lora=STEADY)
    for number, (lora, fresh, adapters) in enumerate(
        [(STEADY, (), "continued"), (WIDER, (), "merged"), (None, ("lora",), "none"), (STEADY, ("lora",), "continued")]
    ):
        folder = stage(world, tmp_path / str(number), base, lora, fresh)
        torch.testing.assert_close(says(folder), seen[-1], atol=1e-3, rtol=1e-4)
        assert read_config(folder).base_adapters == adapters


def test_folders_that_do_not_say_what_became_of_adapters_load_as_before(world, tmp_path, seen):
    """And what is made of them says it: their form alone does not tell."""
    first = stage(world, tmp_path / "first", world / "base", STEADY)
    second = stage(world, tmp_path / "second", first, None)
    config = json.loads((second / "config.json").read_text())
    assert config.pop("base_adapters") == "merged"
    (second / "config.json").write_text(json.dumps(config))
    torch.testing.assert_close(says(second), seen[-1], atol=1e-3, rtol=1e-4)
    third = stage(world, tmp_path / "third", second, STEADY)
    torch.testing.assert_close(says(third), seen[-1], atol=1e-3, rtol=1e-4)


def test_a_vision_encoder_that_gives_more_gives_it_when_it_is_loaded(world, tmp_path):
    base = tiny_folder(tmp_path / "base", vision_config=VISION, concat_order="square")
    model = {"base": str(base), "config": {"vision_config": {"feature_maps": ["stage5", "head"]}}}
    changes = {"steps": 2, "validation": {"every": 2}, "trained__lora": None}
    wide = run(recipe_of(world, tmp_path / "wide", model=model, **changes))
    assert read_config(wide).base_source == str(base)
    assert isinstance(minigpt4.load(wide, dtype="float32").ask(world / "data/shapes-0.png", "?", max_new_tokens=2), str)
    valid = {"datasets": [{"format": "jsonl", "annotations": str(world / "data/valid.jsonl")}]}
    wide = run(recipe_of(world, tmp_path / "measured", model=model, **changes | {"validation": valid | {"every": 2}}))
    again = stage(world, tmp_path / "again", wide, None, steps=1, validation=valid)
    assert metrics(again, "valid_loss")[0] == pytest.approx(metrics(wide, "valid_loss")[2], rel=1e-5)


def test_a_stage_into_a_used_output_leaves_nothing_of_the_one_before(world, tmp_path):
    """Its adapters, settings by task and tokenizer would be taken for the new one's."""
    settings = {"caption": {"num_beams": 3}}
    first = stage(world, tmp_path / "first", world / "base", STEADY)
    write_task_settings(first, settings)
    out = stage(world, tmp_path / "out", first, STEADY)
    assert read_task_settings(out) == settings
    for name in ("tokenizer_config.json", "notes.txt"):
        (out / name).write_text("{}")
    shutil.rmtree(out / "checkpoints")  # as docs/your-own-data.md says
    assert stage(world, tmp_path / "out", world / "base", None) == out
    minigpt4.load(out, dtype="float32")
    left = {path.name for path in out.iterdir()}
    assert "notes.txt" in left
    assert not left & {"adapter_model.safetensors", "adapter_config.json", "task_settings.json", "tokenizer_config.json"}


def test_a_mean_in_a_used_folder_is_of_its_own_parts_alone(world, tmp_path):
    parts = {}
    for name, lora in (("a", STEADY), ("b", STEADY), ("c", None), ("d", None)):
        parts[name] = str(stage(world, tmp_path / name, world / "base", lora, steps=1))
    write_task_settings(Path(parts["b"]), {"caption": {"num_beams": 3}})
    (Path(parts["b"]) / "added_tokens.json").write_text("{}")  # of a tokenizer of its own
    average({parts["a"]: 1, parts["b"]: 1}, tmp_path / "mean")
    assert (tmp_path / "mean" / "added_tokens.json").exists()
    assert read_task_settings(tmp_path / "mean")
    average({parts["c"]: 1, parts["d"]: 1}, tmp_path / "mean")
    minigpt4.load(tmp_path / "mean", dtype="float32")
    assert not read_task_settings(tmp_path / "mean")
    assert not (tmp_path / "mean" / "added_tokens.json").exists()


def test_a_system_saved_over_another_is_that_one(world, tmp_path):
    model, processor = load_system(stage(world, tmp_path / "a", world / "base", STEADY, steps=1), merge=False)
    save_trained(model, processor, tmp_path / "out", task_settings={"caption": {"num_beams": 3}})
    (tmp_path / "out" / "tokenizer_config.json").write_text("{}")
    model, processor = load_system(stage(world, tmp_path / "b", world / "base", None, steps=1))
    save_trained(model, processor, tmp_path / "out")
    load_system(tmp_path / "out")
    assert not read_task_settings(tmp_path / "out")


def test_a_mean_is_of_one_system(world, tmp_path):
    """Tensors of the same shapes were added up whatever they were multiplied with and added to."""
    torch.manual_seed(5)
    other = tiny_folder(tmp_path / "other")
    one = stage(world, tmp_path / "one", world / "base", STEADY, steps=1)
    merged = stage(world, tmp_path / "merged", one, None, steps=1)
    stages = {
        "adapters differ": stage(world, tmp_path / "a", world / "base", STEADY | {"alpha": 64}, steps=1),
        "frozen weights differ": stage(world, tmp_path / "b", other, STEADY, steps=1),
        r"frozen weights differ\)$": stage(world, tmp_path / "c", merged, STEADY, steps=1),
        "connectors differ": stage(
            world, tmp_path / "d", world / "base", STEADY, steps=1, model__config={"concat_order": "square"}
        ),
    }
    for differ, folder in stages.items():
        with pytest.raises(UserError, match=f"{folder}: these are not weights of the same system as {one}.*{differ}"):
            average({str(one): 1, str(folder): 1}, tmp_path / "mean")
        assert not (tmp_path / "mean").exists()
    on = stage(world, tmp_path / "on", one, STEADY | {"dropout": 0.5, "target_modules": ["v_proj", "q_proj"]}, steps=1)
    average({str(one): 1, str(on): 1}, tmp_path / "mean")


def test_the_pocket_has_a_mean_with_what_is_trained_from_it(tmp_path):
    """As recipes/pocket/pipeline.yaml makes one: its folder is older than what training writes today."""
    config = read_config(FOLDERS["pocket"])
    recipe = load_recipe(Path(__file__).parents[1] / "recipes/pocket/talk.yaml")
    assert recipe.model.base == "pocket"
    config.lora = recipe.trained.lora.model_dump()
    run = tmp_path / "run"
    config.save_pretrained(run)
    shutil.copy(FOLDERS["pocket"] / "processor_config.json", run)
    write_trained(run, read_trained(FOLDERS["pocket"]), config.lora)
    average({str(FOLDERS["pocket"]): 0.25, str(run): 0.75}, tmp_path / "mean")
    weights, mean = read_trained(FOLDERS["pocket"]), read_trained(tmp_path / "mean")
    assert all(torch.equal(weights[name], mean[name]) for name in weights)


def prepared(world, tmp_path, base, lora, fresh=()):
    given = recipe_of(
        world, tmp_path / "x", model={"base": str(base), "fresh": list(fresh)}, trained__lora=lora, precision="bf16"
    )
    return prepare(parse_recipe(given, "test")).model


def test_a_stage_begins_with_what_the_last_one_learnt_not_rounded(world, tmp_path):
    """What is learnt is in float32; it was read in the precision of what is frozen."""
    first = stage(world, tmp_path / "first", world / "base", STEADY, precision="bf16")
    stored = read_trained(first)
    own = {stored_name(name): p for name, p in prepared(world, tmp_path, first, STEADY).named_parameters() if p.requires_grad}
    assert set(own) == set(stored)
    assert any(not torch.equal(value, value.bfloat16().float()) for value in stored.values())
    assert all(torch.equal(own[name], value) for name, value in stored.items())
    anew = prepared(world, tmp_path, first, STEADY, ("projection", "lora"))
    assert not torch.equal(anew.projection.weight, stored["projection.weight"])
    assert not any(p.any() for name, p in anew.named_parameters() if ".lora_B." in name)


def test_adapters_are_merged_as_they_are_when_the_system_is_loaded(world, tmp_path):
    first = stage(world, tmp_path / "first", world / "base", STEADY, precision="bf16")
    merged = prepared(world, tmp_path, first, None).language_model.state_dict()
    loaded = load_system(first, dtype=torch.bfloat16)[0].language_model.state_dict()
    assert all(torch.equal(merged[name], weight) for name, weight in loaded.items())
