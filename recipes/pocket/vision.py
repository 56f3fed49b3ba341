"""Teaches the end of the pocket model's vision encoder the words of captions, and where in a picture they are.

    python recipes/pocket/vision.py DATA BASE TO

DATA holds what annotations.py wrote (captions.train.jsonl and refer.train.jsonl; .dev.jsonl to measure with); pictures
are named relative to the folder above it. BASE is a system that has been trained (runs/first). The vision encoder's
last blocks learn to say, for the whole picture, which share of its captions has a word, and for each cell of its grid, whether
what is called so is there (Fang et al. 2015, arXiv 1411.4952, learnt such detectors for captions). The words' layer is left
behind. TO receives BASE with this vision encoder, and with a projection that gives the language model, as nearly as a linear
map can, what it is used to.

Pictures are shown in parts and mirrored. Batch norms keep ImageNet's statistics.
"""

import argparse
import json
import math
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import nn

from minigpt4.checkpoints.folders import find_folder, read_task_settings
from minigpt4.checkpoints.loading import learnt_before, load_system, save_trained
from minigpt4.data.augment import box_in, some_part
from minigpt4.media.images import Part, open_image
from minigpt4.model.modeling import MiniGPT4ForConditionalGeneration
from minigpt4.model.processing import MiniGPT4Processor
from minigpt4.prompt.boxes import Box
from minigpt4.train.recipe import Trained
from minigpt4.train.setup import freeze

SMALL = (
    "a an the of in on at to and is are with it its his her their he she while as by for up down from into out over off "
    "through there this that which who"
).split()
"""Words that say nothing of a picture by themselves."""
LAYERS = 6
SIDE = 256  # Flickr8k's pictures here are no larger
Boxes = list[list[float]]


