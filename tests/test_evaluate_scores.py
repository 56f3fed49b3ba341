"""Benchmarks' scores of answers that are given, counted by hand."""

import json

import pytest

from minigpt4.evaluate.annotations import Problems
from minigpt4.evaluate.benchmarks.base import Against, Choice, new_row
from minigpt4.evaluate.benchmarks.registry import BENCHMARKS
from minigpt4.metrics.meteor import meteor

HERE, THERE = [[0.1, 0.1, 0.5, 0.5]], [[0.6, 0.6, 1.0, 1.0]]
FIRST, SECOND = "{<10><10><50><50>}", "{<60><60><100><100>}"


def report(name, rows, answers, **against):
    answered = [row | {"answer": answer} for row, answer in zip(rows, answers, strict=True)]
    lines = BENCHMARKS[name].report(answered, Against(**against)).lines
    return {line.name + (" " + line.note if line.name in seen(lines) else ""): line.scores for line in lines}


def seen(lines):
    names = [line.name for line in lines]
    return {name for name in names if names.count(name) > 1}


def value(scores, measure):
    return scores[measure].value


def test_refer():
    size = (1000, 1000)
    rows = [
        new_row("refer", "a.jpg", size, phrase="the dog", boxes=HERE, largest=HERE[0]),
        new_row("refer", "a.jpg", size, phrase="the cat", boxes=THERE, largest=HERE[0]),
        new_row("refer", "b.jpg", size, phrase="a man", boxes=HERE, largest=HERE[0]),
        new_row("refer", "b.jpg", size, phrase="a boy", boxes=HERE, largest=HERE[0]),
    ]
    blank_image = [row | {"answer": ""} for row in rows]
    answers = [FIRST, SECOND, f"it is at {FIRST}", "nowhere"]
    found = report("refer", rows, answers, blank_image=blank_image, grid=2, prior=rows[:1])
    assert value(found["model"], "accuracy@0.5") == 3 / 4
    assert value(found["model"], "accuracy, +1 pixel") == 2 / 4  # an answer must begin with its box
    assert value(found["model"], "with a box") == 3 / 4
    assert value(found["model, blank-image"], "accuracy@0.5") == 0
    assert value(found["best fixed box"], "accuracy@0.5") == 3 / 4
    assert value(found["largest box"], "accuracy@0.5") == 3 / 4
    assert value(found["whole picture"], "mean IoU") == pytest.approx(0.16)
    assert value(found["best on 2 x 2 cells"], "mean IoU") == pytest.approx(0.16 / 0.25)


def test_any_of_several_boxes_will_do_where_people_disagree():
    rows = [new_row("refer", "a.jpg", phrase="a dog", boxes=HERE + THERE)]
    found = report("refer", rows, [SECOND + FIRST])
    assert value(found["model"], "accuracy@0.5") == 1
    assert "accuracy, +1 pixel" not in found["model"]


def test_detection():
    rows = [
        new_row("detection", "a.jpg", phrase="dog", boxes=HERE + THERE),
        new_row("detection", "b.jpg", phrase="people", boxes=HERE),
    ]
    found = report("detection", rows, [f"<p>dog</p> {FIRST}<delim>{FIRST}", "none"])
    assert value(found["model"], "precision@0.5") == 1 / 2  # the same box twice finds one thing
    assert value(found["model"], "recall@0.5") == 1 / 3
    assert value(found["model"], "F1@0.5") == pytest.approx(2 / 5)
    assert value(found["dog: model"], "recall@0.5") == 1 / 2
    assert value(found["people: model"], "recall@0.5") == 0


def test_grounding():
    phrases = [{"phrase": "a brown dog", "boxes": HERE}, {"phrase": "two cats", "boxes": THERE}]
    rows = [new_row("grounding", "a.jpg", phrases=phrases)]
    text = f"<p>the dog</p> {FIRST} and <p>some cats</p> {FIRST} on <p>a table</p> {FIRST}"
    found = report("grounding", rows, [text])["model "]
    assert value(found, "phrases right") == 1 / 3
    assert value(found, "named right") == 2 / 3
    assert value(found, "located, if named") == 1 / 2
    assert value(found, "things found") == 1 / 2


