"""Takes the images that are held out for measuring from every training file.

    python recipes/pocket/hold.py FROM data/pocket

Held out: every second COCO image with boxes of all 80 classes (`coco/boxes80.jsonl`), beside the dev splits.
Also divides captions of the world by whether people wrote them, joins class names and yes-or-no questions into one file
(short), class names alone into another (naming), those of food into a third (foods), and keeps descriptions of twenty words or
more.
"""

import json
import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from world import BY_KIND


def held_out(source: Path) -> set[str]:
    labelled = [json.loads(line)["image"] for line in (source / "coco/boxes80.jsonl").open(encoding="utf-8")]
    return {f"coco/{image}" for image in labelled if zlib.crc32(image.encode()) % 2 == 0}


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, data = Path(sys.argv[1]), Path(sys.argv[2])
    held = held_out(source)
    for path in sorted(data.glob("*.train.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line).get("image") not in held]
        if len(kept) < len(lines):
            path.write_text("".join(kept), encoding="utf-8")
            print(f"{path.name}: {len(lines) - len(kept)} rows held out")
    naming, yes_no = (
        [line for name in names for line in (data / f"{name}.train.jsonl").open(encoding="utf-8")]
        for names in (("names", "names_vqa"), ("yes_no",))
    )
    foods = [line for line in naming if json.loads(line)["question"] in BY_KIND["food"]]
    short = naming + yes_no
    for name, lines in (("short", short), ("naming", naming), ("foods", foods)):
        (data / f"{name}.train.jsonl").write_text("".join(lines), encoding="utf-8")
    long = [
        line for line in (data / "describe.train.jsonl").open(encoding="utf-8") if len(json.loads(line)["answer"].split()) >= 22
    ]
    (data / "long.train.jsonl").write_text("".join(long), encoding="utf-8")
    # The caption identifier is for what people would write; a class name is what there is in the picture.
    rows = [json.loads(line) for line in (data / "world_captions.train.jsonl").open(encoding="utf-8")]
    for name, wanted in (("described", True), ("named", False)):
        kept = [row for row in rows if (row["extra"]["kind"] in ("coco", "food", "")) == wanted]
        (data / f"{name}.train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    print(len(held), "images held out,", len(short), "short answers,", len(long), "descriptions")


if __name__ == "__main__":
    main()
