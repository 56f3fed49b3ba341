"""What few bits cost: captions as the pocket model gives them (three beams), by each backend in each precision, in pairs
against the first of them (float32 in torch).

    python benchmarks/precision.py CAPTIONS.jsonl [--split dev] [--limit 300] [--ways onnx-float32 onnx-8bit] [--keep FOLDER]

CAPTIONS.jsonl has rows of {"image", "captions"} (and "split"), images named as seen from there. Printed: CIDEr, its difference
from the first one's with a 95 % interval over images, captions that are the same, and the share of their tokens up to the
first other one. With --keep, captions are kept there, and a second run with the same weights goes on where the first one ended.
"""

import argparse
import json
import time
from pathlib import Path

import minigpt4
from minigpt4.io.cores import wait_quietly
from minigpt4.jobs.made_by import signature
from minigpt4.metrics.caption import cider
from minigpt4.metrics.interval import bootstrap

WAYS = ("torch-float32", "onnx-float32", "onnx-8bit", "onnx-4bit")


def captions(way: str, images: list[str], keep: Path | None) -> tuple[list[str], float]:
    """The captions, and seconds an image (of those that were not kept before)."""
    file = keep / f"{signature('pocket', {})} {Path(images[0]).parent.parent.name} {way}.json" if keep else None
    said = json.loads(file.read_text()) if file and file.exists() else []
    if len(said) >= len(images):
        return said[: len(images)], float("nan")
    backend, weights = way.split("-")
    how = {"dtype": "float32"} if weights == "float32" else {"quantize": weights}  # who names neither gets 8 bits
    model = minigpt4.load(backend=backend, **how)  # type: ignore[arg-type]
    begun, known = time.process_time(), len(said)
    while len(said) < len(images):
        said += [str(answer) for answer in model.caption(images[len(said) : len(said) + 32])]
        if file:
            file.write_text(json.dumps(said))
    return said, (time.process_time() - begun) / (len(said) - known)


def same(one: str, other: str) -> float:
    """The share of words of the longer one up to the first that differs."""
    a, b = one.split(), other.split()
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))) / max(len(a), len(b), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captions", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.captions.read_text().splitlines()]
    rows = [row for row in rows if row.get("split", given.split) == given.split][: given.limit]
    images = [str(given.captions.parent / row["image"]) for row in rows]
    references = [row["captions"] for row in rows]
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
    print(
        f"{len(rows)} images\n\n| backend | weights | CIDEr | difference (95 %) | the same | words the same | CPU s an image |"
    )
    print("|---|---|---|---|---|---|---|")
    first: tuple[list[str], list[float]] | None = None
    for way in given.ways:
        said, seconds = captions(way, images, given.keep)
        scores = cider(references, said)
        first = first or (said, scores)
        apart = bootstrap([own - other for own, other in zip(scores, first[1], strict=True)])
        alike = sum(a == b for a, b in zip(said, first[0], strict=True))
        words = sum(map(same, said, first[0])) / len(said)
        print(
            f"| {way.replace('-', ' | ')} | {sum(scores) / len(scores):.4f} | {apart.value:+.4f} ({apart.low:+.4f} to "
            f"{apart.high:+.4f}) | {alike} | {words:.1%} | {seconds:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    wait_quietly()
    main()
