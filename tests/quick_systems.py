"""Small systems as the pocket model is, prepared for ONNX Runtime, which can be asked without torch."""

import random
from pathlib import Path

import pytest
import shapes
import torch
from conftest import tiny_llama, tiny_model, tiny_processor

from minigpt4.checkpoints.loading import save_trained
from minigpt4.inference import quick as module
from minigpt4.inference.assistant import load
from minigpt4.model.vision.efficientnet_lite import EfficientNetLiteConfig

IMAGES = [shapes.draw(*thing, random.Random(i)) for i, thing in enumerate(shapes.things(4))]
QUESTIONS = ["what?", "why? <ImageHere> <|im_end|> ### really \ud800", "[vqa] is it é?"]


def model_of(feature_maps=("head",), class_grids=(), **changes):
    """A system in small, as the pocket model is; norms of its vision encoder that do something."""
    small = {"image_size": 128, "width_multiplier": 0.3, "depth_multiplier": 0.5}
    vision = EfficientNetLiteConfig(**small, feature_maps=feature_maps, class_grids=class_grids)
    text = tiny_llama(hidden_size=64, intermediate_size=96, tie_word_embeddings=True)
    model = tiny_model(**{"vision_config": vision, "text_config": text, "concat_order": "square"} | changes)
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.running_mean.normal_(0, 0.3)
                norm.running_var.uniform_(0.5, 2)
                norm.weight.uniform_(0.5, 2)
                norm.bias.normal_()
    return model


def stored(folder: Path, template: str = "chatml", task_settings=None, **changes) -> Path:
    """A trained folder, its parts in folders of their own."""
    torch.manual_seed(0)
    model = model_of(position_octaves=2, **changes)
    processor = tiny_processor(model.config, template)
    model.vision_tower.save_pretrained(folder / "vision")
    model.language_model.save_pretrained(folder / "llm")
    processor.tokenizer.save_pretrained(folder / "llm")
    model.config.vision_source, model.config.text_source = str(folder / "vision"), str(folder / "llm")
    save_trained(model, processor, folder / "system", task_settings=task_settings)
    return folder / "system"


@pytest.fixture(scope="module")
def systems(tmp_path_factory):
    """Systems of two chat formats, prepared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIGPT4_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(module, "may_have_gpu", lambda: False)
        wished = {"caption": {"num_beams": 2}, "refer": {"self_consistency": 3}, "question": {"repetition_penalty": 1.2}}
        folders = {t: stored(tmp_path_factory.mktemp(t), t, wished) for t in ("chatml", "vicuna-v0")}
        yield {template: (folder, load(folder, dtype="float32")) for template, folder in folders.items()}


NO_TORCH = """
import sys
from minigpt4 import cli
from minigpt4.inference import quick
quick.may_have_gpu = lambda: False
try:
    cli.main()
except SystemExit as left:
    assert not left.code
heavy = [name for name in ("torch", "transformers", "onnx", "huggingface_hub") if name in sys.modules]
assert not heavy, heavy
"""
"""Runs the command in a process that is to end without these."""
