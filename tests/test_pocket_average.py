"""recipes/pocket_average.py: the mean of two trainings, where one says places louder."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

RECIPE = Path(__file__).parent.parent / "recipes/pocket_average.py"


@pytest.fixture(scope="module")
def average():
    spec = importlib.util.spec_from_file_location("pocket_average", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.average


def folder(path: Path, weights: dict[str, torch.Tensor], scale: float | None) -> str:
    path.mkdir()
    save_file(weights, path / "trained.safetensors")
    vision = {"coordinates": 1} | ({} if scale is None else {"coordinate_scale": scale})
    (path / "config.json").write_text(json.dumps({"vision_config": vision}))
    for name in ("processor_config.json", "generation_config.json"):
        (path / name).write_text("{}")
    return str(path)


def test_the_mean_with_places_brought_to_one_scale(average, tmp_path):
    quiet = torch.full((2, 4, 7), 8.0)  # of each of four tokens three channels, and four that tell the place
    loud = torch.zeros(2, 4, 7)
    first = folder(tmp_path / "1", {"projection.weight": quiet.view(2, -1), "a": torch.ones(3)}, None)
    second = folder(tmp_path / "2", {"projection.weight": loud.view(2, -1), "a": torch.zeros(3)}, 8.0)
    average(first, 0.25, second, str(tmp_path / "3"))
    mixed = load_file(tmp_path / "3/trained.safetensors")
    expected = torch.tensor([2.0] * 3 + [0.25] * 4).repeat(2, 4)
    torch.testing.assert_close(mixed["projection.weight"].float(), expected)
    torch.testing.assert_close(mixed["a"].float(), torch.full((3,), 0.25))
    assert json.loads((tmp_path / "3/config.json").read_text())["vision_config"]["coordinate_scale"] == 8.0


def test_other_weights_are_refused(average, tmp_path):
    first = folder(tmp_path / "1", {"a": torch.ones(3)}, None)
    second = folder(tmp_path / "2", {"b": torch.ones(3)}, None)
    with pytest.raises(SystemExit, match="do not hold the same weights: \\['a', 'b'\\]"):
        average(first, 0.5, second, str(tmp_path / "3"))
