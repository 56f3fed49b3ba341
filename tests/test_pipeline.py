"""Pipelines: steps in order, skipped when they are done, done again when something before them changed."""

import json
import shutil
from pathlib import Path

import pytest
import shapes
import torch
import yaml
from conftest import tiny_folder
from typer.testing import CliRunner

import minigpt4
from minigpt4.checkpoints.trained import read_trained
from minigpt4.cli import app
from minigpt4.errors import UserError
from minigpt4.train.average import average
from minigpt4.train.loop import train
from minigpt4.train.pipeline import is_pipeline, load_pipeline, run_pipeline
from minigpt4.train.recipe import load_recipe

ROOT = Path(__file__).parents[1]

SCRIPT = """import sys, pathlib
pathlib.Path("made").mkdir(exist_ok=True)
pathlib.Path("made/rows.jsonl").write_text(pathlib.Path(sys.argv[1]).read_text())
with open("runs.txt", "a") as log: log.write("script\\n")
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    tiny_folder(tmp_path / "base")
    shapes.write(tmp_path / "data", 8)
    Path("script.py").write_text(SCRIPT)
    catalog = {"shapes": {"format": "jsonl", "annotations": "made/rows.jsonl", "images": "data", "captions": "all"}}
    Path("datasets.yaml").write_text(yaml.safe_dump(catalog))
    stage = {
        "model": {"base": "base", "fresh": ["projection"]},
        "data": {"catalog": "datasets.yaml", "datasets": [{"use": "shapes", "ratio": 2}], "batch": 2, "cache_features": False},
        "steps": 2,
        "precision": "fp32",
        "output": "runs/one",
    }
    Path("stage.yaml").write_text(yaml.safe_dump(stage))
    pipeline = {
        "values": {"source": "data/shapes.jsonl"},
        "steps": [
            {"kind": "script", "command": ["script.py", "{source}"], "output": ["made/rows.jsonl"]},
            {"kind": "train", "recipe": "stage.yaml"},
            {"kind": "train", "recipe": "stage.yaml", "set": ["seed=7", "output=runs/two"]},
            {"kind": "average", "of": {"runs/one": 1, "runs/two": 3}, "output": "runs/mean"},
        ],
    }
    Path("pipeline.yaml").write_text(yaml.safe_dump(pipeline))
    return tmp_path


def test_all_steps_then_none(place):
    told = CliRunner().invoke(app, ["train", "pipeline.yaml"])
    assert told.exit_code == 0, told.output
    assert "4 steps done, 0 were there already" in told.output
    one, two, mean = (read_trained(Path("runs", name)) for name in ("one", "two", "mean"))
    for name, weight in mean.items():
        expected = (one[name].float() / 4 + two[name].float() * 3 / 4).to(torch.bfloat16)
        torch.testing.assert_close(weight, expected)
    assert minigpt4.load("runs/mean", dtype="float32").ask("data/shapes-0.png", "what?", max_new_tokens=2) is not None
    assert run_pipeline(load_pipeline(Path("pipeline.yaml"))) == ["skipped"] * 4


def test_a_folder_that_leaves_out_the_usual_settings_is_of_the_same_system(place):
    """The pocket model's folder does, one that was trained does not: their mean was refused."""
    run_pipeline(load_pipeline("pipeline.yaml"))
    file = Path("runs/one/config.json")
    config = json.loads(file.read_text())
    config["vision_config"] |= {"return_dict": True, "chunk_size_feed_forward": 0, "id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    file.write_text(json.dumps(config))
    average({"runs/one": 1.0, "runs/two": 3.0}, "runs/again")
    again, mean = read_trained(Path("runs/again")), read_trained(Path("runs/mean"))
    assert all(torch.equal(again[name], mean[name]) for name in mean)
    config["vision_config"]["patch_size"] = 4
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match="not weights of the same system"):
        average({"runs/one": 1.0, "runs/two": 3.0}, "runs/again")


def test_what_changed_is_done_again_and_what_follows(place):
    run_pipeline(load_pipeline(Path("pipeline.yaml")))
    shutil.rmtree("runs/two")
    assert run_pipeline(load_pipeline(Path("pipeline.yaml"))) == ["skipped", "skipped", "done", "done"]
    Path("runs/mean/trained.safetensors").write_bytes(b"")
    assert run_pipeline(load_pipeline(Path("pipeline.yaml"))) == ["skipped"] * 3 + ["done"]
    assert Path("runs.txt").read_text() == "script\n"


