"""The mean of two trainings of the same system: what one has learnt last without losing all of what the other knew.

    python recipes/pocket_average.py runs/pocket_stage6 0.5 runs/pocket_stage7 runs/pocket_half

The folders hold the same trained weights; 0.5 is the first one's share. The second's configuration is taken; where its
connector says places louder (`position_scale`), the first's projection is brought to the same scale, which changes nothing of
what it computes. Weights are written in bfloat16.
"""

import json
import shutil
import sys
from pathlib import Path

import torch

from minigpt4.checkpoints.trained import read_trained, write_trained


def places(config: dict) -> tuple[int, float]:
    """Octaves and scale of the position channels; older files have them in the vision encoder's part."""
    vision = config["vision_config"]
    if vision.get("coordinates"):
        return vision["coordinates"], vision.get("coordinate_scale", 1.0)
    return config.get("position_octaves", 0), config.get("position_scale", 1.0)


def average(first: str, share: float, second: str, target: str) -> None:
    one, other = (read_trained(Path(folder)) for folder in (first, second))
    configs = [json.loads((Path(folder) / "config.json").read_text()) for folder in (first, second)]
    (_, before), (octaves, after) = map(places, configs)
    if set(one) != set(other):
        raise SystemExit(f"{first} and {second} do not hold the same weights: {sorted(set(one) ^ set(other))[:3]} ...")
    if octaves:
        weight = one["projection.weight"].view(len(one["projection.weight"]), 4, -1)  # four neighbours are joined
        weight[..., -4 * octaves :] /= after / before
    Path(target).mkdir(parents=True, exist_ok=True)
    mixed = {name: share * one[name] + (1 - share) * other[name] for name in other}
    mixed = {name: weight.to(torch.bfloat16).contiguous() for name, weight in mixed.items()}
    write_trained(Path(target), mixed, configs[1].get("lora"))
    for name in ("config.json", "processor_config.json", "generation_config.json", "task_settings.json"):
        if (source := Path(second) / name).exists():
            shutil.copy(source, Path(target) / name)


if __name__ == "__main__":
    average(sys.argv[1], float(sys.argv[2]), *sys.argv[3:])
