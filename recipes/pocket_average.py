"""The mean of two trainings of the same system: what one has learnt last without losing all of what the other knew.

    python recipes/pocket_average.py runs/pocket_stage6 0.5 runs/pocket_stage7 runs/pocket_half

The folders hold the same trained weights (``trained.safetensors``); 0.5 is the first one's share. The second's configuration is
taken; where its vision encoder says places louder (`coordinate_scale`), the first's projection is brought to the same scale,
which changes nothing of what it computes. Weights are written in bfloat16.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def average(first: str, share: float, second: str, target: str) -> None:
    one, other = (load_file(Path(folder) / "trained.safetensors") for folder in (first, second))
    visions = [json.loads((Path(folder) / "config.json").read_text())["vision_config"] for folder in (first, second)]
    if set(one) != set(other):
        raise SystemExit(f"{first} and {second} do not hold the same weights: {sorted(set(one) ^ set(other))[:3]} ...")
    louder = visions[1].get("coordinate_scale", 1.0) / visions[0].get("coordinate_scale", 1.0)
    if places := 4 * visions[1].get("coordinates", 0):
        weight = one["projection.weight"].view(len(one["projection.weight"]), 4, -1)  # four neighbours are joined
        weight[..., -places:] /= louder
    Path(target).mkdir(parents=True, exist_ok=True)
    mixed = {name: share * one[name] + (1 - share) * other[name] for name in other}
    mixed = {name: weight.to(torch.bfloat16).contiguous() for name, weight in mixed.items()}
    save_file(mixed, Path(target) / "trained.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "processor_config.json", "generation_config.json", "task_settings.json"):
        if (source := Path(second) / name).exists():
            shutil.copy(source, Path(target) / name)


if __name__ == "__main__":
    average(sys.argv[1], float(sys.argv[2]), *sys.argv[3:])