class Lesson:
    """Pictures with their words: for the whole picture shares, for boxes the words of the phrases that name them.

    Args:
        words: the vocabulary; when not given, every word of 20 pictures' captions or more.
    """

    def __init__(self, data: Path, split: str, words: list[str] | None = None, least: int = 20):
        captions = [json.loads(line) for line in (data / f"captions.{split}.jsonl").open()]
        self.names = [row["image"] for row in captions]
        shares = [words_of(row["answers"]) for row in captions]
        if words is None:
            count = Counter(word for share in shares for word in share)
            words = [word for word, n in count.most_common() if n >= least and word not in SMALL]
        self.words, number = words, {word: i for i, word in enumerate(words)}
        self.shares = torch.zeros(len(captions), len(words))
        for row, share in enumerate(shares):
            for word in number.keys() & share.keys():
                self.shares[row, number[word]] = share[word]
        boxes: dict[str, dict[int, Boxes]] = defaultdict(lambda: defaultdict(list))
        for row in map(json.loads, (data / f"refer.{split}.jsonl").open()):
            for word in number.keys() & words_of([row["phrase"]]).keys():
                boxes[row["image"]][number[word]] += row["boxes"]
        self.boxes = [boxes[name] for name in self.names]
        self.pixels = np.empty((len(self.names), SIDE, SIDE, 3), np.uint8)
        for i, name in enumerate(track(self.names, f"reading pictures ({split})")):
            self.pixels[i] = open_image(data.parent / name).resize((SIDE, SIDE))

    def __len__(self) -> int:
        return len(self.names)

    def batch(self, chosen: list[int], side: int, rng: random.Random | None = None) -> tuple[torch.Tensor, ...]:
        """Of `chosen` pictures: pixels (B, 3, side, side), shares (B, W), and for each pair of a picture and a word that has
        boxes in it the number of the picture (N,), that of the word (N,) and how much of each cell they cover (N, cells).

        With `rng`, of each picture a part that has at least half of its area is shown, and half of them mirrored.
        """
        views = [(some_part(0.5, rng), rng.random() < 0.5) if rng else ((0.0, 0.0, 1.0, 1.0), False) for _ in chosen]
        turns = torch.tensor(
            [[[x1 - x2 if flip else x2 - x1, 0, x1 + x2 - 1], [0, y2 - y1, y1 + y2 - 1]] for (x1, y1, x2, y2), flip in views]
        )
        pixels = torch.from_numpy(self.pixels[chosen]).permute(0, 3, 1, 2).float() / 127.5 - 1
        grid = F.affine_grid(turns, [len(chosen), 3, side, side], align_corners=False)
        pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
        images, words, covered = [], [], []
        for place, (number, view) in enumerate(zip(chosen, views, strict=True)):
            for word, boxes in self.boxes[number].items():
                images.append(place)
                words.append(word)
                covered.append(torch.stack([cells(seen(box, *view), side // 32) for box in boxes]).amax(0))
        covered = torch.stack(covered) if covered else torch.zeros(0, (side // 32) ** 2)
        return pixels, self.shares[chosen], torch.tensor(images).long(), torch.tensor(words).long(), covered


def words_of(texts: list[str]) -> dict[str, float]:
    """The share of `texts` that has each word."""
    count = Counter(word for text in texts for word in set(re.findall(r"[a-z]+", text.lower())))
    return {word: n / len(texts) for word, n in count.items()}


def seen(box: list[float], part: Part, mirrored: bool) -> list[float]:
    """Where a box of the whole picture (corners as shares of its sides) is in a part of it, mirrored or not."""
    _, (left, top, right, bottom) = box_in(part, Box(*box))
    return [1 - right, top, 1 - left, bottom] if mirrored else [left, top, right, bottom]


def cells(box: list[float], grid: int) -> torch.Tensor:
    """The share of each of grid x grid cells that a box covers, (grid^2,), in raster order."""
    edges = torch.arange(grid + 1) / grid
    across, down = ((edges[1:].clamp(max=box[i + 2]) - edges[:-1].clamp(min=box[i])).clamp(min=0) * grid for i in (0, 1))
    return (down[:, None] * across).flatten()


class Words(nn.Module):
    """A picture's cells (B, T, C) -> how likely each word is, as logits: of each cell (B, T, W), of all (B, W)."""

    def __init__(self, channels: int, shares: torch.Tensor):
        super().__init__()
        self.cell, self.whole = nn.Linear(channels, shares.shape[1]), nn.Linear(channels, shares.shape[1])
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        self.whole.bias.data = torch.logit(shares.mean(0).clamp(1e-4, 1 - 1e-4))  # what one says without looking

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        each = self.cell(tokens)
        return each, each.logsumexp(1) - math.log(tokens.shape[1]) + self.whole(tokens.mean(1))


def look(model: MiniGPT4ForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """The vision encoder's channels of every cell."""
    with torch.autocast("cpu", torch.bfloat16):
        return model.get_vision_tokens(pixels.to(memory_format=torch.channels_last)).float()


def losses(head: Words, tokens: torch.Tensor, batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Of whole pictures (a tenth of the sum over words) and of cells (mean over the words that have boxes)."""
    _, shares, images, words, covered = batch
    each, whole = head(tokens)
    of_images = F.binary_cross_entropy_with_logits(whole, shares) * shares.shape[1] / 10
    if not len(images):
        return of_images, of_images * 0
    return of_images, F.binary_cross_entropy_with_logits(each[images, :, words], covered)


def tune(
    model: MiniGPT4ForConditionalGeneration, lesson: Lesson, steps: int, batch: int = 32, lr: float = 3e-4, seed: int = 0
) -> Words:
    """Train the vision encoder's last blocks together with a layer for the words, which is returned."""
    side, rng = model.config.vision_config.image_size, random.Random(seed)
    freeze(model, Trained(projection=False, vision_tower=True, vision_layers=LAYERS))
    model.vision_tower.to(memory_format=torch.channels_last)
    learnt = [p for p in model.vision_tower.parameters() if p.requires_grad]
    head = Words(model.config.vision_config.hidden_size, lesson.shares)
    rates = [(learnt, lr, 0.01), (list(head.parameters()), 2e-3, 0.02)]
    optimizer = torch.optim.AdamW([{"params": p, "lr": 0.0, "weight_decay": decay} for p, _, decay in rates], fused=True)
    order: list[int] = []
    for step in track(range(steps), "the vision encoder learns words"):
        if len(order) < batch:
            order = rng.sample(range(len(lesson)), len(lesson))
        chosen, order = order[:batch], order[batch:]
        shown = lesson.batch(chosen, side, rng)
        factor = min(1, (step + 1) / min(100, steps / 8)) * (1 + math.cos(math.pi * step / steps)) / 2
        for group, (_, rate, _) in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        of_images, of_cells = losses(head, look(model, shown[0]), shown)
        optimizer.zero_grad()
        (of_images + 2 * of_cells).backward()
        nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
    return head


@torch.no_grad()
def measure(model: MiniGPT4ForConditionalGeneration, head: Words, lesson: Lesson) -> dict[str, float]:
    """Losses on pictures as they are, and the mean over words of the average precision with which pictures are found."""
    side, found, total, parts = model.config.vision_config.image_size, [], [0.0, 0.0], 0
    for start in range(0, len(lesson), 50):
        shown = lesson.batch(list(range(start, min(start + 50, len(lesson)))), side)
        tokens = look(model, shown[0])
        found.append(head(tokens)[1])
        total = [t + loss.item() for t, loss in zip(total, losses(head, tokens, shown), strict=True)]
        parts += 1
    precision = average_precision(torch.cat(found), lesson.shares > 0)
    return {"pictures": total[0] / parts, "cells": total[1] / parts, "precision": precision}


def average_precision(scores: torch.Tensor, true: torch.Tensor) -> float:
    """Mean over the columns in which 5 rows or more are true: (rows, W), (rows, W)."""
    columns = []
    for score, right in zip(scores.T, true.T, strict=True):
        if right.sum() >= 5:
            hits = right[score.argsort(descending=True)].float()
            columns.append(((hits.cumsum(0) / torch.arange(1, len(hits) + 1)) * hits).sum() / hits.sum())
    return torch.stack(columns).mean().item() if columns else math.nan


@torch.no_grad()
def refit(
    before: MiniGPT4ForConditionalGeneration,
    after: MiniGPT4ForConditionalGeneration,
    images: list[list[str]],
    processor: MiniGPT4Processor,
) -> float:
    """Give `after` the projection that makes of what its vision encoder sees what `before` makes of it, by least squares;
    returns the share of the variance that it does not reach. Where pictures say nothing, the old projection stays (a ridge)."""
    old = before.projection
    size = old.in_features
    square, cross, rest, variance, rows = torch.zeros(size, size), torch.zeros(size, old.out_features), 0.0, 0.0, 0
    for each in track(images, "the projection follows"):
        pixels = processor.image_processor(each)["pixel_values"].to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            was, now = (m.get_connector_features(m.get_vision_tokens(pixels)).float().flatten(0, 1) for m in (before, after))
        wanted = F.linear(was - now, old.weight.float())  # what the old projection of the new vision encoder lacks
        square.addmm_(now.T, now)
        cross.addmm_(now.T, wanted)
        rest, rows = rest + wanted.square().sum().item(), rows + len(now)
        variance += F.linear(was, old.weight.float()).var(0).sum().item() * len(now)
    square.diagonal().add_(1e-3 * square.diagonal().mean())
    change = torch.cholesky_solve(cross, torch.linalg.cholesky(square))
    after.projection.weight.data = old.weight.float() + change.T
    after.projection.bias.data = old.bias.float().clone()
    return (rest - (change * cross).sum().item()) / variance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("base")
    parser.add_argument("to", type=Path)
    parser.add_argument("--steps", type=int, default=760, help="of 32 pictures; 760 are four passes over Flickr8k")
    parser.add_argument("--least", type=int, default=20, help="pictures whose captions a word must be in to be learnt")
    args = parser.parse_args()
    torch.manual_seed(0)
    lesson = Lesson(args.data, "train", least=args.least)
    dev = Lesson(args.data, "dev", lesson.words)
    model, processor = load_system(args.base, dtype=torch.float32, merge=False)
    head = tune(model, lesson, args.steps)
    print(json.dumps({"words": len(lesson.words)} | measure(model, head, dev)))
    before, _ = load_system(args.base, dtype=torch.float32)
    before.vision_tower.to(memory_format=torch.channels_last)
    shown = [str(args.data.parent / name) for name in random.Random(1).sample(lesson.names, min(3000, len(lesson)))]
    left = refit(before, model, [shown[i : i + 32] for i in range(0, len(shown), 32)], processor)
    print(json.dumps({"not reached by the projection": left}))
    base = find_folder(args.base)
    save_trained(model, processor, args.to, before=learnt_before(base), task_settings=read_task_settings(base))


if __name__ == "__main__":
    main()
