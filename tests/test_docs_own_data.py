"""docs/your-own-data.md, followed to the letter on a tiny system."""

import json
import re
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from conftest import tiny_folder
from PIL import Image
from pydantic import BaseModel
from typer.testing import CliRunner

from minigpt4.cli import app
from minigpt4.train.recipe import Recipe

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs/your-own-data.md").read_text()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Ten pictures, the guide's own rows among them, and a tiny system in the pocket model's place."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    tiny_folder(tmp_path / "tiny")
    rows = [json.loads(line) for line in re.search(r"```json\n(.*?)```", GUIDE, re.DOTALL)[1].splitlines()]
    rows += [{"image": f"{i}.jpg", "answer": f"picture {i}"} for i in range(8)]
    for name in ("my_data", "photos"):
        for i, row in enumerate(rows):
            path = tmp_path / name / row["image"]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (60, 40), (20 * i, 100, 100)).save(path)
        (tmp_path / name / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = (ROOT / "recipes/own_data.yaml").read_text().replace("base: pocket", "base: tiny")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/own_data.yaml").write_text(recipe.replace("\nsteps: 60", "\nprecision: fp32\nsteps: 12"))
    return tmp_path


def test_every_command_of_the_guide_works(folder):
    commands = [line for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 6
    runner = CliRunner()
    for command in commands:
        words = shlex.split(command.replace("--set steps=200", "--set steps=3"))
        assert words[0] == "./run"
        result = runner.invoke(app, words[1:], catch_exceptions=False)
        assert result.exit_code == 0, (command, result.output)
    assert (folder / "runs/own_data/report.html").exists()
    assert (folder / "runs/photos/trained.safetensors").exists()


def test_every_key_of_a_recipe_that_the_guides_name_is_there():
    guides = [path for path in (ROOT / "docs").glob("*.md") if path.name != "LOG.md"]
    parts = "|".join(("model", "trained", "data", "schedule", "optimizer", "validation"))
    named = {key for guide in guides for key in re.findall(rf"`((?:{parts})(?:\.[a-z_]+)+)[`:]", guide.read_text())}
    assert {"schedule.lr", "validation.images"} <= named
    for key in named:
        section: Any = Recipe
        for name in key.split("."):
            assert name in section.model_fields, key
            kinds = [section.model_fields[name].annotation, *get_args(section.model_fields[name].annotation)]
            section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
