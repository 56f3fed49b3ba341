"""What captions cost on GPUs, computed: from a system's own counts and a card's data sheet, with what is assumed in view.

    python benchmarks/plan.py [--system minigptv2-7b] [--peak 989] [--bandwidth 3.35] [--memory 80] [--hour 2.50] [--cpu]

Nothing here runs on a GPU. FLOPs and bytes are counted from the configuration; the shares of the peak that are reached are
assumptions (`--of-peak`, `--of-bandwidth`), and the price is yours to give. `--cpu` also measures here, on one core, what a
server does to an image before the GPU sees it. docs/serving.md shows the result for one, 8 and 1,000 cards.
"""

import argparse
import base64
import io
import json
import time

import torch
from PIL import Image

from minigpt4.checkpoints.official.full_size import SYSTEMS, count_parameters, full_size, memory

BF16 = 2  # bytes


def work(name: str, prompt: int, answer: int) -> dict[str, float]:
    """FLOPs and bytes of one caption: a weight is 2 FLOPs a token; attention 4 x pairs x width in each layer."""
    config = full_size(name)
    parts, vision, text = count_parameters(config), config.vision_config, config.text_config
    patches = (vision.image_size // vision.patch_size) ** 2 + 1
    encoder = 2 * parts["vision"] * patches + 4 * patches**2 * vision.hidden_size * (vision.num_hidden_layers - 1)
    tokens = config.num_image_tokens + prompt
    layers = parts["llm"] - 2 * text.vocab_size * text.hidden_size  # embeddings cost nothing, the head counts once an answer
    head = 2 * text.vocab_size * text.hidden_size
    attention = 4 * tokens**2 * text.hidden_size * text.num_hidden_layers / 2
    return {
        "image tokens": config.num_image_tokens,
        "encoder, TFLOP": encoder / 1e12,
        "prompt, TFLOP": (2 * layers * tokens + attention + head) / 1e12,
        "answer, TFLOP": (2 * layers + head) * answer / 1e12,
        "weights, GB": memory(config, torch.bfloat16, 0)["weights"] / 1e9,
        "read each step, GB": BF16 * (layers + head / 2) / 1e9,
        "keys and values, GB": memory(config, torch.bfloat16, tokens + answer)["cache"] / 1e9,
    }


def captions_a_second(need: dict[str, float], given: argparse.Namespace) -> dict[str, float]:
    """Of one card: images and prompts are bound by arithmetic, the words of an answer by memory."""
    arithmetic = (need["encoder, TFLOP"] + need["prompt, TFLOP"]) / (given.peak * given.of_peak)
    room = 0.9 * given.memory - need["weights, GB"]
    batch = max(1, min(given.batch, int(room / need["keys and values, GB"])))
    step = (need["read each step, GB"] + batch * need["keys and values, GB"]) / (1000 * given.bandwidth * given.of_bandwidth)
    step = max(step, batch * need["answer, TFLOP"] / given.answer / (given.peak * given.of_peak))
    words = given.answer * step / batch
    return {
        "answers at a time": batch,
        "image and prompt, ms": 1000 * arithmetic,
        "one step of all answers, ms": 1000 * step,
        "words, ms of the card for a caption": 1000 * words,
        "captions a second": 1 / (arithmetic + words),
        "arithmetic's share": arithmetic / (arithmetic + words),
    }


def on_the_cpu(side: int) -> dict[str, float]:
    """Measured here: milliseconds of one core for an image of 640 x 480 that came as JSON."""
    noise = Image.effect_noise((160, 120), 60).resize((640, 480), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    Image.merge("RGB", (noise, noise.rotate(180), noise)).save(out, "JPEG", quality=85)
    body = json.dumps({"image": base64.b64encode(out.getvalue()).decode()})

    def timed(what, times: int = 40) -> float:
        best = float("inf")
        for _ in range(times):
            begun = time.perf_counter()
            what()
            best = min(best, time.perf_counter() - begun)
        return 1000 * best

    def decoded() -> Image.Image:
        return Image.open(io.BytesIO(out.getvalue())).convert("RGB")

    image = decoded()
    return {
        "JPEG, kB": len(out.getvalue()) / 1000,
        "JSON and base64, ms": timed(lambda: base64.b64decode(json.loads(body)["image"])),
        "JPEG to pixels, ms": timed(decoded),
        f"to {side} x {side}, ms": timed(lambda: image.resize((side, side), Image.Resampling.BICUBIC)),
    }


def show(title: str, found: dict[str, float]) -> None:
    print(title)
    for name, value in found.items():
        print(f"  {name:38} {value:10,.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--system", default="minigptv2-7b", choices=sorted(SYSTEMS))
    parser.add_argument("--peak", type=float, default=989, help="TFLOP/s of the card in bfloat16 (H100 SXM: 989)")
    parser.add_argument("--bandwidth", type=float, default=3.35, help="TB/s of its memory (H100 SXM: 3.35)")
    parser.add_argument("--memory", type=float, default=80, help="GB of it")
    parser.add_argument("--hour", type=float, default=2.5, help="what an hour of the card costs")
    parser.add_argument("--of-peak", type=float, default=0.4, help="share of the peak that is reached (assumed)")
    parser.add_argument("--of-bandwidth", type=float, default=0.6, help="share of the bandwidth that is reached (assumed)")
    parser.add_argument("--prompt", type=int, default=40, help="tokens beside the image's")
    parser.add_argument("--answer", type=int, default=30, help="tokens of a caption")
    parser.add_argument("--batch", type=int, default=256, help="answers at a time, where there is room")
    parser.add_argument("--cpu", action="store_true", help="measure what an image costs before the GPU")
    given = parser.parse_args()
    need = work(given.system, given.prompt, given.answer)
    show(f"{given.system}: one caption", need)
    rate = captions_a_second(need, given)
    show("one card", rate)
    for cards in (1, 8, 1000):
        many = cards * rate["captions a second"]
        cost = given.hour * cards * 1e6 / (3600 * many)
        print(f"{cards:5,} cards: {many:9,.0f} captions/s; a million in {1e6 / many / 60:7.1f} min; {cost:.2f} a million")
    if given.cpu:
        show("before the GPU, measured on one core here", on_the_cpu(full_size(given.system).vision_config.image_size))


if __name__ == "__main__":
    main()
