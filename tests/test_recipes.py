"""Recipes: what they say when they are wrong, and every shipped one loaded and stepped at tiny size."""

import json
import random
import shutil
from itertools import pairwise
from pathlib import Path

import layouts
import pytest
import torch
import yaml
from conftest import tiny_folder, tiny_llama, tiny_tokenizer
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

import minigpt4
from minigpt4.cli import app
from minigpt4.data.source import StreamSource
from minigpt4.errors import UserError
from minigpt4.model.vision.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel
from minigpt4.train.loop import build_parts, train
from minigpt4.train.recipe import load_recipe, parse_recipe, save_recipe

RECIPES = Path(__file__).parents[1] / "recipes"
SHIPPED = sorted(
    path.relative_to(RECIPES).as_posix().removesuffix(".yaml")
    for path in (*RECIPES.glob("*.yaml"), *RECIPES.glob("pocket/*.yaml"))
    if path.stem not in ("datasets", "earlier", "pipeline")
)
PAPERS = (
    "minigpt4_stage1 minigpt4_stage2 minigpt4_llama2_stage1 minigpt4_llama2_stage2 minigptv2_stage1 minigptv2_stage2 "
    "minigptv2_stage3 minigptv2_finetune ablation_no_qformer ablation_three_layers ablation_qformer_trained own_data"
).split()

