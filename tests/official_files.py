"""Small random systems in the layout of the published files, written by the test that wants to spoil them."""

import shutil
from pathlib import Path
from typing import Any

import torch
from conftest import tiny_llama
from recorded import ROOT
from transformers import LlamaForCausalLM

VOCABULARY = 600  # of the recorded tokenizer


def vision_tensors(width: int = 32, blocks: int = 3, grid: int = 16, mlp: int = 40) -> dict[str, torch.Tensor]:
    """``eva_vit_g.pth``."""
    tensors = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, grid * grid + 1, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,),
        "fc_norm.weight": (width,),
        "head.bias": (10,),
    }
    for i in range(blocks):
        for name, shape in {
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "attn.q_bias": (width,),
            "attn.v_bias": (width,),
            "attn.qkv.weight": (3 * width, width),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "norm2.weight": (width,),
            "norm2.bias": (width,),
            "mlp.fc1.weight": (mlp, width),
            "mlp.fc1.bias": (mlp,),
            "mlp.fc2.weight": (width, mlp),
            "mlp.fc2.bias": (width,),
        }.items():
            tensors[f"blocks.{i}.{name}"] = shape
    return {name: torch.randn(shape).half() for name, shape in tensors.items()}


def qformer_tensors(encoder: int = 32, width: int = 16, layers: int = 2, queries: int = 8) -> dict[str, torch.Tensor]:
    """``blip2_pretrained_flant5xxl.pth``, what is under ``model``."""
    tensors: dict[str, tuple[int, ...]] = {
        "query_tokens": (1, queries, width),
        "ln_vision.weight": (encoder,),
        "ln_vision.bias": (encoder,),
        "Qformer.bert.embeddings.LayerNorm.weight": (width,),
        "Qformer.bert.embeddings.LayerNorm.bias": (width,),
        "t5_proj.weight": (4, width),
    }

    def linear(name: str, out: int, size: int) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = (out, size), (out,)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = tensors[f"{name}.bias"] = (width,)

    for i in range(layers):
        layer = f"Qformer.bert.encoder.layer.{i}"
        for attention, source in (("attention", width), ("crossattention", encoder)):
            if attention == "crossattention" and i % 2:
                continue
            linear(f"{layer}.{attention}.self.query", width, width)
            linear(f"{layer}.{attention}.self.key", width, source)
            linear(f"{layer}.{attention}.self.value", width, source)
            linear(f"{layer}.{attention}.output.dense", width, width)
            norm(f"{layer}.{attention}.output.LayerNorm")
        linear(f"{layer}.intermediate_query.dense", 24, width)
        linear(f"{layer}.output_query.dense", width, 24)
        norm(f"{layer}.output_query.LayerNorm")
        linear(f"{layer}.intermediate.dense", 24, width)  # the half for text, which nothing wants
    return {name: torch.randn(shape) for name, shape in tensors.items()}


def checkpoint_tensors(into: int = 32, out: int = 32, lora: int = 0, layers: int = 2, kv: int = 16) -> dict[str, torch.Tensor]:
    """A training checkpoint, what is under ``model``."""
    tensors = {"llama_proj.weight": torch.randn(out, into), "llama_proj.bias": torch.randn(out)}
    for i in range(layers):
        prefix = "base_model.model.model" if lora else "model"
        tensors[f"llama_model.{prefix}.layers.{i}.self_attn.rotary_emb.inv_freq"] = torch.randn(4)
        for name, size in (("q_proj", out), ("v_proj", kv)) if lora else ():
            module = f"llama_model.base_model.model.model.layers.{i}.self_attn.{name}"
            tensors[f"{module}.lora_A.weight"] = torch.randn(lora, out)
            tensors[f"{module}.lora_B.weight"] = torch.randn(size, lora)
    return tensors


def write_llm(folder: Path, **changes: Any) -> Path:
    """A language model's folder with a tokenizer."""
    LlamaForCausalLM(
        tiny_llama(**{"vocab_size": VOCABULARY, "max_position_embeddings": 2048} | changes)
    ).half().save_pretrained(folder)
    shutil.copyfile(ROOT / "b" / "llm" / "tokenizer.model", folder / "tokenizer.model")
    return folder


def write_system(folder: Path, kind: str) -> dict[str, Any]:
    """A whole system; returns what `import_official` is given, but for the output."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(vision_tensors(), folder / "eva_vit_g.pth")
    llm = write_llm(folder / "llm")
    into = {"minigpt4-vicuna": 16, "minigpt4-llama2": 128, "minigptv2": 128}[kind]
    arch = "minigpt_v2" if kind == "minigptv2" else "minigpt4"
    torch.save(
        {"model": checkpoint_tensors(into, lora=4 * (kind == "minigptv2")), "config": {"model": {"arch": arch}}, "epoch": 0},
        folder / "checkpoint.pth",
    )
    parts: dict[str, Any] = {
        "vit": folder / "eva_vit_g.pth",
        "llm": llm,
        "checkpoint": folder / "checkpoint.pth",
        "vit_heads": 4,
    }
    if kind == "minigpt4-vicuna":
        torch.save({"model": qformer_tensors()}, folder / "blip2.pth")
        (folder / "bert_config.json").write_text('{"num_attention_heads": 2}')
        parts["qformer"] = folder / "blip2.pth"
    return parts


def change(file: Path, how: Any) -> None:
    """Change the tensors of a PyTorch file in place: `how` gets the dictionary of them."""
    whole = torch.load(file, weights_only=True)
    how(whole.get("model", whole))
    torch.save(whole, file)
