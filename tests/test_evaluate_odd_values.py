"""Annotations with values that are not what they should be: each row is named in one line, whatever it has."""

import copy
import json

import pytest
from test_evaluate_official import SAMPLES

from minigpt4.data.formats import build_source
from minigpt4.errors import UserError
from minigpt4.evaluate.benchmarks.base import Against
from minigpt4.evaluate.benchmarks.registry import BENCHMARKS
from minigpt4.prompt.boxes import Box

BOX = [0.1, 0.1, 0.5, 0.5]
INSTANCES = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 10, "height": 10}],
    "categories": [{"id": 1, "name": "dog"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": 0}],
}
GROUNDED = [
    {"image": "a.jpg", "text": "A dog runs.", "phrases": [{"phrase": "A dog", "boxes": [BOX]}], "width": 5, "height": 5},
    {"image": "b.jpg", "boxes": [{"category": "dog", "bbox_xyxy_norm": BOX}]},
    {
        "image": "c.jpg",
        "captions": [{"phrases": [{"phrase": "a dog", "id": "1", "types": ["x"]}]}],
        "boxes_xyxy_norm": {"1": [BOX]},
    },
]
REFCOCO = [{"img_id": "COCO_train2014_000000581857_16", "sents": "a man", "bbox": [1, 1, 5, 5], "width": 10, "height": 10}]
OWN = {
    "captions": [{"image": "a.jpg", "captions": ["a"]}],
    "failures": [{"image": "a.jpg", "captions": ["a"]}],
    "vqa": [
        {"image": "a.jpg", "question": "q", "answers": ["a"]},
        {"image": "b.jpg", "qa": [{"question": "q", "answer": "a"}]},
    ],
    "vsr": [{"image": "a.jpg", "caption": "q", "label": 0}, {"image": "b.jpg", "vsr": [{"statement": "a", "label": 1}]}],
    "choice": [{"image": "a.jpg", "question": "q", "choices": ["a", "b"], "answer": "a"}],
    "advanced": [{"image": "a.jpg", "asked": "meme"}],
    "refer": REFCOCO,
    "identify": GROUNDED,
    "grounding": GROUNDED,
    "detection": INSTANCES,
}
ODD = (None, 0, 7, "", "/away/x.jpg", "x" * 300, [], ["x", 3], {"a": 1})


def written(data, file):
    return (
        json.dumps(data) if file.endswith(".json") and "pope" not in file else "".join(json.dumps(row) + "\n" for row in data)
    )


def data_of(name):
    """File -> what it holds, and what is read: that file, or the folder."""
    if name in OWN:
        file = "rows.json" if name in ("refer", "detection") else "rows.jsonl"
        return {file: OWN[name]}, file
    read = {
        file: json.loads(text)
        if file.endswith(".json") and "pope" not in file
        else [json.loads(line) for line in text.splitlines()]
        for file, text in SAMPLES[name].items()
    }
    return read, "."


def places(data, before=()):
    if before:
        yield before
    for key in data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
        yield from places(data[key], (*before, key))


def changed(data, place, value):
    data = copy.deepcopy(data)
    inner = data
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return data


@pytest.mark.parametrize("name", sorted({*OWN, *SAMPLES} - {"mmbench", "okvqa", "aokvqa_mc", "chair_short", "chair_v2_long"}))
def test_any_value_in_any_place_is_a_line_and_no_traceback(name, tmp_path):
    files, read = data_of(name)
    benchmark = BENCHMARKS[name]
    for file, data in files.items():
        (tmp_path / file).write_text(written(data, file))
    assert benchmark.rows(tmp_path / read)[0]
    for file, data in files.items():
        for place in places(data):
            for value in ODD:
                (tmp_path / file).write_text(written(changed(data, place, value), file))
                try:
                    rows, problems = benchmark.rows(tmp_path / read)
                except UserError as error:
                    told = [str(error)]
                else:
                    told = list(problems)
                    [benchmark.question(row) for row in rows]
                assert not any("\n" in line for line in told), (place, value)
        (tmp_path / file).write_text(written(data, file))
    rows = [row | {"answer": "a"} for row in benchmark.rows(tmp_path / read)[0]]
    benchmark.report(rows, Against())


def test_an_image_of_a_list_may_be_named_from_the_root_of_the_disk(tmp_path):
    (tmp_path / "val.json").write_text(json.dumps([{"image": "/away/x.jpg", "question": "q", "answers": ["a"]}]))
    (row,), problems = BENCHMARKS["vizwiz"].rows(tmp_path)
    assert (row["image"], problems) == ("/away/x.jpg", [])


def test_an_image_without_width_is_named_in_training_too(tmp_path):
    second = {"id": 2, "file_name": "b.jpg", "width": 0, "height": 9}
    box = INSTANCES["annotations"][0] | {"image_id": 2, "id": 2}
    data = INSTANCES | {"images": [*INSTANCES["images"], second], "annotations": [*INSTANCES["annotations"], box]}
    (tmp_path / "instances.json").write_text(json.dumps(data))
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    source = build_source(
        "coco_instances", annotations=str(tmp_path / "instances.json"), images=str(tmp_path), malformed="skip"
    )
    assert len(source) == 1
    assert ['"width" and "height" must be above 0, found 0 and 9' in problem.message for problem in source.malformed] == [True]
    with pytest.raises(UserError, match="a picture of 0 x 9 pixels has no place for a box"):
        Box.from_xywh(1, 1, 5, 5, 0, 9)
