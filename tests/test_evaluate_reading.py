"""Annotations in the layouts they are published in, written by hand, become questions."""

import json

import pytest

from minigpt4.data.formats import build_source
from minigpt4.errors import UserError
from minigpt4.evaluate.benchmarks.base import Choice
from minigpt4.evaluate.benchmarks.registry import BENCHMARKS
from minigpt4.prompt.boxes import Box


def read(name, path, **choice):
    rows, problems = BENCHMARKS[name].rows(path, Choice(**choice))
    assert not problems
    return rows


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def refcoco(tmp_path):
    rows = [
        {
            "img_id": "COCO_train2014_000000581857_16",
            "sents": "lady in red",
            "bbox": [64, 48, 320, 240],
            "height": 480,
            "width": 640,
        },
        {"img_id": "COCO_train2014_000000581857_16", "sents": "woman", "bbox": [64, 48, 320, 240], "height": 480, "width": 640},
        {"img_id": "COCO_train2014_000000581857_17", "sents": "woman", "bbox": [0, 0, 640, 480], "height": 480, "width": 640},
    ]
    path = tmp_path / "refcoco_val.json"
    path.write_text(json.dumps(rows))
    return path


def test_refcoco(refcoco):
    rows = read("refer", refcoco)
    assert [row["phrase"] for row in rows] == ["lady in red", "woman", "woman"]  # no expression is merged with another
    assert rows[0]["image"] == "COCO_train2014_000000581857.jpg"
    assert rows[0]["boxes"] == [[0.1, 0.1, 0.6, 0.6]]
    assert (rows[0]["width"], rows[0]["height"]) == (640, 480)
    assert rows[0]["largest"] == [0, 0, 1, 1]
    assert BENCHMARKS["refer"].question(rows[0]) == "[refer] give me the location of lady in red"
    things = read("identify", refcoco)
    assert [row["phrases"] for row in things] == [["lady in red", "woman"], ["woman"]]
    assert BENCHMARKS["identify"].question(things[0]) == "[identify] what is this {<10><10><60><60>}"


@pytest.fixture
def entities(tmp_path):
    folder = tmp_path / "entities"
    (folder / "Sentences").mkdir(parents=True)
    (folder / "Annotations").mkdir()
    (folder / "val.txt").write_text("36979\n")
    (folder / "Sentences" / "36979.txt").write_text(
        "[/EN#1/people A man] with [/EN#2/bodyparts/other long hair] sees [/EN#3/animals a dog] and [/EN#4/animals a dog] .\n"
        "[/EN#1/people The man] is in [/EN#5/scene a park] with [/EN#0/notvisual each other] .\n"
    )
    (folder / "Sentences" / "5.txt").write_text("[/EN#9/people Two men] .\n")
    box = "<object>{}<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
    size = "<size><width>200</width><height>100</height><depth>3</depth></size>"
    (folder / "Annotations" / "36979.xml").write_text(
        f"<annotation><filename>36979.jpg</filename>{size}"
        + box.format("<name>1</name>", 21, 11, 100, 60)
        + box.format("<name>3</name>", 1, 1, 50, 50)
        + box.format("<name>4</name>", 101, 51, 200, 100)
        + "<object><name>5</name><scene>1</scene><nobndbox>0</nobndbox></object>"
        + "<object><name>2</name><scene>0</scene><nobndbox>1</nobndbox></object></annotation>"
    )
    (folder / "Annotations" / "5.xml").write_text(
        f"<annotation>{size}"
        + box.format("<name>9</name>", 1, 1, 50, 50)
        + box.format("<name>9</name>", 51, 1, 100, 50)
        + "</annotation>"
    )
    return folder


