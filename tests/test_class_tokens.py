"""Image tokens that say what the vision encoder's own classifier sees, against the classifier written out."""

import re

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_clip, tiny_config, tiny_folder, tiny_llama, tiny_model, tiny_processor
from test_train import recipe_of

from minigpt4 import UserError
from minigpt4.checkpoints.loading import load_system
from minigpt4.checkpoints.parts import vision_of_part
from minigpt4.model import MiniGPT4Config
from minigpt4.model.feature_cache import FeatureCache
from minigpt4.model.vision.efficientnet_lite import (
    CLASS_SHARPNESS,
    EfficientNetLiteConfig,
    EfficientNetLiteModel,
    convert_state_dict,
)
from minigpt4.train.channel_dropout import drop_channels
from minigpt4.train.recipe import parse_recipe
from minigpt4.train.setup import prepare

SMALL = {"image_size": 128, "width_multiplier": 0.3, "depth_multiplier": 0.5}
GRIDS = [1, 2]
LISTS = 1 + 4
FIRST = 1 + LISTS  # what comes before the patches: features, then the lists


def classifying(**changes) -> EfficientNetLiteConfig:
    return EfficientNetLiteConfig(**SMALL | {"class_grids": GRIDS} | changes)


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """A file as it is published: leading underscores, and a classifier."""
    torch.manual_seed(0)
    model = EfficientNetLiteModel(EfficientNetLiteConfig(**SMALL))
    official = {}
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor = torch.rand_like(tensor) + 0.5 if "bn" in name else torch.randn_like(tensor) * tensor[0].numel() ** -0.5
        official[re.sub(r"(^|\.)([a-z])", r"\1_\2", name).replace("._weight", ".weight").replace("._bias", ".bias")] = tensor
    official = {name.replace("._running", ".running").replace("._num", ".num"): tensor for name, tensor in official.items()}
    return official | {"_fc.weight": torch.randn(1000, 1280) / 9, "_fc.bias": torch.randn(1000)}


@pytest.fixture
def tower(published) -> EfficientNetLiteModel:
    model = EfficientNetLiteModel(classifying())
    model.load_state_dict(convert_state_dict(published))
    return model.eval()


def test_the_classifier_is_the_published_one_whatever_becomes_of_the_patches(published, tower):
    pixels = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        plain = EfficientNetLiteModel(EfficientNetLiteConfig(**SMALL)).eval()
        plain.load_state_dict({k: v for k, v in convert_state_dict(published).items() if not k.startswith("class_branch.")})
        patches = plain(pixels).last_hidden_state
        seen = tower(pixels).last_hidden_state
        assert torch.equal(seen[:, FIRST:], patches)
        cells = patches.view(2, 4, 4, 1280)
        parts = [cells.mean((1, 2))]
        parts += [cells[:, y : y + 2, x : x + 2].mean((1, 2)) for y in (0, 2) for x in (0, 2)]
        scores = F.linear(torch.stack(parts, 1), published["_fc.weight"], published["_fc.bias"])
        torch.testing.assert_close(seen[:, 0], parts[0])
        torch.testing.assert_close(seen[:, 1:FIRST, :1000], (CLASS_SHARPNESS * scores).softmax(-1))
        assert not seen[:, 1:FIRST, 1000:].any()
        assert scores.argmax(-1).unique().numel() > 1  # a classifier that tells things apart

        for block in tower.blocks[-6:]:
            block.project_conv.weight.mul_(0.5)
        trained = tower(pixels).last_hidden_state
    assert torch.equal(trained[:, :FIRST], seen[:, :FIRST])
    assert not torch.allclose(trained[:, FIRST:], seen[:, FIRST:])