SMALL = [
    "steps=2",
    "data.batch=2",
    "data.workers=0",
    "data.cache_features=false",
    "schedule.warmup_steps=1",
    "precision=fp32",
    "validation.every=2",
    "validation.samples=2",
    "checkpoint_every=2",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which every path that a recipe names is there, tiny."""
    root = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    layouts.write_all(root)
    shutil.copytree(RECIPES, root / "recipes")
    tiny_folder(root / "weights/minigpt4-vicuna-7b", "qformer")
    for name in ("minigpt4-llama2-7b", "minigptv2-7b", "minigptv2-7b-untrained"):
        tiny_folder(root / f"weights/{name}")
    vision = EfficientNetLiteConfig(image_size=64, width_multiplier=0.2, depth_multiplier=0.4)
    EfficientNetLiteModel(vision).save_pretrained(root / "parts/vision")
    AutoModelForCausalLM.from_config(tiny_llama()).save_pretrained(root / "parts/llm")
    tiny_tokenizer().save_pretrained(root / "parts/llm")
    return root


STEPPED = {
    "minigpt4_stage1": "streamed web captions, a Q-Former, no prompt",
    "minigpt4_stage2": "what the stage before it wrote; descriptions; Vicuna's chat",
    "minigpt4_llama2_stage1": "four tokens joined; Llama-2's chat",
    "minigptv2_stage1": "adapters; weak and fine-grained datasets",
    "minigptv2_finetune": "all 22 datasets of the published configuration",
    "ablation_no_qformer": "another connector between the same parts",
    "ablation_three_layers": "a deeper projection",
    "ablation_qformer_trained": "a connector that learns",
    "own_data": "a folder of one's own",
    "pocket/first": "a new system of two parts; answers side by side",
    "pocket/places": "a vision encoder that learns, at its own rate; parts of images; steps of one dataset each",
    "pocket/scores": "captions by their score; boxes on lines; things looked at closely",
    "pocket/talk": "datasets of a catalog; answers, conversations and rows without an image",
}
"""Recipes that are run, each for something that no other one does; all others are read and checked."""


STEPS = [
    step for name in ("earlier", "pipeline") for step in yaml.safe_load((RECIPES / f"pocket/{name}.yaml").read_text())["steps"]
]
MADE_OF = {step["output"]: list(step["of"])[-1] for step in STEPS if step["kind"] == "average"} | {
    step["command"][4]: step["command"][3] for step in STEPS if step.get("command", [""])[0].endswith("classes.py")
}
"""Of systems that a pipeline makes without training what they are made of; of a mean, the last of its parts."""


def stage_before(recipe: dict) -> str | None:
    """The recipe whose output a recipe begins with, or what is made of it."""
    base = str(recipe.get("model", {}).get("base", ""))
    while base in MADE_OF:
        base = MADE_OF[base]
    name = base.removeprefix("runs/")
    return None if name == base else name if name in SHIPPED else f"pocket/{name}"


def run(name: str, place: Path) -> Path:
    given = load_recipe(f"recipes/{name}.yaml").model_dump(mode="json")
    before = stage_before(given)
    changes = list(SMALL)
    if before in STEPPED:
        if not (place / f"{given['model']['base']}/trained.safetensors").exists():
            run(before, place)
    elif before or (given["model"]["base"] == "pocket" and not given["model"]["vision"]):
        changes.append("model.base=weights/minigpt4-llama2-7b")
    if given["trained"].get("vision_layers"):
        changes.append("trained.vision_layers=2")
    if given["model"]["vision"] == "pocket":
        changes += ["model.vision=parts/vision", "model.text=parts/llm", "model.image_size=64"]
    recipe = load_recipe(f"recipes/{name}.yaml", changes)
    shutil.rmtree(recipe.output, ignore_errors=True)
    return train(recipe)


@pytest.mark.parametrize("name", STEPPED)
def test_a_recipe_of_each_kind_runs(name, place, monkeypatch):
    monkeypatch.chdir(place)
    output = run(name, place)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2]
    assert minigpt4.load(output, dtype="float32").ask("data/x.jpg", "[vqa] what?", max_new_tokens=3) is not None
    load_recipe(output / "recipe.yaml")  # what was saved can be read


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_is_whole(name, place, monkeypatch):
    """Its keys exist, its datasets can be opened, and a sample of each is written down."""
    monkeypatch.chdir(place)
    recipe = load_recipe(f"recipes/{name}.yaml")
    before = stage_before(recipe.model_dump(mode="json"))
    assert before is None or before in SHIPPED, before
    for part in build_parts(recipe, recipe.data.datasets):
        if isinstance(part.source, StreamSource):
            assert not list(part.source.problems())
        else:
            assert part.source.sample(0, random.Random(0)).turns


def test_the_papers_recipes_are_there():
    assert set(PAPERS) <= set(SHIPPED)


def test_official_numbers():
    """A few of the inventory's, so that an edit by mistake is seen."""
    first, finetune = (load_recipe(RECIPES / f"{name}.yaml") for name in ("minigpt4_stage1", "minigptv2_finetune"))
    assert (first.steps, first.schedule.lr, first.schedule.min_lr, first.schedule.warmup_steps) == (20000, 1e-4, 8e-5, 5000)
    assert {d.format: d.ratio for d in first.data.datasets} == {"laion": 115, "cc_sbu": 14}
    assert len(finetune.data.datasets) == 22
    assert sum(d.ratio for d in finetune.data.datasets) == 730
    mean = sum(d.ratio * d.batch for d in finetune.data.datasets) / 730
    assert mean == pytest.approx(3.90, abs=0.005)
    third = load_recipe(RECIPES / "minigptv2_stage3.yaml")  # it has the same datasets, each as often and as many at a time
    assert (third.data.mixing, third.data.datasets) == (finetune.data.mixing, finetune.data.datasets)


BASE = {"data": {"datasets": [{"format": "jsonl"}]}, "steps": 1, "output": "x"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepz": 3}, r"unknown key stepz \(did you mean steps\?\)"),
        ({"schedule": {"warmup_step": 3}}, r"unknown key schedule\.warmup_step \(did you mean warmup_steps\?\)"),
        ({"trained": {"lora": {"rank": 3}}}, r"unknown key trained\.lora\.rank"),
        ({"steps": "many"}, r"steps: .*integer.*'many'"),
        ({"steps": 0}, "steps: .*greater than or equal to 1"),
        ({"precision": "bf8"}, "precision: .*'bf8'"),
        ({"schedule": {"name": "cosin"}}, r"unknown schedule 'cosin' \(did you mean cosine\?\)"),
        ({"model": {"vision": "pocket"}}, "vision and text go together"),
        ({"validation": {"datasets": [{"format": "jsonl", "crop": 0.5}]}}, "crop is for datasets that are learnt from"),
        ({"validation": {"datasets": [{"format": "jsonl", "zoomed": 0.5}]}}, "zoomed is for datasets that are learnt from"),
        (
            {
                "trained": {"vision_dropout": 0.2},
                "data": {"mixing": "step", "datasets": [{"format": "jsonl", "reward": "cider"}]},
            },
            "no vision_dropout",
        ),
        ({"data": {"datasets": [{"format": "jsonl", "batch": 2}]}}, r"batch of a dataset \(jsonl\) needs mixing: step"),
        ({"data": {"datasets": []}}, "data.datasets: .*at least 1"),
        ({"data": {"datasets": [{"ratio": 1}]}}, r"data\.datasets\.0\.format is needed"),
    ],
)
def test_wrong_recipes_are_told_apart(change, message):
    with pytest.raises(UserError, match=message):
        parse_recipe(BASE | change, "r.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "not YAML"), ("- 1", "a mapping"), ("steps: 1", r"data is needed; r\.yaml: output is needed|needed")],
)
def test_files_that_are_no_recipe(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_recipe("r.yaml")
    with pytest.raises(UserError, match="missing.yaml: No such file"):
        load_recipe("missing.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {config: &a {a: *a}}", "holds itself"),
        (
            "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(f"{b}: &{b} [{f'*{a},' * 10}]\n" for a, b in pairwise("abcdefghij")),
            "more values",
        ),
        ("steps: .inf", "steps: .*not inf"),
        ("schedule: {lr: .inf}", "finite number, not inf"),
        ('output: "\\0"', "no folder can have this name"),
        ('output: "\\ud800"', "no folder can have this name"),
        ("steps: [[[[[[1]]]]]]", r"not \[\[\[\[\.\.\.\]\]\]\]"),
    ],
)
def test_recipes_that_cannot_be_are_one_line(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(text + "\n")
    with pytest.raises(UserError, match=message) as refused:
        load_recipe("r.yaml")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 2000


def test_changes_from_the_command_line(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(BASE))
    recipe = load_recipe(path, ["schedule.lr=3e-4", "data.datasets.0.ratio=2", "trained.lora.r=8", "optimizer.clip_norm=null"])
    assert recipe.schedule.lr == 3e-4
    assert recipe.data.datasets[0].ratio == 2
    assert recipe.trained.lora.r == 8
    assert recipe.optimizer.clip_norm is None
    for wrong, message in (
        ("lr", "expected KEY=VALUE"),
        ("data.datasets.7.ratio=1", "not one of the 1 items"),
        ("steps.x=1", "holds a value"),
        ("seeed=1", r"did you mean seed\?"),
        ("data.datasets.0.format.x=1", "format holds a value, not keys"),
        ("steps=2001-99-99", "valid integer"),
        ("steps=" + "[" * 5000, "nested too deeply"),
    ):
        with pytest.raises(UserError, match=message):
            load_recipe(path, [wrong])


def test_a_recipe_may_extend_another(tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE | {"schedule": {"lr": 1, "warmup_steps": 5}}))
    (tmp_path / "more.yaml").write_text("extends: base.yaml\nschedule: {lr: 2}\noutput: y\n")
    recipe = load_recipe(tmp_path / "more.yaml")
    assert (recipe.schedule.lr, recipe.schedule.warmup_steps, recipe.output, recipe.steps) == (2, 5, "y", 1)


