"""Makes the benchmarks that `minigpt4 evaluate all` asks the pocket model, out of data that it has not learnt from.

    python recipes/pocket/suite.py FROM data/pocket runs/suite
    minigpt4 evaluate all --data runs/suite/suite.yaml --output runs/all --blank-image

FROM has flickr8k, coco, daquar and houses_rooms (images and JSON Lines, as `recipes/pocket/data.py` reads them); data/pocket is
what that script made of them, whose ``*.dev.jsonl`` are about images that are kept apart. COCO's boxes and questions are put
in their official layouts (VQAv2, POPE, CHAIR), questions about rooms in GQA's. Images are linked, nothing is copied.
"""

import json
import random
import sys
from collections import Counter, defaultdict
from pathlib import Path

LIMITS = {
    "captions": 48, "vqav2": 60, "gqa": 48, "vsr": 40, "pope": 72, "choice": 40, "refer": 16, "detection": 12, "identify": 16,
    "grounding": 6, "chair_short": 24, "chair_long": 24, "chair_v2_long": 24, "chair_v2_grounded": 10, "chair_v2_short": 24,
    "failures": 12,
}  # fmt: skip
"""Questions of each: about ten minutes of one core in all."""


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def link(target: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_symlink():
        place.symlink_to(target.resolve())


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in value) if isinstance(value, list) else json.dumps(value)
    path.write_text(lines, encoding="utf-8")


def number_of(image: str) -> int:
    """COCO's number of an image, by its name."""
    return int(Path(image).stem.rpartition("_")[2])


def vqav2(data: Path, pocket: Path, to: Path) -> None:
    """Short answers of ten people, held out."""
    questions, annotations = [], []
    for i, row in enumerate(rows_of(pocket / "vqa.dev.jsonl")):
        number = number_of(row["image"])
        link(data / row["image"], to / "vqav2/val2014" / f"COCO_val2014_{number:012}.jpg")
        questions.append({"question_id": i, "image_id": number, "question": row["question"]})
        annotations.append({"question_id": i, "image_id": number, "answers": [{"answer": text} for text in row["answers"]]})
    write(to / "vqav2/v2_OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    write(to / "vqav2/v2_mscoco_val2014_annotations.json", {"annotations": annotations})


def rooms(data: Path, pocket: Path, to: Path) -> None:
    """Questions with one answer about indoor images (DAQUAR), in GQA's layout."""
    link(data / "daquar/images", to / "gqa/images")
    found = {}
    for i, row in enumerate(rows_of(pocket / "daquar.dev.jsonl")):
        answer = row["answer"] if "answer" in row else row["answers"][0]
        found[str(i)] = {"imageId": Path(row["image"]).stem, "question": row["question"], "answer": answer}
    write(to / "gqa/testdev_balanced_questions.json", found)


def statements(pocket: Path, to: Path) -> None:
    """Statements about where things are, held out, as VSR publishes them."""
    rows = rows_of(pocket / "vsr.dev.jsonl")
    found = [(row["image"], row["question"].partition("? ")[2], int(row["answer"] == "true")) for row in rows]
    write(to / "vsr.jsonl", [{"image": image, "caption": text, "label": label} for image, text, label in found])


def boxes(data: Path, to: Path) -> None:
    """COCO's boxes as instances (CHAIR), and questions about what is there and what is not (POPE).

    These images are not kept apart: the pocket model has learnt from some of their boxes, but no description of them.
    """
    rows = rows_of(data / "coco/boxes80.jsonl")
    there = {row["image"]: sorted({box["category"] for box in row["boxes"]}) for row in rows}
    kinds = sorted({kind for own in there.values() for kind in own})
    images = [{"id": number_of(image), "file_name": f"COCO_val2014_{number_of(image):012}.jpg"} for image in there]
    for image in there:
        link(data / "coco" / image, to / "coco/val2014" / f"COCO_val2014_{number_of(image):012}.jpg")
    annotations = [
        {"image_id": number_of(image), "category_id": kinds.index(kind), "bbox": [0, 0, 1, 1]}
        for image, own in there.items()
        for kind in own
    ]
    categories = [{"id": i, "name": kind} for i, kind in enumerate(kinds)]
    write(to / "coco/instances_val2014.json", {"images": images, "categories": categories, "annotations": annotations})
    often = Counter(kind for own in there.values() for kind in own)
    beside: dict[str, Counter[str]] = defaultdict(Counter)
    for own in there.values():
        for kind in own:
            beside[kind].update(other for other in own if other != kind)
    draw = random.Random(0)
    for name in ("random", "popular", "adversarial"):
        asked = []
        for image, own in there.items():
            absent = [kind for kind in kinds if kind not in own]
            rank = {"popular": often, "adversarial": sum((beside[kind] for kind in own), Counter())}.get(name)
            no = (
                draw.sample(absent, min(3, len(absent)))
                if rank is None
                else sorted(absent, key=lambda kind: (-rank[kind], kind))[:3]
            )
            for yes, other in zip(draw.sample(own, min(3, len(own))), no, strict=False):
                for kind, label in ((yes, "yes"), (other, "no")):
                    article = "an" if kind[0] in "aeiou" else "a"
                    asked.append((image, f"Is there {article} {kind} in the image?", label))
        write(
            to / f"coco/coco_pope_{name}.json",
            [
                {"question_id": i, "image": f"COCO_val2014_{number_of(image):012}.jpg", "text": text, "label": label}
                for i, (image, text, label) in enumerate(asked)
            ],
        )


def scenes(data: Path, to: Path) -> None:
    """Which room is it? Four choices, in the layout of one's own data."""
    draw, rows = random.Random(0), rows_of(data / "houses_rooms/labels.jsonl")
    kinds = sorted({row["class"] for row in rows})
    asked = []
    for row in draw.sample(rows, 200):
        choices = [*draw.sample([kind for kind in kinds if kind != row["class"]], 3), row["class"]]
        draw.shuffle(choices)
        asked.append({"image": row["image"], "question": "Which room is this?", "choices": choices, "answer": row["class"]})
    write(to / "choice.jsonl", asked)


def main(source: str, made: str, target: str) -> None:
    data, pocket, to = Path(source), Path(made), Path(target)
    vqav2(data, pocket, to)
    rooms(data, pocket, to)
    statements(pocket, to)
    boxes(data, to)
    scenes(data, to)
    link(data, to / "images")
    # boxes by self-consistency and long answers take seconds each: no second time before a grey picture
    flickr = {
        "blank_image": False,
        "data": str((data / "flickr8k/entities.jsonl").resolve()),
        "images": "images/flickr8k",
        "split": "dev",
    }
    entities = flickr | {"prior": flickr["data"], "prior_split": "train"}
    captions = {"data": str((pocket / "captions.dev.jsonl").resolve()), "images": "images"}
    suite: dict[str, dict] = {
        "captions": captions,
        "vqav2": {"data": "vqav2"},
        "gqa": {"data": "gqa"},
        "vsr": {"data": "vsr.jsonl", "images": "images"},
        "pope": {"data": "coco"},
        "choice": {"data": "choice.jsonl", "images": "images/houses_rooms"},
        "refer": entities | {"single_box": True, "grid": 10},
        "detection": entities | {"things": ["people", "dog"]},
        "identify": flickr,
        "grounding": entities,
        **{name: {"data": "coco", "blank_image": False} for name in LIMITS if name.startswith("chair")},
        "failures": captions | {"blank_image": False},
    }
    text = [f"{name}: {json.dumps(entry | {'limit': LIMITS[name]})}" for name, entry in suite.items()]
    (to / "suite.yaml").write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
