"""Questions a second through the engine, one after the other, and through `transformers.generate` in padded batches.

    python benchmarks/engine.py [--questions 64] [--new-tokens 32] [--model pocket] [--dtype float32] [--soak 1000]
        [--onnx float32 8bit 4bit]

Every question is about an image of its own, so that nothing is known from earlier; each answer has exactly as many tokens as
are asked for. Same weights, same precision (but for what --onnx adds), same cores; the ratios are what counts.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import minigpt4
from minigpt4.engine.completion import Request
from minigpt4.engine.engine import Engine
from minigpt4.engine.limits import Limits
from minigpt4.engine.params import SamplingParams
from minigpt4.prompt.templates import with_images

PHOTOS = sorted((Path(__file__).parents[1] / "docs/images").glob("*.jpg"))
QUESTIONS = ("What is in this picture?", "What might happen next, and why do you think so?", "Who is there?", "Describe it.")


def image(number: int) -> Image.Image:
    """A photograph with a little noise of its own: no two are the same to the engine."""
    with Image.open(PHOTOS[number % len(PHOTOS)]) as photo:
        pixels = np.asarray(photo.convert("RGB").resize((320, 240)), dtype=np.int16)
    noise = np.random.default_rng(number).integers(-4, 5, pixels.shape, dtype=np.int16)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def request(number: int, new_tokens: int) -> Request:
    text = with_images(" ".join([QUESTIONS[number % 4]] * (1 + number % 3)), 1)
    params = SamplingParams(max_new_tokens=new_tokens, min_new_tokens=new_tokens)
    return Request(messages=[{"role": "user", "content": text}], images=[image(number)], params=params)


def with_the_library(model: minigpt4.Assistant, requests: list[Request], new_tokens: int) -> None:
    """`generate` as its users call it: a padded batch, images encoded together before it."""
    for first in range(0, len(requests), 16):
        batch = requests[first : first + 16]
        rows = model.processor.pad([model.processor.prompt_ids(one.messages) for one in batch])
        pixels = model.processor.image_processor([one.images[0] for one in batch])["pixel_values"]
        with torch.inference_mode():
            embeds = model.model.get_image_features(pixels)
            model.model.generate(**rows, image_embeds=embeds, max_new_tokens=new_tokens, min_new_tokens=new_tokens)


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--onnx", nargs="*", choices=("float32", "8bit", "4bit"), default=[], help="in ONNX Runtime as well")
    parser.add_argument("--soak", type=int, default=0, help="requests after which memory is looked at again")
    given = parser.parse_args()
    model = minigpt4.load(given.model, dtype=given.dtype, backend="torch")
    requests = [request(i, given.new_tokens) for i in range(given.questions)]
    few = requests[: max(4, given.questions // 8)]

    def engine() -> Engine:
        return Engine(model.model, model.processor, Limits())

    engine().generate(requests[:2])  # warm up
    alone = engine()
    times = {
        "one after the other": seconds(lambda: [alone.generate([one]) for one in few]) / len(few),
        "generate, padded batches of 16": seconds(lambda: with_the_library(model, requests, given.new_tokens)) / len(requests),
        "engine": seconds(lambda: engine().generate(requests)) / len(requests),
    }
    for bits in given.onnx:
        how = {"dtype": bits} if bits == "float32" else {"quantize": bits}  # who names neither gets 8 bits
        fast = minigpt4.load(given.model, backend="onnx", **how).engine  # type: ignore[arg-type]
        fast.generate(requests[:2])
        times[f"engine, ONNX Runtime, {bits}"] = seconds(lambda fast=fast: fast.generate(requests[2:])) / (len(requests) - 2)
    print(f"{given.model}, {given.dtype}, {torch.get_num_threads()} thread(s), {given.new_tokens} new tokens a question")
    for name, each in times.items():
        print(f"{name:32} {1 / each:6.2f} questions/s   engine is {each / times['engine']:.2f}x as fast")
    if given.soak:
        kept = engine()
        kept.generate([request(i, 4) for i in range(64)])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kept.generate((request(100 + i, 4) for i in range(given.soak)), batch_size=64)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"memory at its highest: {before / 1024:.0f} MB after 64 requests, {after / 1024:.0f} MB after {given.soak} more")


if __name__ == "__main__":
    main()