def test_flickr30k_entities(entities):
    rows = read("refer", entities, split="val")
    found = {row["phrase"]: row["boxes"] for row in rows}
    # pixels count from 1 and the last one belongs to the box; what has no box is not asked for
    assert found == {
        "a man": [[0.1, 0.1, 0.5, 0.6]],
        "the man": [[0.1, 0.1, 0.5, 0.6]],
        "a dog": [[0, 0, 0.25, 0.5], [0.5, 0.5, 1, 1]],
    }
    assert {row["image"] for row in rows} == {"36979.jpg"}
    assert len(read("refer", entities)) == 4
    assert [row["phrase"] for row in read("refer", entities, split="val", single_box=True)] == ["a man", "the man"]
    assert [row["phrases"] for row in read("identify", entities, split="val")] == [["a man", "the man"]]
    (image,) = read("grounding", entities, split="val")
    assert [entry["phrase"] for entry in image["phrases"]] == ["a man", "a dog", "the man"]


def test_things_by_kind_or_name(entities):
    rows = read("detection", entities, things=("people", "dog"))
    found = {(row["image"], row["phrase"]): len(row["boxes"]) for row in rows}
    assert found == {("36979.jpg", "people"): 1, ("36979.jpg", "dog"): 2, ("5.jpg", "people"): 2}
    assert BENCHMARKS["detection"].question(rows[0]).startswith("[detection] ")


def test_entities_as_json_lines(tmp_path):
    row = {
        "image": "a.jpg",
        "split": "dev",
        "width": 200,
        "height": 100,
        "captions": [{"caption": "A man .", "phrases": [{"phrase": "A man", "id": "1", "types": ["people"]}]}],
        "boxes_xyxy_norm": {"1": [[0.1, 0.1, 0.5, 0.6]]},
    }
    path = lines(tmp_path / "entities.jsonl", row, row | {"image": "b.jpg", "split": "train"})
    (found,) = read("refer", path, split="dev")
    assert (found["image"], found["phrase"], found["boxes"]) == ("a.jpg", "a man", [[0.1, 0.1, 0.5, 0.6]])
    with pytest.raises(UserError, match="no rows of split 'test'; the splits in it are: dev, train"):
        read("refer", path, split="test")


def test_our_own_rows(tmp_path):
    path = lines(
        tmp_path / "own.jsonl",
        {"image": "a.jpg", "task": "refer", "phrase": "a dog", "boxes": [[0.1, 0.1, 0.5, 0.6]], "width": 20, "height": 10},
        {"image": "a.jpg", "text": "A cat sits.", "phrases": [{"phrase": "A cat", "boxes": [[0, 0, 1, 1], [0, 0, 0.5, 0.5]]}]},
    )
    rows = read("refer", path)
    assert [(row["phrase"], len(row["boxes"])) for row in rows] == [("a dog", 1), ("A cat", 2)]
    (image,) = read("grounding", path)
    assert [entry["phrase"] for entry in image["phrases"]] == ["a dog", "A cat"]
    (thing,) = read("identify", path)
    assert thing["phrases"] == ["a dog"]


def test_coco(tmp_path):
    data = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 200, "height": 100}],
        "categories": [{"id": 7, "name": "dog"}, {"id": 8, "name": "person"}],
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [20, 10, 80, 50], "iscrowd": 0},
            {"image_id": 1, "category_id": 7, "bbox": [0, 0, 20, 10], "iscrowd": 0},
            {"image_id": 1, "category_id": 8, "bbox": [0, 0, 200, 100], "iscrowd": 1},
        ],
    }
    path = tmp_path / "instances_val2017.json"
    path.write_text(json.dumps(data))
    (row,) = read("detection", path)  # the crowd is left out
    assert row["phrase"] == "dog"
    assert [Box(*box) for box in row["boxes"]] == [Box(0.1, 0.1, 0.5, 0.6), Box(0, 0, 0.1, 0.1)]
    data["annotations"] = [{"image_id": 1, "caption": "A dog."}, {"image_id": 1, "caption": "Dogs."}]
    path = tmp_path / "captions_val2017.json"
    path.write_text(json.dumps(data))
    assert read("captions", path)[0]["captions"] == ["A dog.", "Dogs."]
    rows = {"image": "a.jpg", "boxes": [{"category": "dog", "bbox_xyxy_norm": [0, 0, 0.5, 0.5]}] * 2}
    (row,) = read("detection", lines(tmp_path / "boxes.jsonl", rows))
    assert (row["phrase"], len(row["boxes"])) == ("dog", 2)


