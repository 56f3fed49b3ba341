"""The two small projections of the first paper's way, as they ship."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import minigpt4
from minigpt4.checkpoints.folders import TRAINED, find_folder
from minigpt4.checkpoints.pocket import FOLDER, FOLDERS
from minigpt4.errors import UserError

PHOTOS = sorted((Path(__file__).parents[1] / "docs" / "images").glob("*.jpg"))
STAGES = ["pocket-before-stage2", "pocket-after-stage2"]


def test_what_ships_is_below_forty_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 40e6
    assert list(FOLDERS) == ["pocket", *STAGES]


@pytest.mark.parametrize("name", STAGES)
def test_only_the_projection_was_learnt(name):
    with safe_open(find_folder(name) / TRAINED, "pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    assert sorted(shape for shape in shapes.values()) == [[576], [576, 1280]]
    assert all("projection" in key for key in shapes)


def test_both_look_and_differ():
    said = {}
    for name in STAGES:
        system = minigpt4.load(name, backend="torch", dtype=torch.float32)  # it is not worth preparing a graph for two answers
        assert system.model.config.lora is None
        assert system.processor.num_image_tokens == 49
        said[name] = [system.ask(photo, "Describe the image in detail.", max_new_tokens=12) for photo in PHOTOS[:2]]
        assert all(len(text.split()) >= 3 for text in said[name])
        assert len(set(said[name])) == 2  # it looks
    assert said[STAGES[0]] != said[STAGES[1]]


def test_evaluations_find_them_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ["pocket", *STAGES]:
        assert FOLDERS[name] == find_folder(name)
    with pytest.raises(UserError, match="pocket-after-stage2"):
        find_folder("pocket-v1-stage2")
