"""Flickr30k Entities and COCO's objects in their official layouts, in a few files written by hand."""

import json
import pickle
import random

import pytest
from PIL import Image

from minigpt4.data.formats import build_source, open_source
from minigpt4.errors import UserError

SENTENCES = """\
[/EN#1/people Two men] in [/EN#2/clothing red shirts] watch [/EN#3/animals a dog] near [/EN#0/notvisual each other] .
[/EN#1/people The men] 's pet , [/EN#3/animals a dog] , runs to [/EN#4/animals a dog] in [/EN#5/scene a park] .
Nothing is marked here .
"""
XML = """\
<annotation><filename>36.jpg</filename><size><width>200</width><height>100</height><depth>3</depth></size>
<object><name>1</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>50</xmax><ymax>100</ymax></bndbox></object>
<object><name>1</name><name>2</name><bndbox><xmin>101</xmin><ymin>11</ymin><xmax>150</xmax><ymax>60</ymax></bndbox></object>
<object><name>3</name><bndbox><xmin>21</xmin><ymin>51</ymin><xmax>40</xmax><ymax>70</ymax></bndbox></object>
<object><name>4</name><bndbox><xmin>181</xmin><ymin>51</ymin><xmax>220</xmax><ymax>70</ymax></bndbox></object>
<object><name>5</name><scene>1</scene><nobndbox>0</nobndbox></object>
</annotation>"""
MEN = "{<0><0><25><100>}<delim>{<50><10><75><60>}"
SHIRTS = "{<50><10><75><60>}"
DOG = "{<10><50><20><70>}"
OTHER_DOG = "{<90><50><100><70>}"


@pytest.fixture
def entities(tmp_path):
    for name in ("Sentences", "Annotations", "images"):
        (tmp_path / name).mkdir()
    (tmp_path / "Sentences/36.txt").write_text(SENTENCES)
    (tmp_path / "Annotations/36.xml").write_text(XML)
    Image.new("RGB", (200, 100)).save(tmp_path / "images/36.jpg")
    (tmp_path / "train.txt").write_text("36\n")
    (tmp_path / "val.txt").write_text("37\n")
    return {"annotations": str(tmp_path), "images": str(tmp_path / "images")}


def drawn(source, index):
    found = {source.sample(index, random.Random(seed)).turns[0] for seed in range(300)}
    return {turn.question for turn in found}, {turn.answers for turn in found}


def test_captions(entities):
    source = build_source("flickr30k_entities", **entities, task="caption", split="train")
    assert [drawn(source, i)[1] for i in range(len(source))] == [
        {("Two men in red shirts watch a dog near each other.",)},
        {("The men's pet, a dog, runs to a dog in a park.",)},
        {("Nothing is marked here.",)},
    ]
    assert len(drawn(source, 0)[0]) == 17
    together = build_source("flickr30k_entities", **entities, task="caption", captions="all")
    assert len(together) == 1
    assert [len(answers) for answers in drawn(together, 0)[1]] == [3]
    assert together.images(0)[0].name == "36.jpg"


def test_grounding(entities):
    source = build_source("flickr30k_entities", **entities, task="grounding")
    grounded = [
        f"<p>Two men</p> {MEN} in <p>red shirts</p> {SHIRTS} watch <p>a dog</p> {DOG} near each other.",
        f"<p>The men</p> {MEN}'s pet, <p>a dog</p> {DOG}, runs to <p>a dog</p> {OTHER_DOG} in a park.",
    ]
    assert [drawn(source, i)[1] for i in range(len(source))] == [{(text,)} for text in grounded]
    assert len(drawn(source, 0)[0]) == 4
    assert drawn(pickle.loads(pickle.dumps(source)), 0) == drawn(source, 0)
    with pytest.raises(UserError, match="no samples"):
        build_source("flickr30k_entities", **entities, task="grounding", min_phrases=4)


def test_refer_asks_for_what_is_meant_by_one_thing_only(entities):
    source = build_source("flickr30k_entities", **entities, task="refer")
    assert len(source) == 2
    questions, answers = drawn(source, 0)
    assert {question for question in questions if question.startswith("[refer] where is")} == {
        "[refer] where is Two men ?",
        "[refer] where is The men ?",
    }
    assert answers == {(MEN,)}
    assert drawn(source, 1)[1] == {(SHIRTS,)}
    assert [len(source.sample(i, random.Random(0)).extra["boxes"]) for i in range(2)] == [2, 1]


def test_identify_tells_of_every_thing(entities):
    source = build_source("flickr30k_entities", **entities, task="identify")
    assert [drawn(source, i)[1] for i in range(4)] == [
        {("Two men",), ("The men",)},
        {("red shirts",)},
        {("a dog",)},
        {("a dog",)},
    ]
    assert f"[identify] what is it in {OTHER_DOG}" in drawn(source, 3)[0]


def test_detection_of_a_phrase_and_of_a_caption(entities):
    source = build_source("flickr30k_entities", **entities, task="detection")
    assert drawn(source, 1) == ({"[detection] red shirts"}, {(f"<p>red shirts</p> {SHIRTS}",)})
    source = build_source("flickr30k_entities", **entities, task="detection", query="caption")
    assert len(source) == 2
    found = f"<p>The men</p> {MEN} <p>a dog</p> {DOG} <p>a dog</p> {OTHER_DOG}"
    assert drawn(source, 1) == ({"[detection] The men's pet, a dog, runs to a dog in a park."}, {(found,)})


