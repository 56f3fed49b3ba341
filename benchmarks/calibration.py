"""Whether the probabilities of decisions mean what they say, on questions with the answers yes and no, or true and false.

    python benchmarks/calibration.py QUESTIONS.jsonl --images FOLDER [--model pocket] [--limit 300] [--bare]

Rows (docs/data.md) are taken whose answers are yes or no, true or false, and others passed over. Prints, for each file,
accuracy beside that of the answer that is more often right, Brier score beside that of its rate, expected calibration error,
and how often what was said was true.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from minigpt4.inference.assistant import Assistant, load
from minigpt4.metrics.calibration import bins, brier, calibration_error

PAIRS = {"yes": ("yes", "no"), "no": ("yes", "no"), "true": ("true", "false"), "false": ("true", "false")}


def read(file: Path, limit: int, bare: bool) -> list[tuple[str, str, tuple[str, str], bool]]:
    """(image, question, candidates, whether the first is true) of each row of use."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        answer = Counter(row["answers"]).most_common(1)[0][0] if "answers" in row else row.get("answer")
        if answer in PAIRS and "image" in row:
            question = row["question"].removeprefix("[vqa] ")
            pair = PAIRS[answer]
            found.append((row["image"], question if bare else f"[vqa] {question}", pair, answer == pair[0]))
    return found[:limit]


def measure(assistant: Assistant, rows: list, images: Path) -> None:
    true = [is_true for _, _, _, is_true in rows]
    scored = assistant.score_many([([images / image], question, pair) for image, question, pair, _ in rows])
    said = [scores[0].probability for scores in scored]
    right = sum((p >= 0.5) == is_true for p, is_true in zip(said, true, strict=True)) / len(rows)
    rate = sum(true) / len(true)
    print(f"  {len(rows)} questions; right {right:.3f} (always the same: {max(rate, 1 - rate):.3f})")
    print(f"  Brier {brier(said, true):.3f} (the rate each time: {rate * (1 - rate):.3f})")
    print(f"  expected calibration error {calibration_error(said, true):.3f}")
    for part in bins(said, true, 5):
        print(f"    said {part.said:.2f}, true {part.true:.2f} ({part.cases})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--images", type=Path, default=Path())
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--bare", action="store_true", help="ask without [vqa]")
    given = parser.parse_args()
    assistant = load(given.model)
    for file in given.files:
        print(file.name)
        measure(assistant, read(file, given.limit, given.bare), given.images)


if __name__ == "__main__":
    main()
