"""Names what the vision encoder's own ImageNet classifier is sure of, in photographs that have no names (pseudo-labels).

    python recipes/pocket/seen.py FROM data/pocket/seen.jsonl

The encoder's package (`minigpt4.checkpoints.pocket.VISION`) has a classifier of 1,000 classes; classes of one everyday name
(`basic` of imagenet_sample1000/labels.jsonl: all breeds are "dog") are added up. Each row is an image with the names that have
a probability of `LEAST` or more, the surest first. Started again, it goes on where it stopped.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import torch

from minigpt4.checkpoints.pocket import prepared
from minigpt4.media.images import open_image
from minigpt4.model.vision.efficientnet_lite import CLASS_SHARPNESS, EfficientNetLiteModel

LEAST = 0.1
SIDE = 288
FOLDERS = ("coco",)
"""Photographs of many things without names; the other folders have class names or captions."""


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    done = {json.loads(line)["image"] for line in target.open(encoding="utf-8")} if target.exists() else set()
    paths = sorted(path for folder in FOLDERS for path in (source / folder).rglob("*.jp*g"))
    left = [path for path in paths if path.relative_to(source).as_posix() not in done]
    target.touch()
    if not left:
        return
    names = names_of_classes(source)
    model = EfficientNetLiteModel.from_pretrained(prepared() / "vision", image_size=SIDE, class_grids=[1]).eval()
    with target.open("a", encoding="utf-8") as file, torch.inference_mode():
        for path in left:
            picture = open_image(path).convert("RGB").resize((SIDE, SIDE))
            pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(SIDE, SIDE, 3).permute(2, 0, 1)
            tokens = model((pixels[None].float() - 127.5) / 127.5).last_hidden_state
            shares = tokens[0, 1, : model.config.num_classes] ** (1 / CLASS_SHARPNESS)  # what `LEAST` is a bound of
            sure: dict[str, float] = defaultdict(float)
            for number, share in enumerate((shares / shares.sum()).tolist()):
                if number in names:
                    sure[names[number]] += share
            found = sorted(((round(share, 3), name) for name, share in sure.items() if share >= LEAST), reverse=True)
            row = {"image": path.relative_to(source).as_posix(), "names": [[name, share] for share, name in found]}
            file.write(json.dumps(row) + "\n")
            file.flush()


def names_of_classes(source: Path) -> dict[int, str]:
    """Everyday names by ImageNet's numbers, where somebody has checked them."""
    rows = map(json.loads, (source / "imagenet_sample1000/labels.jsonl").open(encoding="utf-8"))
    return {row["imagenet_index"]: row["basic"] if row["basic_checked"] else row["class"].lower() for row in rows}


if __name__ == "__main__":
    main()
