"""The page of the papers' tables: what was run is on it with its verdict, what was not says so, every command is a command."""

import importlib.util
import json
import shlex
from pathlib import Path

import pytest

from minigpt4.evaluate.benchmarks.registry import BENCHMARKS
from minigpt4.train.recipe import load_recipe

ROOT = Path(__file__).parents[1]
GOOD = "A brown dog runs along the beach. Behind it, two children in red coats are throwing a ball to each other."


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("papers_page", ROOT / "recipes/papers/page.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "papers_page", module)
    spec.loader.exec_module(module)
    return module


def failed(folder, answers):
    folder.mkdir(parents=True)
    rows = [
        {
            "benchmark": "failures",
            "image": f"{i}.jpg",
            "asked": "description",
            "captions": ["A dog."],
            "answer": text,
            "by": "me",
        }
        for i, text in enumerate(answers)
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "report.json").write_text("{}")


def test_nothing_has_been_run(page):
    page.write("papers.md")
    text = Path("papers.md").read_text()
    assert "0 of its 24 commands had been run" in text
    assert "papers-losses.svg" not in text
    assert text.count("## ") == 7


def test_an_effect_is_said_to_show_only_where_its_interval_leaves_nought_out(page):
    runs = Path("runs/papers")
    failed(runs / "failures_before", ["A dog. A dog."] * 20)
    failed(runs / "failures_after", [GOOD] * 19 + ["A dog."])
    page.write("papers.md")
    text = Path("papers.md").read_text()
    assert "| description | 35 % | 2 % | 100.0 (100.0 .. 100.0) | 5.0 (0.0 .. 15.0) | as in the paper: difference 95.0" in text
    assert "<rect" in Path("images/papers-failures.svg").read_text()
    assert "![failures before and after](images/papers-failures.svg)" in text
    assert "papers-invented" not in text
    assert "| poem | 32 % | 1 % | not run | not run | not run |" in text
    failed(runs / "descriptions_alone", [GOOD] * 10)
    failed(runs / "descriptions_after", [GOOD] * 10)
    page.write("papers.md")
    assert "**not shown**: difference 0.0 (0.0 .. 0.0) includes nought" in Path("papers.md").read_text()
    before, after = runs / "failures_before", runs / "failures_after"
    assert page.verdict(after, before, "failed", 1, "description A - B").startswith("**the other way round**")
    assert page.verdict(after, before, "failed", 0, "description A - B").startswith("**not as in the paper**")


def test_losses_are_drawn_side_by_side(page):
    folder = Path("runs/papers/linear")
    folder.mkdir(parents=True)
    rows = [{"step": i, "loss": 3 - i} for i in range(3)] + [{"step": 2, "valid_loss/captions": 1.25}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "trained.safetensors").write_bytes(b"")
    page.write("papers.md")
    assert "| 58.2 / 32.2 | 1.250 | not run |" in Path("papers.md").read_text()
    assert "<svg" in Path("images/papers-losses.svg").read_text()


def test_every_command_is_one(page):
    steps = page.steps()
    assert len({step.name for step in steps}) == len(steps)
    for step in steps:
        words = shlex.split(step.command)
        if words[0] == "train":
            assert str(load_recipe(ROOT / words[1]).output) == str(step.done.parent)
        elif words[1] == "run":
            assert words[2] in BENCHMARKS
            assert str(step.done.parent) == words[words.index("--output") + 1]
