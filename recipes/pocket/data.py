"""Makes all of the pocket model's training files, from files that anybody can get.

    python recipes/pocket/data.py FROM TO

FROM may hold, as they are downloaded:

    flickr30k/{Sentences,Annotations,*.txt,images}        Flickr30k Entities with Flickr30k's photographs
    coco/annotations/captions_train2014.json              COCO captions, photographs in coco/train2014
    coco/annotations/instances_train2014.json             COCO boxes of 80 classes
    coco/v2_{OpenEnded_mscoco_train2014_questions,mscoco_train2014_annotations}.json    VQAv2
    classes/NAME/*.jpg                                    photographs in one folder a class, as ImageNet's; NAME is what it is

They are first written as the JSON Lines that the other scripts read (`annotations.py` beside this one says which; class
folders as imagenet_sample1000/labels.jsonl for `world.py`). What is already there stays. Then come rows of our schema
(TO/*.jsonl): everything of `annotations`, more of the world (`world`, `seen`, `things`), composed answers (`compose`),
and what is held out for measuring is taken away (`hold`). What the language model writes is a step of its own (`talk`).
"""

import json
import re
import runpy
import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = (
    HERE / "annotations.py",
    HERE / "world.py",
    HERE / "seen.py",
    HERE / "things.py",
    HERE / "hold.py",
    HERE / "compose.py",
)
MARK = re.compile(r"\[/EN#(\d+)((?:/[a-z]+)+) ([^\]]+)\]")


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    for name, made in (
        ("flickr8k/captions.jsonl", flickr_captions),
        ("flickr8k/entities.jsonl", flickr_entities),
        ("coco/captions.jsonl", coco_captions),
        ("coco/boxes80.jsonl", coco_boxes),
        ("coco/vqa.jsonl", coco_questions),
        ("imagenet_sample1000/labels.jsonl", classes),
    ):
        if not (source / name).exists():
            write(source / name, made(source))
    for name in ("coco/vsr.jsonl", "coco/persons.jsonl", "daquar/qa.jsonl"):  # read by annotations.py, and may be empty
        if not (source / name).exists():
            write(source / name, ())
    for script in SCRIPTS:
        given = {
            "compose": [str(target), str(target / "composed.jsonl")],
            "seen": [str(source), str(target / "seen.jsonl")],
        }.get(script.stem, [str(source), str(target)])
        sys.argv = [str(script), *given]
        runpy.run_path(str(script), run_name="__main__")


def write(path: Path, rows: Iterable[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


# Flickr30k Entities -------------------------------------------------------------------------------------------------


def _flickr(source: Path):
    """(number, split, lines) of each image of the train and the val list."""
    for name, split in (("train", "train"), ("val", "dev")):
        listed = source / "flickr30k" / f"{name}.txt"
        for number in listed.read_text().split() if listed.exists() else ():
            lines = (source / f"flickr30k/Sentences/{number}.txt").read_text(encoding="utf-8").splitlines()
            yield number, split, [line for line in lines if line.strip()]


def flickr_captions(source: Path):
    for number, split, lines in _flickr(source):
        captions = [MARK.sub(r"\3", line) for line in lines]
        yield {"image": f"../flickr30k/images/{number}.jpg", "split": split, "captions": captions}


def flickr_entities(source: Path):
    for number, split, lines in _flickr(source):
        root = ElementTree.parse(source / f"flickr30k/Annotations/{number}.xml").getroot()
        width, height = (int(root.findtext(f"size/{side}") or 0) for side in ("width", "height"))
        boxes = defaultdict(list)
        for thing in root.iter("object"):
            if (box := thing.find("bndbox")) is not None:
                x1, y1, x2, y2 = (float(box.findtext(edge) or 0) for edge in ("xmin", "ymin", "xmax", "ymax"))
                for name in thing.findall("name"):
                    boxes[name.text].append([(x1 - 1) / width, (y1 - 1) / height, x2 / width, y2 / height])
        captions = []
        for line in lines:
            phrases, text = [], ""
            done = 0
            for mark in MARK.finditer(line):
                text += line[done : mark.start()]
                types = mark[2].strip("/").split("/")
                phrases.append({"phrase": mark[3], "id": mark[1], "types": types, "start": len(text)})
                text += mark[3]
                done = mark.end()
            captions.append({"caption": text + line[done:], "phrases": phrases})
        yield {
            "image": f"../flickr30k/images/{number}.jpg",
            "split": split,
            "width": width,
            "height": height,
            "captions": captions,
            "boxes_xyxy_norm": boxes,
        }


# COCO, VQAv2, class folders -----------------------------------------------------------------------------------------


def _by_image(rows: Iterable[dict], key: str = "image_id") -> dict:
    found = defaultdict(list)
    for row in rows:
        found[row[key]].append(row)
    return found


def coco_captions(source: Path):
    given = read(source / "coco/annotations/captions_train2014.json")
    names = {image["id"]: image["file_name"] for image in given.get("images", ())}
    for number, rows in _by_image(given.get("annotations", ())).items():
        yield {"image": f"train2014/{names[number]}", "captions": [row["caption"].strip() for row in rows]}


def coco_boxes(source: Path):
    given = read(source / "coco/annotations/instances_train2014.json")
    images = {image["id"]: image for image in given.get("images", ())}
    classes_of = {kind["id"]: kind["name"] for kind in given.get("categories", ())}
    for number, rows in _by_image(row for row in given.get("annotations", ()) if not row.get("iscrowd")).items():
        image, boxes = images[number], []
        for row in rows:
            x, y, w, h = row["bbox"]
            edges = [x / image["width"], y / image["height"], (x + w) / image["width"], (y + h) / image["height"]]
            boxes.append({"category": classes_of[row["category_id"]], "bbox_xyxy_norm": edges})
        yield {"image": f"train2014/{image['file_name']}", "boxes": boxes}


def coco_questions(source: Path):
    questions = read(source / "coco/v2_OpenEnded_mscoco_train2014_questions.json").get("questions", ())
    answers = read(source / "coco/v2_mscoco_train2014_annotations.json").get("annotations", ())
    known = {row["question_id"]: row for row in answers}
    for number, rows in _by_image(questions).items():
        qa = [
            {"question": row["question"], "answers": [answer["answer"] for answer in known[row["question_id"]]["answers"]]}
            for row in rows
            if row["question_id"] in known
        ]
        yield {"image": f"train2014/COCO_train2014_{number:012}.jpg", "qa": qa}


def classes(source: Path):
    for folder in sorted((source / "classes").glob("*/")):
        name = folder.name.replace("_", " ").lower()
        for path in sorted(folder.glob("*.[jJ]*")):
            image = f"../classes/{folder.name}/{path.name}"
            yield {"image": image, "class": name, "basic": name, "basic_checked": True}


if __name__ == "__main__":
    main()
