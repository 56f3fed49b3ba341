"""The waits of a person who talks about a photo, in a warm process: to the first word, of the second question, and for a box.

    python benchmarks/waits.py [--backend onnx] [--quantize 8bit] [--rounds 5]

Printed: image to first token beside its floor (vision encoder and prompt, each by itself); the first token of a second
question beside that of a question without an image that is as long; and a phrase found by self-consistency and zoom-in
refinement, as `refer` does it. Every question is worded anew, so that nothing of it is known. The best of the rounds counts.
"""

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch

import minigpt4
from minigpt4.engine.completion import Request
from minigpt4.engine.engine import Engine
from minigpt4.engine.params import SamplingParams
from minigpt4.media.images import open_image
from minigpt4.prompt.templates import Message, with_images

PHOTO = Path(__file__).parents[1] / "docs/images/cat.jpg"
WORDS = "red big old near left small green round tall soft dark open warm flat long wide".split()
PHRASES = ("the cat", "the animal on the left", "its head", "the ears")


def question(rng: random.Random) -> str:
    return f"Which {' '.join(rng.sample(WORDS, 8))} thing is this?"


def first_token(engine: Engine, messages: list[Message], images: list) -> float:
    begun = time.perf_counter()
    stream = engine.stream(Request(messages=messages, images=images))
    next(stream)
    took = time.perf_counter() - begun
    stream.close()
    return took


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    with torch.inference_mode():
        work()
    return time.perf_counter() - begun


def user(text: str, images: int = 0) -> Message:
    return {"role": "user", "content": with_images(text, images)}


def one_round(model: minigpt4.Assistant, number: int) -> dict[str, float]:
    """Seconds of each wait, about an image that the engine does not know."""
    engine, rng = model.engine, random.Random(number)
    image = open_image(PHOTO).rotate(number, fillcolor=(number, 0, 0))  # another image to the engine
    first = [user(question(rng), 1)]
    took = {"image to first token": first_token(engine, first, [image])}
    backend, encoded = engine.backend, engine.encode([image])
    pixels = model.processor.image_processor([image])["pixel_values"]
    took["floor: vision encoder"] = seconds(lambda: backend.image_features(pixels))
    ids = engine.prompt_ids([user(question(rng), 1)], 1)

    def read_prompt() -> None:
        feed = backend.embed(ids, encoded)
        backend.read(backend.new_block(1, len(feed) + 1), feed[None], 0, [len(feed)])

    took["floor: prompt"] = seconds(read_prompt)
    for said in (20, 100):
        params = SamplingParams(max_new_tokens=said, min_new_tokens=said)
        asked = [user(question(rng), 1)]
        ((answer,),) = engine.generate([Request(messages=asked, images=encoded, params=params)])
        talk = [*asked, {"role": "assistant", "content": answer.text}, user(question(rng))]
        took[f"second question, behind {said} tokens"] = first_token(engine, talk, encoded)
    took["a question without an image"] = first_token(engine, [user(question(rng))], [])
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--quantize", choices=("float32", "8bit", "4bit"), default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    how = {"dtype": "float32"} if given.quantize == "float32" else {"quantize": given.quantize}
    model = minigpt4.load(backend=given.backend, **how)
    one_round(model, 1)  # warm up
    rounds = [one_round(model, 2 + number) for number in range(given.rounds)]
    best = {name: min(one[name] for one in rounds) for name in rounds[0]}
    print(f"pocket, {given.backend}, {given.quantize}, {torch.get_num_threads()} thread(s)")
    for name, took in best.items():
        print(f"{name:40} {1000 * took:7.0f} ms")
    floor = best["floor: vision encoder"] + best["floor: prompt"]
    print(f"image to first token: {best['image to first token'] / floor:.2f}x its floor")
    plain = best["a question without an image"]
    for name in (name for name in best if name.startswith("second")):
        print(f"{name}: {best[name] / plain:.2f}x a question without an image")
    for number, phrase in enumerate(PHRASES):
        image = open_image(PHOTO).rotate(100 + number)
        print(f"refer, {phrase!r}: {seconds(lambda image=image, phrase=phrase: model.refer(image, phrase)):.2f} s")


if __name__ == "__main__":
    main()
