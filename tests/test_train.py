"""The loop, whole: what a run learns and leaves, with its work divided, in few bits, with rewards, from parts of images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import shapes
import torch
import yaml
from conftest import tiny_folder
from safetensors.torch import load_file

import minigpt4
from minigpt4.checkpoints.trained import read_trained
from minigpt4.errors import UserError
from minigpt4.io.lock import hold
from minigpt4.train.loop import train
from minigpt4.train.recipe import load_recipe, parse_recipe
from minigpt4.train.setup import settled

LORA = {"r": 4, "alpha": 8, "dropout": 0.1, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny system and a tiny dataset, made once."""
    folder = tmp_path_factory.mktemp("world")
    torch.manual_seed(0)
    tiny_folder(folder / "base")
    shapes.write(folder / "data", 12)
    shapes.write(folder / "data", 4, seed=1, name="valid")
    return folder


def recipe_of(world, output, **changes):
    given = {
        "model": {"base": str(world / "base"), "fresh": ["projection"]},
        "trained": {"projection": True, "lora": LORA},
        "data": {
            "datasets": [{"format": "jsonl", "annotations": str(world / "data/shapes.jsonl"), "captions": "all"}],
            "batch": 4,
            "row_tokens": 96,
            "cache_folder": str(world / "cache"),
        },
        "schedule": {"lr": 1e-2, "warmup_steps": 2},
        "validation": {
            "every": 5,
            "datasets": [{"format": "jsonl", "annotations": str(world / "data/valid.jsonl")}],
            "images": [str(world / "data/shapes-0.png")],
        },
        "steps": 10,
        "precision": "fp32",
        "checkpoint_every": 3,
        "output": str(output),
    }
    for key, value in changes.items():
        *path, last = key.split("__")
        place = given
        for step in path:
            place = place.setdefault(step, {})
        place[last] = value
    return given


def run(given):
    return train(parse_recipe(given, "test"))


def metrics(output, key="loss"):
    rows = [json.loads(line) for line in (Path(output) / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row[key] for row in rows if key in row}


def test_a_run_learns_and_leaves_a_system_that_loads(world, tmp_path):
    nameless = {"format": "jsonl", "annotations": str(world / "data/valid.jsonl")}
    changes = {"steps": 30, "validation__datasets": [nameless, nameless]}
    output = run(recipe_of(world, tmp_path / "out", **changes))
    losses = metrics(output)
    assert sorted(losses) == list(range(1, 31))
    assert losses[30] < losses[1] * 0.8
    valid = metrics(output, "valid_loss")
    assert list(valid) == [0, 5, 10, 15, 20, 25, 30]
    assert valid[30] < valid[0]
    for name in ("jsonl", "jsonl-2"):  # none is lost
        assert metrics(output, f"valid_loss/{name}") == pytest.approx(valid)
    assert len(metrics(output, f"answer/{world / 'data/shapes-0.png'}")) == 7
    assistant = minigpt4.load(output, dtype="float32")
    answer = assistant.ask(world / "data/shapes-0.png", "colour?", max_new_tokens=5)
    assert isinstance(answer, str)
    assert "<svg" in (output / "report.html").read_text()
    again = yaml.safe_load((output / "recipe.yaml").read_text())
    assert parse_recipe(again, "saved").model_dump() == parse_recipe(recipe_of(world, output, **changes), "x").model_dump()


def test_merged_adapters_learn_the_same(world, tmp_path):
    given = {"steps": 8, "trained__lora__dropout": 0.0, "precision": "fp32"}
    apart = metrics(run(recipe_of(world, tmp_path / "apart", **given)))
    merged = metrics(run(recipe_of(world, tmp_path / "merged", merged_adapters=True, **given)))
    assert list(merged.values()) == pytest.approx(list(apart.values()), rel=1e-3)


def test_next_stage_begins_with_the_last_ones_weights(world, tmp_path):
    first = run(recipe_of(world, tmp_path / "first", steps=4))
    given = recipe_of(world, tmp_path / "second", steps=2, model={"base": str(first)}, trained__lora=None)
    second = run(given)
    # The first stage's adapters are part of the language model now; the same question gets the same features up to the
    # projection.
    one, two = (minigpt4.load(folder, dtype="float32") for folder in (first, second))
    a, b = (m.model.language_model.state_dict() for m in (one, two))
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-6, rtol=1e-6)
    assert not torch.equal(one.model.projection.weight, two.model.projection.weight)


