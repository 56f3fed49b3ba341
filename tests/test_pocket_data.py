"""recipes/pocket/annotations.py on a picture or two written by hand in the layouts it reads."""

import importlib.util
import json
import sys
from collections import defaultdict
from pathlib import Path

import pytest

RECIPE = Path(__file__).parent.parent / "recipes/pocket/annotations.py"


def phrase(words: str, entity: str, start: int, *kinds: str) -> dict:
    return {"phrase": words, "id": entity, "types": list(kinds), "start": start}


PLAY = {
    "image": "images/a.jpg",
    "split": "train",
    "captions": [
        {"caption": "A man throws a ball .", "phrases": [phrase("A man", "1", 0, "people"), phrase("a ball", "2", 3, "other")]},
        {
            "caption": "The guy and two dogs .",
            "phrases": [phrase("The guy", "1", 0, "people"), phrase("two dogs", "3", 3, "animals")],
        },
    ],
    "boxes_xyxy_norm": {
        "1": [[0.104, 0.201, 0.52, 1.3]],  # reaches over the edge
        "2": [[0.71, 0.32, 0.73, 0.34]],  # smaller than a tenth
        "3": [[0.0, 0.8, 0.1, 0.9], [0.5, 0.5, 0.9, 1.0]],
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, list[dict]]:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    files = {
        "flickr8k/captions": [PLAY | {"captions": [c["caption"] for c in PLAY["captions"]]}],
        "flickr8k/entities": [PLAY],
        "coco/vqa": [{"image": "b.jpg", "qa": [{"question": "What?", "answers": ["cat"] * 10}]}],
        "coco/vsr": [{"image": "b.jpg", "vsr": [{"statement": "The cat is on the mat.", "label": 1}]}],
        "coco/persons": [],
        "coco/boxes80": [{"image": "b.jpg", "boxes": [{"category": "cat", "bbox_xyxy_norm": [0.1, 0.2, 0.3, 0.4]}]}],
        "coco/captions": [{"image": "b.jpg", "captions": ["a cat sits"]}],
        "daquar/qa": [{"image": "c.png", "qa": [{"question": "what is  it ?", "answer": "night_stand"}]}],
    }
    for name, rows in files.items():
        path = source / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = importlib.util.spec_from_file_location("pocket_data", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pocket_data", str(source), str(target)])
        module.main()
    found = defaultdict(list)
    for path in target.glob("*.jsonl"):
        found[path.stem.split(".")[0]] = [json.loads(line) for line in path.read_text().splitlines()]
    return found


def test_places_are_asked_about_once(made):
    for name in ("places", "places_again"):
        refer = {row["phrase"]: row["boxes"] for row in made[name] if row["task"] == "refer"}
        assert len(refer) == 2  # the man under one of his two names
        assert refer.get("a man", refer.get("the guy")) == [[0.104, 0.201, 0.52, 1.0]]
        assert refer["a ball"] == [[0.71, 0.32, 0.73, 0.34]]


def test_all_people_and_all_dogs_largest_first(made):
    found = {row["phrase"]: row["boxes"] for row in made["places"] if row["task"] == "detection"}
    assert found == {"people": [[0.104, 0.201, 0.52, 1.0]], "dog": [[0.5, 0.5, 0.9, 1.0], [0.0, 0.8, 0.1, 0.9]]}


def test_phrases_keep_their_exact_boxes_elsewhere(made):
    assert {row["phrase"]: row["boxes"] for row in made["refer"]} == {
        "a man": [[0.104, 0.201, 0.52, 1.0]],
        "a ball": [[0.71, 0.32, 0.73, 0.34]],
        "the guy": [[0.104, 0.201, 0.52, 1.0]],
    }
    assert [row["phrase"] for row in made["several"]] == ["two dogs"]
    grounded = made["grounding"][0]
    assert grounded["text"] == "A man throws a ball."
    assert [grounded["text"][p["start"] :].startswith(p["phrase"]) for p in grounded["phrases"]] == [True, True]


def test_the_other_datasets(made):
    assert made["captions"][0]["answers"] == ["A man throws a ball.", "The guy and two dogs."]
    assert made["vsr"][0]["answer"] == "true"
    assert made["objects"][0] | {"image": ""} == {
        "image": "",
        "phrase": "cat",
        "boxes": [[0.1, 0.2, 0.3, 0.4]],
        "task": "detection",
    }
    assert (made["daquar"][0]["question"], made["daquar"][0]["answer"]) == ("what is it ?", "night stand")
