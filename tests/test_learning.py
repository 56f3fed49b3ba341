"""A tiny system with random weights learns to see: from nothing to answers about pictures it has never seen."""

import json
import random

import shapes
import torch
from conftest import tiny_config, tiny_eva, tiny_llama, tiny_processor
from PIL import Image

import minigpt4
from minigpt4.model import MiniGPT4ForConditionalGeneration
from minigpt4.train.loop import train
from minigpt4.train.recipe import parse_recipe

LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def questions(folder, number, seed):
    """Pictures of one thing each, and two questions about every one: the file, and its rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, rows = random.Random(seed), []
    for i, (colour, shape, place) in enumerate(shapes.things(number, seed)):
        image = folder / f"{seed}-{i}.png"
        shapes.draw(colour, shape, place, rng).save(image)
        for question, answer in (("colour?", colour), ("where?", place)):
            rows.append({"image": str(image), "question": question, "answer": answer})
    path = folder / f"{seed}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path, rows


def accuracy(folder, rows, blank_image=False):
    """The share of right answers to each question."""
    system = minigpt4.load(folder, dtype="float32")
    grey = Image.new("RGB", (32, 32), (110, 110, 110))
    asked = [(grey if blank_image else row["image"], row["question"]) for row in rows]
    right: dict[str, list[bool]] = {}
    for row, answer in zip(rows, system.ask_many(asked, batch_size=50, max_new_tokens=16), strict=True):
        right.setdefault(row["question"], []).append(answer == row["answer"])
    return {question: sum(results) / len(results) for question, results in right.items()}


def test_a_system_learns_to_answer_about_images(tmp_path):
    # The language model's words are random and stay so; what is trained lies before them. Its head must be able to be sure of
    # a word.
    llm = tiny_llama(hidden_size=64, intermediate_size=128, initializer_range=0.2, eos_token_id=5)  # <|im_end|>
    config = tiny_config(vision_config=tiny_eva(initializer_range=0.02), text_config=llm, concat_order="square")
    torch.manual_seed(0)
    MiniGPT4ForConditionalGeneration(config).save_pretrained(tmp_path / "base")
    tiny_processor(config).save_pretrained(tmp_path / "base")
    learnt, _ = questions(tmp_path / "data", 300, seed=0)
    _, held_out = questions(tmp_path / "data", 100, seed=1)
    recipe = {
        "model": {"base": str(tmp_path / "base")},
        "trained": {
            "projection": True,
            "vision_tower": True,
            "lora": {"r": 16, "alpha": 32, "dropout": 0.0, "target_modules": LAYERS},
        },
        "data": {"datasets": [{"format": "jsonl", "annotations": str(learnt)}], "batch": 32},
        "schedule": {"lr": 4e-3, "warmup_steps": 20},
        "optimizer": {"weight_decay": 0.0},
        "validation": {"every": 1000},
        "steps": 200,
        "precision": "fp32",
        "output": str(tmp_path / "out"),
    }
    before = accuracy(tmp_path / "base", held_out)
    after = accuracy(train(parse_recipe(recipe, "test")), held_out)
    blank_image = accuracy(tmp_path / "out", held_out, blank_image=True)
    print(f"before {before}, after {after}, without seeing {blank_image}")
    for question in ("colour?", "where?"):  # there are four answers to each
        assert before[question] <= 0.25
        assert after[question] > 0.9
        assert blank_image[question] < 0.4  # without the picture it can only guess
