"""Small random systems that tests build and throw away: no download, no hub."""

import gc
import os

if gc.isenabled():  # until all tests are imported: modules are no garbage, and to look at a million objects takes seconds
    gc.disable()
os.environ.pop("PYTHONUNBUFFERED", None)  # who installs this has none: what is written at the end of a process counts, too
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the hub is wrong, and should say so at once
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # nothing is compiled here, and to import bitsandbytes is a second less

import signal

import pytest
import torch
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import Blip2QFormerConfig, Blip2VisionConfig, CLIPVisionConfig, LlamaConfig, PreTrainedTokenizerFast

from minigpt4.checkpoints.loading import save_trained
from minigpt4.model import MiniGPT4Config, MiniGPT4ForConditionalGeneration, MiniGPT4ImageProcessor, MiniGPT4Processor
from minigpt4.model.vision.efficientnet_lite import EfficientNetLiteConfig

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job ignores Ctrl-C, and so would its children
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # it may be a busy one
settings.load_profile("any machine")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop():
    """What was imported stays, and the collector need not look at it again."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def seeded():
    """The same random numbers in every test, whatever ran before."""
    torch.manual_seed(0)


def tiny_llama(**changes) -> LlamaConfig:
    """A language model that runs in a millisecond."""
    return LlamaConfig(
        **{
            "vocab_size": 128,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        }
        | changes
    )


def tiny_clip(**changes) -> CLIPVisionConfig:
    """A vision encoder with a class token: 4 x 4 patches of 8 pixels."""
    return CLIPVisionConfig(
        **{
            "image_size": 32,
            "patch_size": 8,
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        }
        | changes
    )


def tiny_eva(**changes) -> Blip2VisionConfig:
    """BLIP-2's vision encoder in small."""
    return Blip2VisionConfig(
        **{
            "image_size": 32,
            "patch_size": 8,
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "initializer_range": 0.5,
        }
        | changes
    )


def tiny_qformer(**changes) -> Blip2QFormerConfig:
    return Blip2QFormerConfig(
        **{
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "encoder_hidden_size": 24,
            "initializer_range": 0.2,
        }
        | changes
    )


def tiny_config(kind: str = "concat", **changes) -> MiniGPT4Config:
    """A whole system: ``concat`` (MiniGPT-v2's way) or ``qformer`` (MiniGPT-4's)."""
    settings = {"vision_config": tiny_eva(), "text_config": tiny_llama(), "connector": kind}
    if kind == "qformer":
        settings |= {"qformer_config": tiny_qformer(), "num_query_tokens": 4}
    return MiniGPT4Config(**settings | changes)


def tiny_model(kind: str = "concat", **changes) -> MiniGPT4ForConditionalGeneration:
    model = MiniGPT4ForConditionalGeneration(tiny_config(kind, **changes))
    with torch.no_grad():  # weights large enough that pictures and words matter to what is said
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and not name.startswith("vision_tower"):
                parameter.normal_(0, 0.25)
    return model.eval()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Single characters, and the special tokens of ChatML; every text it can spell survives a round trip."""
    special = ["<pad>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"]
    letters = [chr(c) for c in range(32, 127)] + ["\n"]
    vocabulary = {token: i for i, token in enumerate([*special, *letters])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )


def tiny_processor(config: MiniGPT4Config, template: str = "chatml") -> MiniGPT4Processor:
    return MiniGPT4Processor(
        MiniGPT4ImageProcessor(config.image_size),
        tiny_tokenizer(),
        template=template,
        num_image_tokens=config.num_image_tokens,
        image_token_id=config.image_token_id,
    )


@pytest.fixture(params=["concat", "qformer"])
def model(request) -> MiniGPT4ForConditionalGeneration:
    return tiny_model(request.param)


def tiny_folder(folder, kind: str = "concat", **changes):
    """A whole system on disk, as `save_pretrained` leaves it."""
    model = tiny_model(kind, **changes)
    model.save_pretrained(folder)
    tiny_processor(model.config).save_pretrained(folder)
    return folder


def quick_folder(folder, **changes):
    """A system as the pocket model is: trained weights, a vision encoder and a language model in folders of their own. In a
    process of its own it is there a second or two sooner than a whole one, for which `transformers` imports the compiler.
    """
    vision = EfficientNetLiteConfig(image_size=128, width_multiplier=0.3, depth_multiplier=0.5)
    model = tiny_model(vision_config=vision, concat_order="square", **changes)
    processor = tiny_processor(model.config)
    parts = folder.parent / f"{folder.name} parts"
    model.vision_tower.save_pretrained(parts / "vision")
    model.language_model.save_pretrained(parts / "llm")
    processor.tokenizer.save_pretrained(parts / "llm")
    model.config.vision_source, model.config.text_source = str(parts / "vision"), str(parts / "llm")
    save_trained(model, processor, folder)
    return folder