def test_vsr(tmp_path):
    official = {"image": "000000050403.jpg", "caption": "The bear is in the person.", "label": 1, "relation": "in"}
    several = {"image": "b.jpg", "vsr": [{"statement": "The cat is on the mat.", "label": 0}]}
    rows = read("vsr", lines(tmp_path / "vsr.jsonl", official, several))
    assert [row["label"] for row in rows] == [True, False]
    question = "[vqa] Based on the image, is this statement true or false? The bear is in the person."
    assert BENCHMARKS["vsr"].question(rows[0]) == question


def test_short_answers(tmp_path):
    several = {
        "image": "a.jpg",
        "qa": [{"question": "What?", "answer": "dog", "answers": ["dog"] * 10}, {"question": "Who?", "answer": "I"}],
    }
    own = {"image": "b.jpg", "question": "Why?", "answer": "because", "task": "vqa"}
    rows = read("vqa", lines(tmp_path / "qa.jsonl", several, own))
    assert [(row["question"], len(row["answers"])) for row in rows] == [("What?", 10), ("Who?", 1), ("Why?", 1)]
    path = tmp_path / "gqa.json"
    path.write_text(json.dumps([{"image": "a.jpg", "question": "Is it?", "answer": "yes"}]))
    assert read("vqa", path)[0]["answers"] == ["yes"]


def test_captions(tmp_path):
    path = lines(
        tmp_path / "c.jsonl",
        {"image": "a.jpg", "captions": ["A.", "B."]},
        {"image": "b.jpg", "answers": ["C."], "task": "caption"},
    )
    assert [row["captions"] for row in read("captions", path)] == [["A.", "B."], ["C."]]
    assert BENCHMARKS["captions"].question({}) == "[caption] Briefly describe this image."