BOTH = """
import gc, sys
gc.disable()
from pathlib import Path
from minigpt4 import cli
from minigpt4.train import loop
leave_world = loop.leave_world
loop.leave_world = lambda world: None  # the second goes on in the first one's group: who leaves one cannot join it at once
cli.train(Path(sys.argv[1]))
loop.leave_world = leave_world
cli.train(Path(sys.argv[2]))
"""
"""The command for two recipes, one after the other: to start the processes takes longer than what they do."""


@pytest.fixture(scope="module")
def divided(world, tmp_path_factory):
    """What two processes have made of a recipe, in a folder for each way to divide the work."""
    folder = tmp_path_factory.mktemp("divided")
    (folder / "both.py").write_text(BOTH)
    recipes = []
    for sharding in ("ddp", "fsdp"):
        recipes.append(folder / f"{sharding}.yaml")
        recipes[-1].write_text(yaml.safe_dump(recipe_of(world, folder / sharding, trained__lora=STEADY, sharding=sharding)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", folder / "both.py"]
    done = subprocess.run([*launch, *recipes], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return folder


STEADY = LORA | {"dropout": 0.0}  # dropout is each process' own


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_processes_equal_one_with_the_doubled_batch(world, tmp_path, divided, sharding):
    one = run(recipe_of(world, tmp_path / "one", data__batch=8, trained__lora=STEADY))
    losses, expected = metrics(divided / sharding), metrics(one)
    assert losses == pytest.approx(expected, rel=2e-4)
    assert metrics(divided / sharding, "valid_loss") == pytest.approx(metrics(one, "valid_loss"), rel=2e-4)
    weights, truth = read_trained(divided / sharding), read_trained(one)
    for name in truth:
        torch.testing.assert_close(weights[name], truth[name], atol=2e-4, rtol=2e-3)


def test_accumulation_equals_one_large_batch(world, tmp_path):
    lora = LORA | {"dropout": 0.0}
    rows = [json.loads(line) for line in (world / "data/shapes.jsonl").read_text().splitlines()]
    plain = world / "data/plain.jsonl"  # one wording, one answer: nothing is drawn but the order
    plain.write_text("".join(json.dumps(row) + "\n" for row in rows if row.get("question") == "where?"))
    how = {"data__datasets": [{"format": "jsonl", "annotations": str(plain)}], "trained__lora": lora}
    one = run(recipe_of(world, tmp_path / "one", data__batch=8, **how))
    two = run(recipe_of(world, tmp_path / "two", data__batch=4, accumulate=2, **how))
    # sums are made in another order, and Adam makes much of gradients near zero: the first losses are the same but for
    # rounding, later ones nearly
    first = {step: loss for step, loss in metrics(one).items() if step <= 2}
    assert {step: metrics(two)[step] for step in first} == pytest.approx(first, rel=1e-5)
    assert metrics(two) == pytest.approx(metrics(one), rel=2e-3)


def test_cached_features_equal_computed_ones(world, tmp_path):
    cached = run(recipe_of(world, tmp_path / "cached", data__cache_features=True))
    computed = run(recipe_of(world, tmp_path / "computed", data__cache_features=False))
    assert metrics(cached) == pytest.approx(metrics(computed), rel=1e-5)


def test_average_is_what_comes_out(world, tmp_path):
    output = run(recipe_of(world, tmp_path / "out", optimizer__average=0.9, checkpoint_every=10))
    newest = load_file(output / "checkpoints" / "step-00000010" / "trained.safetensors")
    result = load_file(output / "trained.safetensors")
    assert not torch.equal(newest["projection.weight"], result["projection.weight"])


def test_one_training_a_folder(world, tmp_path):
    held = hold(tmp_path / "out", "a training")
    with pytest.raises(UserError, match="out: a training is writing there already"):
        run(recipe_of(world, tmp_path / "out", steps=1))
    held.release()
    run(recipe_of(world, tmp_path / "out", steps=1))


def test_no_number_stops_with_the_batch_kept(world, tmp_path):
    given = recipe_of(world, tmp_path / "out", schedule={"lr": 1e30})
    with pytest.raises(UserError, match=r"the loss is (nan|inf).*bad-batch-step-\d+\.pt.*lower schedule\.lr"):
        run(given)
    (kept,) = (tmp_path / "out").glob("bad-batch-*.pt")
    (batch,) = torch.load(kept)
    assert batch["inputs"]["input_ids"].ndim == 2
    assert any("shapes.jsonl" in name or name for name in batch["ids"])


def test_precision_is_that_of_the_machine(world, tmp_path, monkeypatch):
    """bf16 where it is fast, else fp32; the recipe that is kept says which, and a run does not change it on its way."""
    given = recipe_of(world, tmp_path / "out", precision="auto", steps=2)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False)
    kept = load_recipe(run(given) / "recipe.yaml")
    assert kept.precision == "fp32"
    assert metrics(tmp_path / "out") == metrics(run(recipe_of(world, tmp_path / "same", precision="fp32", steps=2)))
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    assert settled(parse_recipe(given, "test"), "cpu").precision == "bf16"
    with pytest.raises(UserError, match=r"another recipe \(precision was fp32, and is bf16 now\)"):
        run(given)


def test_gradient_checkpointing_changes_nothing(world, tmp_path):
    plain = run(recipe_of(world, tmp_path / "plain", steps=3))
    saving = run(recipe_of(world, tmp_path / "saving", steps=3, gradient_checkpointing=True))
    assert metrics(saving) == pytest.approx(metrics(plain), rel=1e-5)


def test_bf16_trains_too(world, tmp_path):
    losses = metrics(run(recipe_of(world, tmp_path / "out", precision="bf16", steps=20)))
    assert losses[20] < losses[1]


def test_training_nothing_is_refused(world, tmp_path):
    with pytest.raises(UserError, match="trains nothing"):
        run(recipe_of(world, tmp_path / "out", trained={"projection": False}))


def test_a_reward_is_a_step_of_its_own_kind(world, tmp_path):
    data = {"format": "jsonl", "annotations": str(world / "data/shapes.jsonl"), "captions": "all", "task": "caption"}
    mixed = [data | {"reward": "cider"}, data]
    output = run(recipe_of(world, tmp_path / "out", steps=8, data__datasets=mixed, data__mixing="step"))
    assert 0 < len(metrics(output, "reward")) < 8
    again = run(recipe_of(world, tmp_path / "again", steps=8, data__datasets=mixed, data__mixing="step"))
    assert metrics(again) == metrics(output)  # what is sampled depends on the seed alone


def test_a_reward_needs_steps_of_one_dataset(world, tmp_path):
    with pytest.raises(UserError, match="needs mixing: step"):
        run(recipe_of(world, tmp_path / "x", data__datasets=[{"format": "jsonl", "reward": "cider"}]))


def test_cropped_images_are_learnt_from_and_never_cached(world, tmp_path):
    given = recipe_of(world, tmp_path / "out", steps=12, data__cache_folder=str(tmp_path / "cache"))
    given["data"]["datasets"][0] |= {"crop": 0.5, "mirror": True}
    losses = metrics(run(given))
    assert losses[12] < losses[1]
    assert not (tmp_path / "cache").exists()
    assert losses != metrics(run(recipe_of(world, tmp_path / "whole", steps=12)))


def test_things_looked_at_closely_are_learnt_from_and_never_cached(world, tmp_path):
    path = world / "data/things.jsonl"
    path.write_text(
        "".join(
            json.dumps({"image": f"shapes-{i}.png", "phrase": "it", "boxes": [[0.2, 0.3, 0.6, 0.5]]}) + "\n" for i in range(4)
        )
    )
    dataset = {"format": "jsonl", "annotations": str(path), "images": str(world / "data"), "task": "refer"}
    cache = str(tmp_path / "cache")
    whole, close = (
        metrics(run(recipe_of(world, tmp_path / name, steps=6, data__cache_folder=cache, data__datasets=[dataset | more])))
        for name, more in (("whole", {"crop": 1.0}), ("close", {"crop": 1.0, "zoomed": 1.0}))
    )
    assert close[6] < close[1]
    assert close != whole
    assert not (tmp_path / "cache").exists()


def test_boxes_on_lines_are_learnt_and_measured_as_boxes_that_lie_there(world, tmp_path):
    def rows(name, box):
        path = world / f"data/{name}.jsonl"
        path.write_text(
            "".join(json.dumps({"image": f"shapes-{i}.png", "phrase": "it", "boxes": [box]}) + "\n" for i in range(4))
        )
        return {"format": "jsonl", "annotations": str(path), "images": str(world / "data"), "task": "refer"}

    exact, coarse = rows("exact", [0.11, 0.22, 0.68, 0.71]) | {"grid": 10}, rows("coarse", [0.1, 0.2, 0.7, 0.7])
    runs = [
        run(recipe_of(world, tmp_path / name, steps=5, data__datasets=[dataset], validation__datasets=[dataset]))
        for name, dataset in (("exact", exact), ("coarse", coarse), ("fine", rows("exact", [0.11, 0.22, 0.68, 0.71])))
    ]
    losses, measured = [metrics(output) for output in runs], [metrics(output, "valid_loss") for output in runs]
    assert losses[0] == losses[1] != losses[2]
    assert measured[0] == measured[1] != measured[2]
