"""The weights that ship, in float32: what they said when they were recorded.

A swapped mean and deviation, a wrong template, stale adapters: each changes something here. After weights that were changed on
purpose, `python tests/test_pocket_golden.py` records anew.
"""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import minigpt4
from minigpt4.checkpoints import pocket

RECORD = Path(__file__).parent / "data" / "pocket.json"
PHOTOS = {name: Path(__file__).parents[1] / f"docs/images/{name}.jpg" for name in ("astronaut", "camera", "cat", "china")}


def measured(model: minigpt4.Assistant) -> dict:
    """Captions, a box, an answer, and some numbers of what the language model receives for each image."""
    embeds = {name: image.embeds for name, image in zip(PHOTOS, model.engine.encode(list(PHOTOS.values())), strict=True)}
    return {
        "captions": {name: model.caption(path).text for name, path in PHOTOS.items()},
        "short answer": model.vqa(PHOTOS["china"], "Is this a building?").text,
        "refer": model.refer(PHOTOS["astronaut"], "the woman").text,
        "embeds": {
            name: [*each[[0, 7, -1], [0, 100, -1]].tolist(), each.mean().item(), each.norm().item()]
            for name, each in embeds.items()
        },
    }


@pytest.fixture(scope="module")
def model():
    return minigpt4.load(dtype=torch.float32)


def test_the_shipped_weights_say_what_they_said(model):
    recorded, now = json.loads(RECORD.read_text()), measured(model)
    for name, values in recorded.pop("embeds").items():
        assert now["embeds"][name] == pytest.approx(values, rel=2e-3, abs=2e-3)
    now.pop("embeds")
    assert now == recorded


@pytest.mark.parametrize("damage", ["mean and deviation", "template", "adapters", "projection"])
def test_what_would_be_wrong_is_seen(model, damage, monkeypatch):
    """The record is sharp enough: each of these changes something in it."""
    recorded = json.loads(RECORD.read_text())
    if damage == "mean and deviation":
        images = model.processor.image_processor
        mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
        monkeypatch.setattr(images, "image_mean", mean)
        monkeypatch.setattr(images, "image_std", std)
    elif damage == "template":
        monkeypatch.setattr(model.processor, "template", "vicuna-v0")
    elif damage == "adapters":
        base = AutoModelForCausalLM.from_pretrained(pocket.prepared() / "llm", dtype=torch.float32)
        for own, other in zip(model.model.language_model.parameters(), base.parameters(), strict=True):
            monkeypatch.setattr(own, "data", other.data)
    else:
        monkeypatch.setattr(model.model.projection.weight, "data", model.model.projection.weight.data.flip(0))
    fresh = minigpt4.Assistant(model.model, model.processor)  # one that remembers nothing
    name = "astronaut"
    embeds = fresh.engine.encode([PHOTOS[name]])[0].embeds
    seen = [*embeds[[0, 7, -1], [0, 100, -1]].tolist(), embeds.mean().item(), embeds.norm().item()]
    other = seen != pytest.approx(recorded["embeds"][name], rel=2e-3, abs=2e-3)
    assert other or fresh.caption(PHOTOS[name]).text != recorded["captions"][name]


if __name__ == "__main__":
    RECORD.write_text(json.dumps(measured(minigpt4.load(dtype=torch.float32)), indent=1, ensure_ascii=False) + "\n")