def test_grounding_as_the_official_demo_reads_it():
    rows = [new_row("grounding", "a.jpg", phrases=[{"phrase": "a dog", "boxes": HERE}])]
    found = report("grounding", rows, [f"<p>a man</p> <p>a dog</p> {FIRST}"])
    assert value(found["model "], "phrases right") == 1
    assert value(found["model as the published demo reads it"], "phrases right") == 0


def test_identify():
    rows = [
        new_row("identify", "a.jpg", boxes=HERE, phrases=["a brown dog", "the dog"]),
        new_row("identify", "a.jpg", boxes=THERE, phrases=["a small white cat"]),
    ]
    found = report("identify", rows, ["a wet dog", "a small white cat"])
    assert value(found["model"], "head noun") == 1
    assert value(found["model"], "CIDEr") > 5
    assert value(found["always the same"], "head noun") == 1 / 2


def test_vsr():
    rows = [new_row("vsr", "a.jpg", statement="x", label=label) for label in (True, True, False, False)]
    found = report("vsr", rows, [" True", "true.", "yes", "FALSE"])
    assert value(found["model"], "accuracy") == 2 / 4
    assert value(found["model"], "punctuation ignored") == 3 / 4
    assert value(found["always the same"], "accuracy") == 2 / 4


def test_vqa():
    rows = [
        new_row("vqa", "a.jpg", question="What is it?", answers=["dog"] * 10),
        new_row("vqa", "a.jpg", question="What is she?", answers=["old"]),
        new_row("vqa", "b.jpg", question="Is it?", answers=["yes"] * 2 + ["no"] * 8),
    ]
    found = report("vqa", rows, ["Dog", "young", "yes"])
    assert value(found["model"], "accuracy") == pytest.approx((1 + 0 + (8 * 2 / 3 + 2 * 1 / 3) / 10) / 3)
    assert value(found["always the same"], "accuracy") == pytest.approx(1 / 3)
    assert value(found["by first words"], "accuracy") == pytest.approx((1 + 0 + 1) / 3)


def test_the_usual_answer_is_the_one_that_is_right_most_often():
    """The commonest one may be that of few questions on which everybody agrees."""

    def row(name, answers, question="What is it?"):
        return new_row(name, "a.jpg", question=question, answers=answers, kind="other", id=1)

    sure, split = ["dog"] * 10, ["a cat"] * 3 + [f"x{i}" for i in range(7)]
    for name in ("vqav2", "okvqa", "textvqa", "vizwiz", "aokvqa", "vqa"):
        rows = [row(name, answers) for answers in (sure, split, split, split)]
        found = report(name, rows, ["dog"] * 4)
        assert value(found["model"], "accuracy") == 1 / 4
        assert value(found["always the same"], "accuracy") > 2 / 4
        if name == "vqa":
            assert value(found["by first words"], "accuracy") > 2 / 4
        found = report(name, rows, ["dog"] * 4, prior=rows[:2])  # fitted to others, of which "dog" is best
        assert value(found["always the same"], "accuracy") == 1 / 4
    rows = [row("vqa", ["yes"], "Is it?"), row("vqa", ["Yes"], "Is it?"), row("vqa", ["the dog"]), row("vqa", ["dog"])]
    rows.append(row("vqa", ["the dog"]))
    found = report("vqa", rows, ["dog"] * 5)
    assert value(found["by first words"], "accuracy") == 4 / 5  # as it is spelt most often


