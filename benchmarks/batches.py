"""Captions one by one and in batches, in both precisions of torch: how many a second, and how many differ.

python benchmarks/batches.py FOLDER [--limit 96] [--beams 1 3]
"""

import argparse
import time
from pathlib import Path

import minigpt4
from minigpt4.media.images import images_in


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=96)
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 3])
    given = parser.parse_args()
    images = [str(path) for path in images_in([given.folder])][: given.limit]
    print(f"{len(images)} pictures\n\n| precision | beams | one by one | batches of 16 | differ |\n|---|---|---|---|---|")
    for dtype in ("bfloat16", "float32"):
        model = minigpt4.load(dtype=dtype, backend="torch")  # float32 would be ONNX Runtime's where it is installed
        for beams in given.beams:
            said, speed = [], []
            for size in (1, 16):
                begun = time.perf_counter()
                said.append(model.caption(images, batch_size=size, num_beams=beams))
                speed.append(len(images) / (time.perf_counter() - begun))
            differ = sum(one != other for one, other in zip(*said, strict=True))
            print(f"| {dtype} | {beams} | {speed[0]:.2f} | {speed[1]:.2f} | {differ} |", flush=True)


if __name__ == "__main__":
    main()
