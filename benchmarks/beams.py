"""Captions by beam search through the engine, beside `transformers.generate` in padded batches: pictures a second.

    python benchmarks/beams.py [FOLDER] [--limit 48] [--beams 3 5] [--batch 16]

The vision encoder is not counted: images are encoded before. Captions that differ are counted against `generate`'s.
"""

import argparse
import time
from pathlib import Path

import torch

import minigpt4
from minigpt4.engine.completion import EncodedImage, Request
from minigpt4.engine.engine import Engine
from minigpt4.engine.limits import Limits
from minigpt4.engine.params import SamplingParams
from minigpt4.io.cores import wait_quietly
from minigpt4.media.images import images_in
from minigpt4.prompt.templates import with_images

MESSAGES = [{"role": "user", "content": with_images("[caption] Briefly describe this image.", 1)}]
SETTINGS = {"max_new_tokens": 40, "no_repeat_ngram_size": 4}  # those of the pocket's captions
WAYS = {
    "engine, torch, float32": {"backend": "torch"},
    "engine, ONNX Runtime, float32": {"backend": "onnx", "dtype": "float32"},
    "engine, ONNX Runtime, 8 bits": {"backend": "onnx", "quantize": "8bit"},
}


def through_engine(system: minigpt4.Assistant, images: list[EncodedImage], beams: int) -> list[str]:
    params = SamplingParams.from_settings(SETTINGS, {"num_beams": beams})
    requests = [Request(messages=MESSAGES, images=[image], params=params) for image in images]
    engine = Engine(system.model, system.processor, Limits(prefix_bytes=0), system.engine.backend)  # that has read nothing yet
    return [done.text for (done,) in engine.generate(requests)]


@torch.inference_mode()
def with_the_library(system: minigpt4.Assistant, images: list[EncodedImage], beams: int, batch: int) -> list[str]:
    """As its users call it: each beam reads the prompt."""
    model, texts = system.model, list[str]()
    for first in range(0, len(images), batch):
        part = torch.stack([image.embeds for image in images[first : first + batch]])
        rows = system.processor.pad([system.processor.prompt_ids(MESSAGES)] * len(part))
        ids = model.language_model.generate(
            inputs_embeds=model.embed(rows["input_ids"], part),
            attention_mask=rows["attention_mask"],
            eos_token_id=model.generation_config.eos_token_id,
            pad_token_id=model.generation_config.pad_token_id,
            num_beams=beams,
            **SETTINGS,
        )
        texts += [text.strip() for text in system.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)]
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parents[1] / "docs/images")
    parser.add_argument("--limit", type=int, default=48)
    parser.add_argument("--beams", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args()
    photos = images_in([given.folder])[: given.limit]
    systems = {name: minigpt4.load(**how) for name, how in WAYS.items()}  # type: ignore[arg-type]
    plain = next(iter(systems.values()))
    images = plain.engine.encode(photos)
    print(
        f"{len(images)} pictures\n\n| beams | | pictures/s | against generate | captions that differ |\n|---|---|---|---|---|"
    )
    for beams in given.beams:
        begun = time.perf_counter()
        theirs = with_the_library(plain, images, beams, given.batch)
        first = time.perf_counter() - begun
        print(f"| {beams} | transformers generate, float32 | {len(images) / first:.2f} | 1.00x | |", flush=True)
        for name, system in systems.items():
            through_engine(system, images[:1], beams)
            begun = time.perf_counter()
            ours = through_engine(system, images, beams)
            took = time.perf_counter() - begun
            differ = sum(one != other for one, other in zip(ours, theirs, strict=True))
            print(f"| {beams} | {name} | {len(images) / took:.2f} | {first / took:.2f}x | {differ} |", flush=True)


if __name__ == "__main__":
    wait_quietly()
    main()