def test_captions():
    rows = [
        new_row("captions", "a.jpg", captions=["a dog runs on the green grass", "the dog runs fast"]),
        new_row("captions", "b.jpg", captions=["two men sit on a bench", "men on a bench"]),
    ]
    found = report("captions", rows, ["a dog runs on the green grass", "a dog runs on the green grass"])
    assert value(found["model"], "distinct") == 1 / 2
    first = 1 - 0.5 / 7**3  # all seven words, in one run
    second = meteor([rows[1]["captions"]], ["a dog runs on the green grass"])[0]
    assert value(found["model"], "METEOR (exact, stem)") == pytest.approx((first + second) / 2)
    assert value(found["model"], "CIDEr") > 0
    assert set(found) == {"model", "always the same", "a person"}


def test_tables_and_json_say_the_same():
    rows = [new_row("refer", "a.jpg", phrase="x", boxes=HERE) | {"answer": FIRST}]
    result = BENCHMARKS["refer"].report(rows, Against())
    assert "model" in result.as_text()
    assert "100.0 (100.0 .. 100.0)" in result.as_text()
    assert json.loads(json.dumps(result.as_dict()))["lines"][0]["accuracy@0.5"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    rows = [row | {"image": f"{i}.jpg"} for i, row in enumerate(4 * rows)]
    blank_image = [row | {"answer": FIRST if i < 2 else ""} for i, row in enumerate(rows)]
    result = BENCHMARKS["refer"].report(rows, Against(blank_image=blank_image))
    table, lines = result.as_text().splitlines(), result.as_dict()["lines"]
    assert "model ahead by" in table[0]
    assert "ahead" not in lines[0]
    assert "+" not in table[2]
    assert lines[1]["ahead"]["accuracy@0.5"] == {"value": 0.5, "low": 0.0, "high": 1.0}
    assert "+50.0 (+0.0 .. +100.0)" in table[3]
    nothing = [new_row("grounding", "a.jpg", phrases=[{"phrase": "x", "boxes": HERE}]) | {"answer": ""}]
    lines = BENCHMARKS["grounding"].report(nothing, Against()).as_dict()["lines"]
    assert lines[0]["phrases right"] == {"value": None, "low": None, "high": None}


@pytest.mark.parametrize(("thing", "images"), [("man", ["a.png", "b.png"]), ("men", ["a.png", "b.png"]), ("puppy", ["c.png"])])
def test_things_are_found_in_any_number(tmp_path, thing, images):
    phrases = {"a.png": "two men in hats", "b.png": "a man", "c.png": "puppies", "d.png": "a woman"}
    rows = [{"image": image, "phrase": phrase, "boxes": HERE} for image, phrase in phrases.items()]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, _ = BENCHMARKS["detection"].rows(tmp_path / "rows.jsonl", Choice(things=(thing,)))
    assert [row["image"] for row in found] == images


@pytest.mark.parametrize(
    ("thing", "images"),
    [
        ("dog", [0, 2]),
        ("dogs", [0, 2]),
        ("hot dog", [1, 3]),
        ("Hot Dogs", [1, 3]),
        ("cell phone", [4]),
        ("phone", []),
        ("knife", [5]),
        ("wine glass", [6]),
        ("glass", [7]),
        ("bear", [9]),
        ("red toy car", [10]),
        ("toy car", [10]),
        ("car", [10]),
        ("taxi", [11]),
        ("people", [12]),
        ("skis", [13]),
        ("bus", [14]),
        ("woman in a hat", [15]),
    ],
)
def test_a_name_of_several_words_is_one_thing(tmp_path, thing, images):
    """`--things dog` counted hot dogs, and `--things "hot dog"` found nothing."""
    phrases = ["two dogs", "hot dog", "a brown dog on a bed", "three big hot dogs", "cell phone", "knives", "wine glasses"]
    phrases += ["a glass of water", "teddy bear", "a bear", "a red toy car", "two taxis", "a group of people", "skis", "buses"]
    phrases += ["woman in a hat"]
    rows = [{"image": f"{i}.png", "phrase": phrase, "boxes": HERE} for i, phrase in enumerate(phrases)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = BENCHMARKS["detection"].read(tmp_path / "rows.jsonl", Choice(things=(thing,)), Problems())
    assert [int(row["image"].removesuffix(".png")) for row in rows] == images