def test_saved_recipes_are_the_same_again(tmp_path):
    recipe = load_recipe(RECIPES / "minigptv2_finetune.yaml")
    save_recipe(recipe, tmp_path / "again.yaml")
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_data_commands(place, monkeypatch):
    monkeypatch.chdir(place)
    runner = CliRunner()
    change = ["--set", "model.base=weights/minigpt4-llama2-7b"]
    shown = runner.invoke(app, ["data", "show", "recipes/own_data.yaml", "-n", "2", *change])
    assert shown.exit_code == 0, shown.output
    assert "[4 image tokens]" in shown.output
    assert "«My cat.<|im_end|>»" in shown.output
    checked = runner.invoke(app, ["data", "check", "recipes/own_data.yaml", "--json", *change])
    assert checked.exit_code == 0, checked.output
    (Path("my_data") / "gone.jsonl").write_text('{"image": "gone.jpg", "answer": "x"}\n')
    broken = [*change, "--set", "data.datasets.0.annotations=my_data/gone.jsonl"]
    checked = runner.invoke(app, ["data", "check", "recipes/own_data.yaml", *broken])
    assert checked.exit_code == 1
    assert "gone.jpg" in checked.output.replace("\n", "")


@pytest.fixture
def catalog(tmp_path):
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump({"caps": {"format": "jsonl", "annotations": "x"}, "odd": 5}))
    data = {"catalog": "catalog.yaml", "datasets": [{"use": "caps"}]}
    return {"data": data, "steps": 1, "output": "o"}


def written_recipe(path, given):
    path.write_text(yaml.safe_dump(given))
    return load_recipe(path)


def test_names_of_a_catalog_are_for_validation_and_recipes_that_extend_another(tmp_path, catalog):
    named = {"name": "caps", "format": "jsonl", "annotations": "x"}
    written_recipe(tmp_path / "base.yaml", catalog)
    more = {"data": {"datasets": [{"use": "caps", "ratio": 2}]}, "validation": {"datasets": [{"use": "caps"}]}}
    recipe = written_recipe(tmp_path / "more.yaml", {"extends": "base.yaml", **more})
    (learnt,), (measured,) = recipe.data.datasets, recipe.validation.datasets
    assert (learnt.ratio, learnt.format, learnt.options) == (2, "jsonl", {"name": "caps", "annotations": "x"})
    assert {"format": measured.format, **measured.options} == named
    assert written_recipe(tmp_path / "same.yaml", catalog | {"validation": more["validation"]}).validation == recipe.validation


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"datasets": None}, r"data\.datasets: "),
        ({"catalog": 5}, r"data\.catalog: expected the name of a file, not 5"),
        ({"catalog": ["catalog.yaml"]}, r"data\.catalog: expected the name of a file"),
        ({"datasets": [{"use": ["caps"]}]}, r"data\.datasets\.0\.use: expected a name in catalog\.yaml"),
        ({"datasets": [{"use": "odd"}]}, r"catalog\.yaml: odd: expected a dataset"),
        ({"datasets": {"use": "caps"}}, r"data\.datasets: "),
    ],
)
def test_what_a_catalog_and_its_names_cannot_be_is_said(tmp_path, catalog, data, says):
    catalog["data"] |= data
    with pytest.raises(UserError, match=says):
        written_recipe(tmp_path / "wrong.yaml", catalog)


def test_a_name_without_a_catalog_is_said(tmp_path, catalog):
    del catalog["data"]["catalog"]
    with pytest.raises(UserError, match=r"data\.datasets\.0\.use: caps is a name in a catalog, which data\.catalog must name"):
        written_recipe(tmp_path / "wrong.yaml", catalog)
