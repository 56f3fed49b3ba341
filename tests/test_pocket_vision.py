"""recipes/pocket/vision.py: words of captions, cells of boxes, a vision encoder that learns both, a projection that follows."""

import importlib.util
import json
import math
import random
from pathlib import Path

import pytest
import torch
from conftest import tiny_folder
from PIL import Image

from minigpt4.checkpoints.loading import load_system
from minigpt4.model.vision.efficientnet_lite import EfficientNetLiteConfig

RECIPE = Path(__file__).parent.parent / "recipes/pocket/vision.py"
VISION = {"image_size": 128, "width_multiplier": 0.3, "depth_multiplier": 0.5}
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 40, 220)}


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("pocket_vision", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Twelve grey pictures, each with a square of a colour in one quarter."""
    folder, rng = tmp_path_factory.mktemp("photos"), random.Random(0)
    captions, refer = [], []
    for i in range(12):
        colour, (x, y) = list(COLOURS)[i % 3], (rng.randint(0, 1) / 2, rng.randint(0, 1) / 2)
        image = Image.new("RGB", (64, 48), (128, 128, 128))
        image.paste(COLOURS[colour], (int(64 * x), int(48 * y), int(64 * x) + 32, int(48 * y) + 24))
        image.save(folder / f"{i}.png")
        captions.append({"image": f"{i}.png", "answers": [f"A {colour} square.", f"The {colour} thing, grey around it"]})
        refer.append({"image": f"{i}.png", "phrase": f"a {colour} square", "boxes": [[x, y, x + 0.5, y + 0.5]]})
    (folder / "pocket").mkdir()
    for name, rows in {"captions": captions, "refer": refer}.items():
        (folder / f"pocket/{name}.train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "pocket"


def system(folder):
    """A tiny system whose vision encoder passes on what it sees, as trained ones do: its first weights are large enough."""
    model, processor = load_system(folder, dtype=torch.float32)
    torch.manual_seed(0)
    for parameter in model.vision_tower.parameters():
        if parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter)
    return model, processor


def test_what_is_learnt_of_a_image(recipe, data):
    lesson = recipe.Lesson(data, "train", least=3)
    assert set(lesson.words) == {"red", "green", "blue", "square", "thing", "grey", "around"}
    share = dict(zip(lesson.words, lesson.shares[0].tolist(), strict=True))
    assert share == {"red": 1.0, "green": 0.0, "blue": 0.0, "square": 0.5, "thing": 0.5, "grey": 0.5, "around": 0.5}
    pixels, shares, images, words, covered = lesson.batch([3, 1], 128)
    assert pixels.shape == (2, 3, 128, 128)
    assert torch.equal(shares, lesson.shares[[3, 1]])
    named = [(p, lesson.words[w]) for p, w in zip(images.tolist(), words.tolist(), strict=True)]
    assert sorted(named) == [(0, "red"), (0, "square"), (1, "green"), (1, "square")]
    assert covered.sum(1).tolist() == [4.0] * 4  # of the 16 cells
    for place, colour in [(0, "red"), (1, "green")]:  # the cells are where the colour is
        row = named.index((place, colour))
        where = covered[row].view(4, 4).repeat_interleave(32, 0).repeat_interleave(32, 1) > 0
        wanted = torch.tensor(COLOURS[colour]) / 127.5 - 1
        inside = pixels[place][:, where]
        assert ((inside - wanted[:, None]).abs().amax(0) < 0.05).float().mean() > 0.9


def test_boxes_follow_the_part_that_is_seen(recipe):
    assert recipe.seen([0.2, 0.4, 0.6, 1.0], (0.2, 0.5, 0.7, 1.0), False) == pytest.approx([0, 0, 0.8, 1])
    assert recipe.seen([0.2, 0.4, 0.6, 1.0], (0.2, 0.5, 0.7, 1.0), True) == pytest.approx([0.2, 0, 1, 1])
    assert recipe.cells([0.25, 0.0, 0.75, 0.5], 2).tolist() == [0.5, 0.5, 0, 0]


def test_average_precision_by_hand(recipe):
    scores = torch.tensor([[9.0], [8], [7], [6], [5], [4], [3]])
    true = torch.tensor([[1], [0], [1], [1], [0], [1], [1]]).bool()
    assert recipe.average_precision(scores, true) == pytest.approx((1 + 2 / 3 + 3 / 4 + 4 / 6 + 5 / 7) / 5)
    assert math.isnan(recipe.average_precision(scores[:4], true[:4]))


def test_the_end_of_the_vision_learns_and_the_projection_follows(recipe, data, tmp_path, monkeypatch):
    base = tiny_folder(tmp_path / "base", vision_config=EfficientNetLiteConfig(**VISION), concat_order="square")
    own, model = system(base)[0], system(base)[0]
    lesson = recipe.Lesson(data, "train", least=3)
    head = recipe.Words(1280, lesson.shares)
    before = recipe.measure(model, head, lesson)
    head = recipe.tune(model, lesson, 36, batch=6, lr=3e-3)
    after = recipe.measure(model, head, lesson)
    assert after["pictures"] < 0.8 * before["pictures"]
    assert after["cells"] < 0.8 * before["cells"]
    first = len(model.vision_tower.blocks) - recipe.LAYERS
    for name, weight in own.vision_tower.state_dict().items():
        learns = name.startswith(("conv_head", "bn1")) or (name.startswith("blocks.") and int(name.split(".")[1]) >= first)
        learns &= not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(weight, model.vision_tower.state_dict()[name]) != learns, name


def test_a_projection_follows_exactly_where_a_linear_map_can(recipe, data, tmp_path):
    base = tiny_folder(tmp_path / "base", vision_config=EfficientNetLiteConfig(**VISION), concat_order="square")
    (before, processor), (after, _) = (system(base) for _ in range(2))
    images = [[str(data.parent / f"{i}.png") for i in range(start, start + 4)] for start in (0, 4, 8)]
    after.projection.load_state_dict(before.projection.state_dict())
    assert recipe.refit(before, after, images, processor) < 1e-4  # the same vision encoder: nothing to do
    torch.testing.assert_close(after.projection.weight, before.projection.weight)
    with torch.no_grad():
        for parameter in (after.vision_tower.bn1.weight, after.vision_tower.bn1.bias):
            parameter *= 0.5  # every channel half as large
    left = recipe.refit(before, after, images, processor)
    assert left < 0.05
    pixels = processor.image_processor(images[0])["pixel_values"]
    gap = (after.get_image_features(pixels) - before.get_image_features(pixels)).norm()
    assert gap < 0.25 * (before.get_image_features(pixels) - before.projection.bias).norm()
