"""Training throughput of our loop beside the straightforward `transformers` loop, on the same work in one run.

    python benchmarks/train_throughput.py [--steps 12]

The work: a 12-layer ViT of width 384 at 224 pixels, four patch tokens joined (64 image tokens), SmolLM2-135M's shape,
batches of 16 examples with 20-token questions and 15-token captions; the projection is trained, all else is frozen.
Weights are random (speed does not depend on them), so nothing is downloaded.

- *straightforward*: the vision encoder in every step, logits of all positions, one example a row padded to the longest, the
library's
  default attention, ``AdamW``; in float32, and in bfloat16 where the machine does not only imitate it;
- *ours*: `minigpt4.train` run by a recipe, with and without cached features, in the precision that it chooses here.

The ceiling is the time that the step's matrix products alone take at the measured peak of a large product, in our precision.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel, LlamaConfig, PreTrainedTokenizerFast

from minigpt4.checkpoints.loading import fast_dtype
from minigpt4.model import MiniGPT4Config, MiniGPT4ForConditionalGeneration, MiniGPT4ImageProcessor, MiniGPT4Processor
from minigpt4.train.flops import matmul_peak
from minigpt4.train.loop import train
from minigpt4.train.recipe import parse_recipe

BATCH, QUESTION, CAPTION, IMAGES = 16, 20, 15, 64
VISION = CLIPVisionConfig(
    image_size=224, patch_size=14, hidden_size=384, intermediate_size=1536, num_hidden_layers=12, num_attention_heads=6
)
LLM = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    tie_word_embeddings=True,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12, help="measured steps of each loop, after two that warm up")
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    dtype = fast_dtype("cpu")
    name = str(dtype).removeprefix("torch.")
    peak = matmul_peak(torch.device("cpu"), dtype)
    llm = sum(p.numel() for p in AutoModelForCausalLM.from_config(LLM).model.layers.parameters() if p.ndim == 2)
    tokens = 64 + QUESTION + CAPTION + 8  # with the chat format around them
    flops = 4 * llm * tokens + 4 * LLM.vocab_size * LLM.hidden_size * CAPTION + 4 * 64 * 4 * 384 * 576
    vision = 2 * 257 * 12 * (4 * 384 * 384 + 2 * 384 * 1536)
    with tempfile.TemporaryDirectory() as folder:
        rows = {f"transformers, {str(d).removeprefix('torch.')}": straightforward(steps, d) for d in {torch.float32, dtype}}
        fastest = max(rows, key=rows.__getitem__)
        system, data = write_system(Path(folder)), write_data(Path(folder))
        rows[f"ours, {name}"] = ours(Path(folder) / "plain", system, data, steps, cached=False)
        rows[f"ours, {name}, cached features"] = ours(Path(folder) / "cached", system, data, steps, cached=True)
    print(f"\nmatrix-product peak {peak / 1e9:.0f} GFLOP/s in {name}, {torch.get_num_threads()} threads, {tokens} positions\n")
    print(f"| loop | examples/s | against {fastest} | of the ceiling |\n|---|---|---|---|")
    for loop, speed in rows.items():
        ceiling = peak / (flops if "cached" in loop else flops + vision)
        share = f"{speed / ceiling:.0%}" if name in loop else ""
        print(f"| {loop} | {speed:.2f} | {speed / rows[fastest]:.2f} | {share} |")


def straightforward(steps: int, dtype: torch.dtype) -> float:
    """Examples a second of the loop that one writes first."""
    vision = CLIPVisionModel(VISION).to(dtype).requires_grad_(False).eval()
    llm = AutoModelForCausalLM.from_config(LLM).to(dtype).requires_grad_(False)
    projection = nn.Linear(4 * VISION.hidden_size, LLM.hidden_size).to(dtype)
    optimizer = torch.optim.AdamW(projection.parameters(), lr=1e-4)
    times = []
    for _ in range(steps + 2):
        pixels = torch.randn(BATCH, 3, 224, 224, dtype=dtype)
        ids = torch.randint(3, 49000, (BATCH, QUESTION + CAPTION + 8))
        begun = time.perf_counter()
        with torch.no_grad():
            patches = vision(pixels).last_hidden_state[:, 1:]
        images = projection(patches.reshape(BATCH, 64, -1))
        words = llm.get_input_embeddings()(ids)
        embeds = torch.cat([words[:, :4], images, words[:, 4:]], 1)
        labels = torch.cat([torch.full((BATCH, 64), -100), ids], 1)
        labels[:, :-CAPTION] = -100
        llm(inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2]), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - begun)
    return BATCH / statistics.median(times[2:])


def ours(output: Path, system: Path, data: Path, steps: int, cached: bool) -> float:
    """Examples a second of `minigpt4.train` on a folder of pictures."""
    recipe = {
        "model": {"base": str(system)},
        "data": {
            "datasets": [{"format": "jsonl", "annotations": str(data)}],
            "batch": BATCH,
            "row_tokens": 128,
            "cache_features": cached,
            "cache_folder": str(output / "features"),
        },
        "steps": steps + 2,
        "validation": {"every": 10_000},
        "checkpoint_every": 10_000,
        "output": str(output),
    }
    train(parse_recipe(recipe, "benchmark"))
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return statistics.median(row["samples_per_s"] for row in rows[2:] if "loss" in row)


def write_system(folder: Path) -> Path:
    """A system of random weights, with a tokenizer that makes one token of each word."""
    config = MiniGPT4Config(vision_config=VISION.to_dict(), text_config=LLM.to_dict())
    model = MiniGPT4ForConditionalGeneration(config).to(torch.bfloat16)
    model.save_pretrained(folder / "system")
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"])}
    backend = Tokenizer(models.WordLevel(vocabulary | {f"w{i}": i for i in range(6, 4000)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )  # fmt: skip
    MiniGPT4Processor(
        MiniGPT4ImageProcessor(224), tokenizer, "chatml", config.num_image_tokens, config.image_token_id
    ).save_pretrained(folder / "system")
    return folder / "system"


def write_data(folder: Path) -> Path:
    """Pictures with questions and captions of the benchmark's lengths."""
    rng = random.Random(0)
    rows = []
    for i in range(IMAGES):
        name = f"{i}.jpg"
        Image.effect_noise((224, 224), 80).convert("RGB").save(folder / name)
        question, answer = ([f"w{rng.randint(6, 3999)}" for _ in range(n)] for n in (QUESTION - 10, CAPTION - 1))
        rows.append({"image": name, "question": " ".join(question), "answer": " ".join(answer)})
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


if __name__ == "__main__":
    main()