def test_a_stage_begins_anew_when_what_it_learns_from_has_changed(place, caplog):
    """Its own finished checkpoint was taken for its work: the base differed in what was trained, at which nobody looked."""
    pipeline = yaml.safe_load(Path("pipeline.yaml").read_text())
    pipeline["steps"][2]["set"] += ["model.base=runs/one", "model.fresh=[]"]
    Path("pipeline.yaml").write_text(yaml.safe_dump(pipeline))
    run_pipeline(load_pipeline(Path("pipeline.yaml")))
    stage = yaml.safe_load(Path("stage.yaml").read_text())
    before = read_trained(Path("runs/two"))
    for seed, expected in ((3, ["skipped", "done", "done", "done"]), (3, ["skipped"] * 4)):
        Path("stage.yaml").write_text(yaml.safe_dump(stage | {"seed": seed}))
        assert run_pipeline(load_pipeline(Path("pipeline.yaml"))) == expected
    again = read_trained(Path("runs/two"))
    assert any(not torch.equal(before[name], again[name]) for name in before)
    assert all(Path(f"runs/{name}/checkpoints-before-1").is_dir() for name in ("one", "two"))
    assert "what the base has learnt has changed); it begins anew" in caplog.text
    shutil.rmtree("runs/two")
    run_pipeline(load_pipeline(Path("pipeline.yaml")))
    anew = read_trained(Path("runs/two"))
    assert all(torch.equal(again[name], anew[name]) for name in again)


def test_a_training_notices_that_its_base_has_learnt_something_else(place):
    run_pipeline(load_pipeline(Path("pipeline.yaml")))
    recipe = load_recipe("stage.yaml", ["model.base=runs/one", "model.fresh=[]", "output=runs/three"])
    train(recipe)
    shutil.copy("runs/two/trained.safetensors", "runs/one/trained.safetensors")
    with pytest.raises(UserError, match=r"runs/three/checkpoints/step-00000002 .*what the base has learnt has changed"):
        train(recipe)
    train(recipe.model_copy(update={"on_change": "continue"}))


def test_a_step_that_fails_keeps_those_before_it(place):
    pipeline = load_pipeline(Path("pipeline.yaml"))
    pipeline.steps[3].of = {"runs/one": 1.0, "nowhere": 1.0}
    with pytest.raises(UserError, match="nowhere"):
        run_pipeline(pipeline)
    assert len(json.loads(Path("runs/pipeline.json").read_text())) == 3
    pipeline.steps[0].command = ["gone.py"]
    with pytest.raises(UserError, match="step 1 of 4, script"):
        run_pipeline(pipeline)


def test_what_is_wrong_is_said(place):
    with pytest.raises(UserError, match="values source"):
        load_pipeline(Path("pipeline.yaml"), ["other=1"])
    Path("wrong.yaml").write_text(yaml.safe_dump({"steps": [{"kind": "train"}]}))
    with pytest.raises(UserError, match="recipe"):
        load_pipeline(Path("wrong.yaml"))
    Path("braces.yaml").write_text(yaml.safe_dump({"steps": [{"kind": "script", "command": ["{what}"], "output": ["a"]}]}))
    with pytest.raises(UserError, match="what"):
        load_pipeline(Path("braces.yaml"))
    with pytest.raises(UserError, match="two folders"):
        average({"runs/one": 1.0}, "runs/mean")


def test_a_dataset_that_the_catalog_does_not_have(place):
    given = yaml.safe_load(Path("stage.yaml").read_text())
    given["data"]["datasets"] = [{"use": "shape"}]
    Path("other.yaml").write_text(yaml.safe_dump(given))
    with pytest.raises(UserError, match=r"datasets.yaml has no dataset shape \(did you mean shapes\?\)"):
        load_recipe("other.yaml")


def test_the_pocket_pipeline_can_be_read(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert is_pipeline(Path("recipes/pocket/pipeline.yaml"))
    assert not is_pipeline(Path("recipes/own_data.yaml"))
    pipeline = load_pipeline(Path("recipes/pocket/pipeline.yaml"))
    for step in pipeline.steps:
        if step.kind == "train":
            load_recipe(step.recipe, step.set)
        elif step.kind == "script":
            assert Path(step.command[0]).is_file()