@pytest.mark.parametrize("own", [0, 7, [7], [3, 1, 5]])
def test_each_class_has_a_vector_for_each_of_its_tokens(own):
    """The projection after the connector is a table of vectors, of which the probabilities make a mean."""
    model = tiny_model(vision_config=classifying(), class_tokens=3, own_classes=own, concat_order="square")
    sizes = own if isinstance(own, list) else [own] * bool(own)
    lists = LISTS + len(sizes)
    assert model.config.num_image_tokens == lists * 3 + 4
    tokens = torch.randn(2, FIRST + 16, 1280)
    tokens[:, 1:FIRST] = F.pad(torch.rand(2, LISTS, 1000).softmax(-1), (0, 280))
    seen = model.get_image_features(vision_tokens=tokens)
    weight, bias = model.projection.weight, model.projection.bias
    table = weight[:, 4 * 1280 :].view(-1, 3, 1000 + sum(sizes))
    probabilities = [(tokens[:, 1 + number, :1000], slice(1000)) for number in range(LISTS)]
    if own:
        scores = F.linear(tokens[:, 0], model.connector.own.weight, model.connector.own.bias)
        ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
        parts = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        probabilities[:0] = [(scores[:, p].softmax(-1), slice(1000 + p.start, 1000 + p.stop)) for p in parts]
    for number, (each, classes) in enumerate(probabilities):
        for place in range(3):
            wanted = bias + each @ table[:, place, classes].T
            torch.testing.assert_close(seen[:, 3 * number + place], wanted, atol=1e-5, rtol=1e-4)
    without = tiny_model(vision_config=EfficientNetLiteConfig(**SMALL), concat_order="square")
    without.projection.weight.data, without.projection.bias.data = weight[:, : 4 * 1280].data, bias.data
    plain = without.get_image_features(vision_tokens=tokens[:, FIRST:])
    torch.testing.assert_close(seen[:, lists * 3 :], plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"class_tokens": 2}, "class_tokens is 2, but the vision encoder gives 0 lists of class probabilities"),
        ({"vision_config": classifying()}, "class_tokens is 0, but the vision encoder gives 5 lists"),
        ({"vision_config": tiny_clip(), "class_tokens": 1}, "the vision encoder gives 0 lists"),
        ({"vision_config": classifying(), "class_tokens": -1}, "class_tokens must be at least 0, not -1"),
        ({"own_classes": 3}, "own_classes need what the vision encoder's classifier goes by"),
        ({"own_classes": [3, 2]}, "own_classes need what the vision encoder's classifier goes by"),
        ({"own_classes": -3}, "own_classes must be 0, a number of classes, or several, not -3"),
        ({"own_classes": [3, 0]}, r"own_classes must be 0, a number of classes, or several, not \[3, 0\]"),
        ({"own_classes": []}, r"own_classes must be 0, a number of classes, or several, not \[\]"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        tiny_config(**{"vision_config": EfficientNetLiteConfig(**SMALL)} | changes)


def test_a_q_former_has_no_class_tokens():
    with pytest.raises(ValueError, match="class_tokens need the connector 'concat', not 'qformer'"):
        MiniGPT4Config(vision_config=classifying(), text_config=tiny_llama(), class_tokens=1, connector="qformer")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"class_grids": [1, 3]}, "class_grids: 4 x 4 cells cannot be parted into 3 x 3"),
        ({"class_grids": [0]}, "class_grids: 4 x 4 cells cannot be parted into 0 x 0"),
        ({"feature_maps": ["stage7"]}, "class_grids: tokens of 96 channels have no room for 1280 features"),
    ],
)
def test_class_lists_that_cannot_be_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        classifying(**changes)


def test_a_folder_without_the_classifier_is_refused_and_one_with_it_read_without(tower, tmp_path):
    tower.save_pretrained(tmp_path / "with")
    EfficientNetLiteModel(EfficientNetLiteConfig(**SMALL)).save_pretrained(tmp_path / "without")
    with pytest.raises(UserError, match=r"without: lacks \d+ weights of a vision encoder, the first is class_branch"):
        vision_of_part(str(tmp_path / "without"), classifying(), torch.float32)
    plain = vision_of_part(str(tmp_path / "with"), EfficientNetLiteConfig(**SMALL), torch.float32)
    assert torch.equal(plain.blocks[3].bn1.weight, tower.blocks[3].bn1.weight)
    again = vision_of_part(str(tmp_path / "with"), classifying(), torch.float32)
    assert torch.equal(again.class_branch.fc.weight, tower.class_branch.fc.weight)


def test_training_leaves_the_classifier_as_it_is_and_wider_tokens_keep_its_vectors(tmp_path):
    base = tiny_folder(tmp_path / "base", vision_config=classifying(), class_tokens=2, own_classes=3, concat_order="square")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/shapes.jsonl").write_text('{"question": "?", "answer": "!"}\n')
    (tmp_path / "data/valid.jsonl").write_text('{"question": "?", "answer": "!"}\n')
    given = {"validation__images": [], "trained__lora": None, "trained__vision_tower": True, "trained__vision_layers": 6}
    model = {"base": str(base), "config": {"position_octaves": 2}}
    wide = prepare(parse_recipe(recipe_of(tmp_path, tmp_path / "x", model=model, **given), "test")).model
    learns = {name for name, parameter in wide.vision_tower.named_parameters() if parameter.requires_grad}
    assert any(name.startswith("blocks.") for name in learns)
    assert not any(name.startswith("class_branch.") for name in learns)
    wide.vision_tower.bn1.bias.data += 1  # random vision encoders this small see next to nothing
    for layers in (None, 7):
        changed = given | {"trained__vision_layers": layers}
        with pytest.raises(UserError, match="at most 6 of this vision encoder's layers, or its classifier"):
            prepare(parse_recipe(recipe_of(tmp_path, tmp_path / "x", model=model, **changed), "test"))
    narrow, pixels = load_system(base, dtype=torch.float32)[0], torch.randn(2, 3, 128, 128)
    narrow.vision_tower.bn1.bias.data += 1
    seen = narrow.get_image_features(pixels)
    torch.testing.assert_close(wide.get_image_features(pixels), seen, atol=1e-5, rtol=1e-4)
    drop_channels(narrow, 0.5)
    torch.testing.assert_close(narrow.train().get_image_features(pixels)[:, : 2 * (LISTS + 1)], seen[:, : 2 * (LISTS + 1)])
    assert not torch.allclose(narrow.get_image_features(pixels)[:, 2 * (LISTS + 1) :], seen[:, 2 * (LISTS + 1) :])


def test_features_of_other_lists_are_kept_apart(tmp_path):
    """The same weights give tokens of another number."""
    caches = []
    for grids in ([1], [1, 2]):
        torch.manual_seed(0)
        model = tiny_model(vision_config=classifying(class_grids=grids), class_tokens=1, concat_order="square")
        caches.append(FeatureCache(model, tiny_processor(model.config).image_processor, tmp_path))
    assert caches[0].folder != caches[1].folder
