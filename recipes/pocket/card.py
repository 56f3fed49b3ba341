"""The pictures and tables of the pocket model's card, out of its training and its evaluation.

    python recipes/pocket/card.py curve docs/images/pocket-learning.svg runs/first runs/places ...
    python recipes/pocket/card.py captions references.jsonl predictions.jsonl

`curve` draws the losses of the stages one after the other. `captions` prints twenty captions, drawn at random with a fixed
seed, beside what people wrote, with the CIDEr of each; the predictions are those that
`minigpt4 evaluate captions` keeps.
"""

import json
import random
import sys
from pathlib import Path

from minigpt4.metrics.caption import cider
from minigpt4.train.report import chart

STYLE = "<style>.axis{stroke:#999;stroke-width:1} .tick{font:11px sans-serif;fill:#666} text{font-family:sans-serif}</style>"


def curve(target: str, *runs: str) -> None:
    curves: dict[str, list[tuple[float, float]]] = {}
    before = 0
    for run in runs:
        rows = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
        for row in rows:
            for name, value in row.items():
                if name.startswith("valid_loss/"):
                    curves.setdefault(name.removeprefix("valid_loss/"), []).append((before + row["step"], value))
        before += max(row["step"] for row in rows)
    svg = chart(
        {
            name: found
            for name, found in curves.items()
            if name in ("captions", "refer", "places", "questions", "coco questions", "rooms")
        }
    )
    svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ').replace('role="img">', f'role="img">{STYLE}', 1)
    Path(target).write_text(svg, encoding="utf-8")


def captions(references: str, predictions: str, count: int = 20) -> None:
    written = {row["image"]: row["captions"] for row in map(json.loads, Path(references).read_text().splitlines())}
    rows = [json.loads(line) for line in Path(predictions).read_text().splitlines()]
    rows = [row for row in rows if row.get("image") in written and "answer" in row]
    scores = cider([written[row["image"]] for row in rows], [row["answer"] for row in rows])
    print("| CIDEr | the model | people |\n|---|---|---|")
    for i in random.Random(0).sample(range(len(rows)), count):
        people = " / ".join(text.removesuffix(" .").strip() for text in written[rows[i]["image"]])
        print(f"| {scores[i]:.2f} | {rows[i]['answer']} | {people} |")


if __name__ == "__main__":
    {"curve": curve, "captions": captions}[sys.argv[1]](*sys.argv[2:])