def test_entities_that_are_broken_are_told(entities, tmp_path):
    (tmp_path / "Sentences/37.txt").write_text("[/EN#1/people\n")
    (tmp_path / "Sentences/38.txt").write_text("A cat .\n")
    (tmp_path / "Annotations/37.xml").write_text(XML)
    (tmp_path / "Annotations/38.xml").write_text(XML[:-20])
    source = build_source("flickr30k_entities", **entities, task="caption", malformed="skip")
    assert len(source) == 3
    assert [p.message for p in source.problems()] == [
        f"{tmp_path}/Sentences/37.txt:1: a phrase is not marked as [/EN#NUMBER/KIND WORDS]",
        f"{tmp_path}/Annotations/38.xml: not XML (unclosed token: line 6, column 60)",
    ]
    (tmp_path / "Annotations/38.xml").write_text(XML.replace("<width>200", "<width>many"))
    (tmp_path / "train.txt").write_text("38")
    with pytest.raises(UserError, match=r"38.xml: <size/width> must be a whole number, found 'many'"):
        build_source("flickr30k_entities", **entities, task="caption", split="train")
    (tmp_path / "Sentences/37.txt").unlink()
    with pytest.raises(UserError, match=r"37.txt: no such file"):
        build_source("flickr30k_entities", **entities, task="caption", split="val")
    with pytest.raises(UserError, match=r"test.txt: No such file"):
        build_source("flickr30k_entities", **entities, task="caption", split="test")
    (tmp_path / "images/36.jpg").unlink()
    source = build_source("flickr30k_entities", **entities, task="grounding", malformed="skip")
    assert [p.kind for p in source.problems()] == ["malformed row", "missing picture"]


BOX = {"image_id": 1, "iscrowd": 0}
COCO = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "width": 100, "height": 50},
        {"id": 2, "file_name": "b.jpg", "width": 10, "height": 10},
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 44, "name": "wine glass"}, {"id": 1, "name": "person"}],
    "annotations": [
        {**BOX, "id": 1, "category_id": 18, "bbox": [10, 5, 20, 10]},
        {**BOX, "id": 2, "category_id": 44, "bbox": [0, 0, 50.4, 50]},
        {**BOX, "id": 3, "category_id": 18, "bbox": [50, 5, 60, 45]},
        {**BOX, "id": 4, "category_id": 1, "bbox": [0, 0, 5, 5]},
        {**BOX, "id": 5, "category_id": 1, "bbox": [0, 0, 50, 50], "iscrowd": 1},
    ],
}


def coco(tmp_path, **changes):
    (tmp_path / "instances.json").write_text(json.dumps(COCO | changes))
    (tmp_path / "train2017").mkdir(exist_ok=True)
    Image.new("RGB", (100, 50)).save(tmp_path / "train2017/a.jpg")
    return {"annotations": str(tmp_path / "instances.json"), "images": str(tmp_path / "train2017")}


def test_coco_instances(tmp_path):
    source = build_source("coco_instances", **coco(tmp_path))
    assert [drawn(source, i) for i in range(len(source))] == [
        ({"[detection] dog"}, {("<p>dog</p> {<50><10><100><100>}<delim>{<10><10><30><30>}",)}),
        ({"[detection] wine glass"}, {("<p>wine glass</p> {<0><0><50><100>}",)}),
    ]
    assert len(build_source("coco_instances", **coco(tmp_path), max_boxes=1)) == 1
    truncated = build_source(
        "coco_instances", **coco(tmp_path, annotations=[{**BOX, "category_id": 1, "bbox": [0, 0, 9.9, 9.9]}])
    )
    assert drawn(truncated, 0)[1] == {("<p>person</p> {<0><0><10><20>}",)}


def test_coco_instances_that_are_wrong(tmp_path):
    empty = {**BOX, "category_id": 18, "bbox": [1, 1, 0, 5]}
    source = build_source("coco_instances", **coco(tmp_path, annotations=[*COCO["annotations"], empty]))
    assert len(source) == 1  # which boxes the dogs have is not known
    assert [p.message.partition(".json")[2] for p in source.problems()] == [
        '.annotations[5]: "bbox" [1, 1, 0, 5] is empty or outside the picture'
    ]
    for bad, message in [
        ({**BOX, "category_id": 9, "bbox": [1, 1, 2, 2]}, r'annotations\[0\]: "category_id" 9 is not in "categories"'),
        ({**BOX, "category_id": 1, "bbox": [1, 1, 2]}, r'annotations\[0\]: "bbox" must be 4 numbers, found a list of 3'),
        ({"image_id": 7, "category_id": 1, "bbox": [1, 1, 2, 2]}, r"\['7'\]: no picture of this number"),
    ]:
        with pytest.raises(UserError, match=message):
            build_source("coco_instances", **coco(tmp_path, annotations=[bad]))
    with pytest.raises(UserError, match=r"expected instances_train2017.json"):
        build_source("coco_instances", **coco(tmp_path, images={}))


def test_what_is_wrong_before_a_row_is_given_up_is_told_too(tmp_path):
    """An empty box, and after it a category that there is not, in one picture."""
    empty, unknown = {**BOX, "category_id": 18, "bbox": [1, 1, 0, 5]}, {**BOX, "category_id": 9, "bbox": [1, 1, 2, 2]}
    source = open_source("coco_instances", **coco(tmp_path, annotations=[empty, unknown]))
    assert [p.message.partition(".json")[2] for p in source.problems()] == [
        '.annotations[1]: "category_id" 9 is not in "categories"',
        '.annotations[0]: "bbox" [1, 1, 0, 5] is empty or outside the picture',
    ]
