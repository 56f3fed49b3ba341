"""The benchmarks that the pocket model is asked: made of tiny files, every one of them can be read."""

import importlib.util
import json
from pathlib import Path

import pytest
from serving import picture

from minigpt4.evaluate.benchmarks.base import Choice
from minigpt4.evaluate.benchmarks.registry import BENCHMARKS
from minigpt4.evaluate.suite import find

FILE = Path(__file__).parents[1] / "recipes/pocket/suite.py"
COCO = "images/train2014/COCO_train2014_000000000042.jpg"


@pytest.fixture
def suite(tmp_path):
    data, made = tmp_path / "data", tmp_path / "data/pocket"
    files = {
        made / "vqa.dev.jsonl": [{"image": f"coco/{COCO}", "question": "What?", "answers": ["dog"] * 10}],
        made / "daquar.dev.jsonl": [{"image": "daquar/images/image3.jpg", "question": "what is it?", "answer": "desk"}],
        made / "vsr.dev.jsonl": [
            {"image": f"coco/{COCO}", "question": "[vqa] Is it true or false? The dog is left of it.", "answer": "true"}
        ],
        made / "captions.dev.jsonl": [{"image": "flickr8k/images/a.jpg", "answers": ["A dog runs.", "A brown dog."]}],
        data / "coco/boxes80.jsonl": [
            {"image": COCO, "boxes": [{"category": "dog", "bbox_xyxy_norm": [0, 0, 1, 1]}]},
            {"image": COCO.replace("42", "43"), "boxes": [{"category": "apple", "bbox_xyxy_norm": [0, 0, 1, 1]}]},
        ],
        data / "houses_rooms/labels.jsonl": [
            {"image": f"images/{i}.jpg", "class": f"room {i % 5}"} for i in range(200)
        ],
        data / "flickr8k/entities.jsonl": [
            {
                "image": "images/a.jpg",
                "split": split,
                "captions": [{"caption": "A dog runs .", "phrases": [{"phrase": "A dog", "id": "1", "types": ["animals"]}]}],
                "boxes_xyxy_norm": {"1": [[0.1, 0.1, 0.5, 0.5]]},
            }
            for split in ("train", "dev")
        ],
    }  # fmt: skip
    for path, rows in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in (f"coco/{COCO}", "daquar/images/image3.jpg", "flickr8k/images/a.jpg"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(data / name)
    spec = importlib.util.spec_from_file_location("pocket_suite", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(str(data), str(made), str(tmp_path / "suite"))
    return tmp_path / "suite"


def test_every_benchmark_of_the_suite_can_be_read_and_its_images_are_there(suite):
    wanted = find(suite / "suite.yaml")
    assert len(wanted) == 16
    for one in wanted:
        choice = Choice(split=one.split, single_box=one.single_box, things=one.things)
        rows, problems = BENCHMARKS[one.benchmark].rows(one.data, choice)
        assert not problems
        folder = one.images or (one.data if one.data.is_dir() else one.data.parent)
        if one.benchmark not in ("choice", "pope") and not one.benchmark.startswith("chair"):
            assert all((folder / row["image"]).exists() for row in rows), one.name


def test_questions_about_what_is_not_there_are_as_many_as_those_about_what_is(suite):
    rows, _ = BENCHMARKS["pope"].rows(suite / "coco", Choice())
    assert [(row["question"], row["label"]) for row in rows if row["set"] == "random"] == [
        ("Is there a dog in the image?", True),
        ("Is there an apple in the image?", False),
        ("Is there an apple in the image?", True),
        ("Is there a dog in the image?", False),
    ]
