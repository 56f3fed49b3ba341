"""A released system at full size with random weights: does it import, load, answer and train here, and what does it take?

    python benchmarks/full_size.py minigptv2-7b --folder SCRATCH [--train] [--quantize 4bit] [--tokens 8]

Writes files of the published layout (15 GB for a 7B system), imports them to bfloat16 (15 GB more), and prints for each step
its time and the peak of the process' own memory and of what it has mapped from files. Speed does not depend on what the
weights are. Nothing is started that would leave less than 2 GB of memory free.
"""

import argparse
import gc
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]
from official_files import checkpoint_tensors, qformer_tensors, vision_tensors
from recorded import ROOT

from minigpt4.checkpoints.loading import load_system
from minigpt4.checkpoints.official.full_size import SYSTEMS, full_size, memory
from minigpt4.checkpoints.official.importing import import_official
from minigpt4.data.examples import build_example
from minigpt4.engine.completion import Request
from minigpt4.engine.engine import Engine
from minigpt4.engine.limits import Limits
from minigpt4.engine.params import SamplingParams
from minigpt4.prompt.templates import with_images
from minigpt4.train.setup import parameter_groups

GB = 1e9
_BLOCK = torch.randn(1 << 20) * 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--quantize", choices=("8bit", "4bit"), help="the language model in few bits")
    parser.add_argument("--keep", action="store_true", help="leave the folder's files there")
    given = parser.parse_args()
    config = full_size(given.system)
    bits = int(given.quantize[0]) if given.quantize else None
    need = memory(config, torch.bfloat16, 1000, bits)
    print(f"{given.system}: weights {need['weights'] / GB:.1f} GB by computation", flush=True)
    given.folder.mkdir(parents=True, exist_ok=True)
    parts = step("write random files", lambda: write_files(config, given.folder))
    out = given.folder / "imported"
    if not out.exists():
        step("import", lambda: import_official(**parts, output=out, dtype=torch.bfloat16))
    if available() < need["weights"] + 2 * GB:
        sys.exit(f"not enough memory to load it: {available() / GB:.1f} GB are free")
    model, processor = step(
        "load", lambda: load_system(out, dtype=torch.bfloat16, merge=not given.train, quantize=given.quantize)
    )
    photo = Image.new("RGB", (640, 480), "teal")
    engine = Engine(model, processor, Limits(prefix_bytes=0))  # what was read for one answer is read for the next
    images = step("encode a picture", lambda: engine.encode([photo]))
    ask = [{"role": "user", "content": with_images("what is in this picture?", 1)}]
    for tokens in (1, given.tokens):
        params = SamplingParams(max_new_tokens=tokens, min_new_tokens=tokens)
        request = Request(messages=ask, images=images, params=params)
        step(f"answer with {tokens} token(s)", lambda request=request: engine.generate([request]))
    if given.train:
        step("train one step", lambda: train_step(model, processor, photo))
    if not given.keep:
        shutil.rmtree(given.folder)


def write_files(config: Any, folder: Path) -> dict[str, Any]:
    """The published files of a system of that size."""
    text, vision = config.text_config, config.vision_config
    parts: dict[str, Any] = {"vit": folder / "eva_vit_g.pth", "llm": folder / "llm", "checkpoint": folder / "checkpoint.pth"}
    if config.connector == "qformer":
        parts["qformer"] = folder / "blip2.pth"
    if (folder / "llm").exists():
        return parts
    torch.save(vision_tensors(vision.hidden_size, 40, mlp=vision.intermediate_size), parts["vit"])
    into = 768 if config.connector == "qformer" else 4 * vision.hidden_size
    lora = config.lora["r"] if config.lora else 0
    size = text.hidden_size
    torch.save({"model": checkpoint_tensors(into, size, lora, text.num_hidden_layers, size)}, parts["checkpoint"])
    if config.connector == "qformer":
        torch.save({"model": qformer_tensors(vision.hidden_size, 768, 12, 32)}, parts["qformer"])
    work = folder / "llm.part"
    work.mkdir(exist_ok=True)
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in LlamaForCausalLM(text).state_dict().items()}
    names, count = list(shapes), 24
    index = {}
    for i in range(0, len(names), count):
        file = f"model-{i // count:05}.safetensors"
        save_file({name: filled(shapes[name]) for name in names[i : i + count]}, work / file, metadata={"format": "pt"})
        index |= dict.fromkeys(names[i : i + count], file)
    (work / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    text.architectures = ["LlamaForCausalLM"]
    text.save_pretrained(work)
    shutil.copyfile(ROOT / "b" / "llm" / "tokenizer.model", work / "tokenizer.model")
    work.rename(folder / "llm")
    return parts


def filled(shape: tuple[int, ...]) -> torch.Tensor:
    """Values of the right size, quickly: one random block over and over."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.float16)
    count = torch.Size(shape).numel()
    return _BLOCK.half().repeat(-(-count // len(_BLOCK)))[:count].view(shape)


def train_step(model: Any, processor: Any, photo: Image.Image) -> float:
    """Forward, backward and AdamW for one example; what is published as trained is trained."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("projection.") or ".lora_" in name)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    model.train()
    model.language_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    prompt = processor.chat.training_prompt("<Img><ImageHere></Img> what is this ?")
    example = build_example(processor, prompt, ["a teal picture with nothing in it, and a long answer about it."])
    ids = torch.tensor([example.prefix_ids + example.branches[0].ids])
    labels = torch.tensor([[-100] * len(example.prefix_ids) + example.branches[0].labels])
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), lr=1e-5)
    pixels = processor.image_processor(photo)["pixel_values"]
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=ids, labels=labels, pixel_values=pixels).loss
    loss.backward()
    optimizer.step()
    print(f"  {ids.shape[1]} tokens, loss {loss.item():.3f}", flush=True)
    return loss.item()


def step(name: str, work: Callable[[], Any]) -> Any:
    """Run a step; print its time and the memory that it took at most."""
    gc.collect()
    peaks, done = [memory_now()], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peaks.append(memory_now())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    begun = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - begun
    done.set()
    watcher.join()
    own, mapped = (max(values) for values in zip(*peaks, strict=True))
    print(f"{name}: {seconds:.1f} s, own memory up to {own / GB:.1f} GB, files mapped up to {mapped / GB:.1f} GB", flush=True)
    return result


def memory_now() -> tuple[int, int]:
    """Own memory and pages of files of this process, in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Rss"))
    return int(lines["RssAnon"].split()[0]) * 1024, int(lines["RssFile"].split()[0]) * 1024


def available() -> int:
    """Memory that could be had, in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


if __name__ == "__main__":
    main()
