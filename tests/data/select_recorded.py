"""Choose from a full set of recordings of the published implementation what is committed here.

    python tests/data/select_recorded.py FULL_SET

The tests read either: a full set is used when MINIGPT4_FIXTURES names it. Left out here are one of the three systems but for
its tokenizer, gradients of most samples, intermediate activations, weights that nothing reads, and optimizer states.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
WHOLE = ("a", "c")
SMALL = (
    "system.json",
    "tokenizer.json",
    "adamw.json",
    "bert_config.json",
    "blip2_pretrained_flant5xxl.pth",
    "checkpoint_0.pth",
)
GRADIENTS = {"a": ("stage1_batch3", "stage2_batch3"), "c": ("v2_single", "v2_conv_pad_string", "v2_frames")}
ACTIVATIONS = {"a": ("vit_out", "qformer_out", "image_embeds"), "c": ("image_embeds",)}


def main(full: Path) -> None:
    for name in WHOLE:
        source, target = full / name, HERE / name
        shutil.copytree(source / "llm", target / "llm", dirs_exist_ok=True, copy_function=shutil.copyfile)
        for file in SMALL:
            if (source / file).exists():
                shutil.copyfile(source / file, target / file)
        for file in ("training.json", "generation.json"):
            (target / file).write_text(json.dumps(json.loads((source / file).read_text()), separators=(",", ":")) + "\n")
        eye = torch.load(source / "eva_vit_g.pth", weights_only=True)
        last = max(int(k.split(".")[1]) for k in eye if k.startswith("blocks."))
        unread = [k for k in eye if k.startswith(f"blocks.{last}.") and not k.endswith("norm1.weight")] + ["head.weight"]
        torch.save({k: v for k, v in eye.items() if k not in unread}, target / "eva_vit_g.pth")
        after = torch.load(source / "checkpoint_after_3_steps.pth", weights_only=True)
        torch.save({"model": after["model"]}, target / "checkpoint_after_3_steps.pth")
        kept = {k: v for k, v in load_file(source / "encode.safetensors").items() if k in ACTIVATIONS[name]}
        save_file(kept, target / "encode.safetensors")
        kept = {k: v for k, v in load_file(source / "training.safetensors").items() if k.split("/")[0] in GRADIENTS[name]}
        save_file(kept, target / "training.safetensors")
    (HERE / "b" / "llm").mkdir(parents=True, exist_ok=True)
    for file in ("system.json", "tokenizer.json", "llm/tokenizer.model", "llm/config.json"):
        shutil.copyfile(full / "b" / file, HERE / "b" / file)
    (HERE / "common" / "images").mkdir(parents=True, exist_ok=True)
    for file in (full / "common" / "images").glob("raw_*.png"):
        shutil.copyfile(file, HERE / "common" / "images" / file.name)
    for file in ("processor.json", "chat_prompts.json", "vqa_accuracy.json", "llama32k_token_ids.json"):
        shutil.copyfile(full / "common" / file, HERE / "common" / file)
    pixels = load_file(full / "common" / "processor.safetensors")
    save_file({k: v for k, v in pixels.items() if not k.endswith("/full")}, HERE / "common" / "processor.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