@pytest.mark.parametrize(
    ("name", "file", "text", "says"),
    [
        ("refer", "a.jsonl", "{broken\n", r"a\.jsonl:1: not JSON"),
        ("refer", "a.jsonl", '{"image": "a.jpg", "phrase": "x", "boxes": [[0, 0, 300, 200]]}\n', r"a\.jsonl:1: .*pixels"),
        (
            "refer",
            "a.jsonl",
            '{"image": "a.jpg", "question": "x", "answer": "y"}\n',
            r'a\.jsonl:1: expected a row with "phrase"',
        ),
        ("refer", "a.jsonl", "", "nothing to ask for in it"),
        ("refer", "a.json", '{"images": []}', r"a\.json: expected instances"),
        ("refer", "a.json", '[{"img_id": "x"}]', r"a\.json\[0\]: expected {img_id"),
        ("refer", "a.json", "[]", "nothing to ask for in it"),
        ("refer", "a.json", "{", r"a\.json:1:2: not JSON"),
        ("vsr", "a.jsonl", '{"image": "a.jpg", "caption": "x", "label": 2}\n', r"a\.jsonl:1: the label must be 0 or 1"),
        ("vsr", "a.jsonl", '{"image": "a.jpg"}\n', r"a\.jsonl:1: expected image, caption"),
        ("captions", "a.jsonl", '{"image": "a.jpg", "captions": []}\n', r'a\.jsonl:1: "captions" must be a list'),
        ("captions", "a.json", "{}", r"a\.json: expected coco_karpathy_train.json, .* or COCO's captions, found an object"),
        ("vqa", "a.json", "7", r"a\.json: expected a list"),
        ("vqa", "a.jsonl", '{"image": "a.jpg", "phrase": "x", "boxes": [[0, 0, 1, 1]]}\n', r"a\.jsonl:1: expected"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(tmp_path, name, file, text, says):
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        read(name, tmp_path / file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "file", "good", "bad"),
    [
        ("vqa", "q.json", {"image": "a.jpg", "question": "What?", "answer": "red"}, {"image": "a.jpg", "question": "What?"}),
        (
            "vqa",
            "q.json",
            {"image": "a.jpg", "question": "?", "answer": ["a", "b"]},
            {"image": "a", "question": "?", "answer": []},
        ),
        (
            "vqa",
            "q.jsonl",
            {"image": "a.jpg", "question": "?", "answers": ["a"]},
            {"image": "a", "question": "?", "answers": []},
        ),
        (
            "vqa",
            "q.jsonl",
            {"image": "a.jpg", "qa": [{"question": "?", "answer": "a"}]},
            {"image": "a.jpg", "qa": [{"question": "?", "answers": [], "answer": "a"}]},
        ),
        ("vqa", "q.jsonl", {"image": "a.jpg", "qa": [{"question": "?", "answer": "a"}]}, {"image": "a.jpg", "qa": ["?"]}),
        ("vsr", "s.jsonl", {"image": "a.jpg", "caption": "x", "label": 1}, {"image": "a.jpg", "caption": "x", "label": "yes"}),
        ("vsr", "s.jsonl", {"image": "a.jpg", "caption": "x", "label": 1}, {"caption": "x", "label": 1}),
        ("captions", "c.jsonl", {"image": "a.jpg", "captions": ["A."]}, {"image": "b.jpg", "captions": [" "]}),
        ("captions", "c.json", {"image": "a.jpg", "caption": ["A dog."]}, {"image": "b.jpg", "caption": [""]}),
        ("failures", "c.jsonl", {"image": "a.jpg", "captions": ["A."]}, {"image": "b.jpg"}),
        (
            "refer",
            "r.jsonl",
            {"image": "a", "phrase": "x", "boxes": [[0, 0, 1, 1]]},
            {"image": "a", "phrase": "x", "boxes": []},
        ),
        ("identify", "r.jsonl", {"image": "a", "phrase": "x", "boxes": [[0, 0, 1, 1]]}, {"image": "a", "phrase": "x"}),
        (
            "detection",
            "b.jsonl",
            {"image": "a", "boxes": [{"category": "dog", "bbox_xyxy_norm": [0, 0, 1, 1]}]},
            {"image": "a", "boxes": [{"category": "dog", "bbox_xyxy_norm": [0, 0.5, 1, 0.5]}]},
        ),
        (
            "refer",
            "refcoco_val.json",
            {"img_id": "a" * 30, "sents": "x", "bbox": [0, 0, 4, 4], "height": 9, "width": 9},
            {"img_id": "a" * 30, "sents": "x", "bbox": [0, 0, 4, 0], "height": 9, "width": 9},
        ),
    ],
)
def test_rows_that_cannot_be_used_are_counted_and_named(tmp_path, name, file, good, bad):
    """Before anything is asked; the others are asked. A byte-order mark is no mistake."""
    path = tmp_path / file
    rows = [good, bad, good, bad, bad]
    text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows) + '{"image": \n'
    path.write_text(text, encoding="utf-8-sig")
    found, problems = BENCHMARKS[name].rows(path)
    assert found
    assert len({json.dumps(row) for row in found}) == len(found)
    places = [f"{path}[{i}]" for i in (1, 3, 4)] if path.suffix == ".json" else [f"{path}:{i}" for i in (2, 4, 5, 6)]
    assert len(problems) == len(places)
    assert all(problem.startswith(place) for problem, place in zip(problems, places, strict=True))
    assert not any("\n" in problem for problem in problems)


def test_evaluation_and_training_have_the_same_truth(tmp_path):
    """What training leaves out as no box, or as unclear, is no truth either."""
    data = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 200, "height": 100} for i in (1, 2)],
        "categories": [{"id": 7, "name": "dog"}, {"id": 8, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [20, 10, 80, 50]},
            {"image_id": 1, "category_id": 7, "bbox": [20, 10, 0, 50]},
            {"image_id": 1, "category_id": 8, "bbox": [190, 10, 80, 50]},
            {"image_id": 2, "category_id": 8, "bbox": [300, 10, 80, 50]},
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(data))
    rows, problems = BENCHMARKS["detection"].rows(path)
    assert [(row["image"], row["phrase"], row["boxes"]) for row in rows] == [("1.jpg", "cat", [[0.95, 0.1, 1.0, 0.6]])]
    assert len(problems) == 2
    assert "empty or outside the picture" in problems[0]
    trained = build_source("coco_instances", annotations=str(path))
    assert [(row.images[0], row.phrase, [list(box) for box in row.places]) for row in trained.rows()] == [
        (row["image"], row["phrase"], row["boxes"]) for row in rows
    ]


def test_texts_are_asked_and_compared_as_they_stand(tmp_path):
    """Training may clean them; evaluation does not."""
    path = tmp_path / "vqa_val.json"
    path.write_text(json.dumps([{"image": "a.jpg", "question": "Is it (really) U.S.?", "answer": ["A cat!", "Cat"]}]))
    (row,) = read("vqa", path)
    assert (row["question"], row["answers"]) == ("Is it (really) U.S.?", ["A cat!", "Cat"])
    path = tmp_path / "val_balanced_questions.json"
    path.write_text(json.dumps({"07": {"imageId": "23", "question": "What, then?", "answer": "Red"}}))
    (row,) = read("vqa", path)
    assert (row["image"], row["question"], row["answers"]) == ("23.jpg", "What, then?", ["Red"])
    path = tmp_path / "aokvqa.json"
    path.write_text(json.dumps([{"image_id": 299207, "question": "Why?", "direct_answers": ["Ride it"], "choices": ["a"]}]))
    (row,) = read("vqa", path)
    assert row["answers"] == ["Ride it"]
    path = tmp_path / "coco_karpathy_test.json"
    path.write_text(json.dumps([{"image": "val2014/1.jpg", "caption": ["A dog, running.", "Two."]}]))
    (row,) = read("captions", path)
    assert row["captions"] == ["A dog, running.", "Two."]


def test_the_same_said_twice_is_two_questions(refcoco):
    rows = json.loads(refcoco.read_text())
    refcoco.write_text(json.dumps([*rows, rows[0], rows[0]]))
    again = [row.get("again") for row in read("refer", refcoco)]
    assert again == [None, None, None, 2, 3]


def test_a_folder_that_is_no_benchmark(tmp_path):
    with pytest.raises(UserError, match="expected the folder of Flickr30k Entities"):
        read("refer", tmp_path)


def test_an_image_has_the_name_that_is_there(tmp_path):
    """Evaluation asked about the first name alone, and found no image where training did."""
    image = "val2014/COCO_val2014_000000000042.jpg"
    boxes = {"images": [{"id": 42, "file_name": image, "width": 9, "height": 9}], "categories": [{"id": 1, "name": "dog"}]}
    boxes["annotations"] = [{"image_id": 42, "category_id": 1, "bbox": [0, 0, 5, 5]}]
    answers = {"image_id": 42, "question": "What?", "direct_answers": ["dog"] * 10}
    given = {
        "captions": [{"image": image, "caption": ["A dog."]}],
        "vqa": [{"image": image, "question": "What?", "answer": ["dog"] * 10}],
        "detection": boxes,
        "refer": boxes,
        "identify": boxes,
        "grounding": boxes,
    }
    there = {
        "2014": ("COCO_val2014_000000000042.jpg", "COCO_val2014_000000000042.jpg"),
        "2017": ("000000000042.jpg", "000000000042.jpg"),
        "coco": (image, image),
        "none": ("other.jpg", image),
    }
    for folder, (file, found) in there.items():
        (tmp_path / folder / file).parent.mkdir(parents=True)
        (tmp_path / folder / file).touch()
        for name, data in given.items():
            path = tmp_path / f"{name}.json"
            path.write_text(json.dumps(data))
            assert [row["image"] for row in read(name, path, images=tmp_path / folder)] == [found], (folder, name)
        (tmp_path / "aokvqa.json").write_text(json.dumps([answers]))
        (row,) = read("vqa", tmp_path / "aokvqa.json", images=tmp_path / folder)
        assert row["image"] == (file if folder in ("2014", "2017") else "COCO_train2014_000000000042.jpg")
    assert read("captions", tmp_path / "captions.json")[0]["image"] == image
    assert read("captions", tmp_path / "captions.json", images=tmp_path / "gone")[0]["image"] == image
