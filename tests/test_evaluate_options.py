"""An option that would change nothing is refused, by every benchmark; and what is ahead is what is better."""

import json
from pathlib import Path

import pytest

from minigpt4.errors import UserError
from minigpt4.evaluate.benchmarks.base import OPTIONS, Against, Choice
from minigpt4.evaluate.benchmarks.registry import BENCHMARKS
from minigpt4.evaluate.run import Asked, compare, run_benchmark, score_answers
from minigpt4.evaluate.suite import Wanted, run_suite

GIVEN = {"split": "val", "single_box": True, "things": ("dog",), "prior": Path("x.jsonl"), "grid": 10, "blank_image": True}
WELL, BADLY = "A man rides a brown horse along the beach in the evening sun.", "a a a a a a a a"


def never() -> None:
    raise AssertionError("the system is not wanted yet")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_an_option_that_a_benchmark_does_not_know_is_refused_by_name(name):
    for option in set(OPTIONS) - BENCHMARKS[name].takes:
        with pytest.raises(UserError, match=f"^{name}: {option} would change nothing"):
            run_benchmark(name, Path("nowhere"), never, "", Asked(**{option: GIVEN[option]}))


def test_a_part_of_other_questions_too(tmp_path):
    questions = {"1": {"imageId": "a", "question": "What is it?", "answer": "dog"}}
    (tmp_path / "testdev_balanced_questions.json").write_text(json.dumps(questions))
    with pytest.raises(UserError, match="^gqa: prior_split would change nothing"):
        run_benchmark("gqa", tmp_path, never, "", Asked(prior=tmp_path, prior_split="train"))


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("captions", {"image": "a.jpg", "caption": "A dog.", "image_id": 1}),
        ("failures", {"image": "a.jpg", "caption": "A dog.", "image_id": 1}),
        ("vqa", {"image": "a.jpg", "question": "What is it?", "answer": "dog"}),
    ],
)
def test_published_lists_have_no_parts(tmp_path, name, row):
    (tmp_path / "list.json").write_text(json.dumps([row]))
    assert BENCHMARKS[name].rows(tmp_path / "list.json")[0]
    with pytest.raises(UserError, match="has no parts to choose from"):
        BENCHMARKS[name].rows(tmp_path / "list.json", Choice(split="test"))


def test_scoring_refuses_it_too(tmp_path):
    row = {"benchmark": "captions", "image": "a.jpg", "captions": ["A dog."], "prompt": "?", "answer": "A dog.", "by": "x"}
    (tmp_path / "answers.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match="^captions: grid would change nothing"):
        score_answers(tmp_path / "answers.jsonl", grid=10)


def test_a_suite_asks_about_a_grey_image_where_that_means_something(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "a.jpg", "asked": "poem"}) + "\n")

    def stop() -> None:
        raise UserError("this far")

    for given, expected in ((None, "this far|could be asked"), (True, "advanced: blank_image would change nothing")):
        one = Wanted(name="advanced", benchmark="advanced", data=tmp_path / "rows.jsonl", blank_image=given)
        (part,) = run_suite([one], tmp_path / "out", stop, "", blank_image=True)
        with pytest.raises(UserError, match=expected):
            raise UserError(part.failed)


def lines_of(name, rows, answers, others):
    first, second = ([row | {"answer": text} for row in rows] for text in (answers, others))
    return {line["name"]: line for line in BENCHMARKS[name].report(first, Against(blank_image=second)).as_dict()["lines"]}


def test_where_less_is_better_the_model_is_ahead_with_less():
    rows = [
        {"benchmark": "failures", "image": f"{i}.jpg", "asked": asked, "captions": ["A man rides a horse."]}
        for i in range(4)
        for asked in ("description", "poem")
    ]
    ahead = lines_of("failures", rows, WELL, BADLY)["model, blank-image, description"]["ahead"]
    assert ahead["failed"]["value"] == ahead["failed"]["low"] == 1
    assert ahead["repeats"]["value"] == 1
    rows = [{"benchmark": "chair_long", "image": f"{i}.jpg", "there": ["horse", "person"]} for i in range(4)]
    ahead = lines_of("chair_long", rows, "A man on a horse.", "A cat on a couch.")["model, blank-image"]["ahead"]
    assert (ahead["CHAIR_i"]["value"], ahead["CHAIR_s"]["value"], ahead["recall"]["value"]) == (1, 1, 1)
    assert "words" not in ahead  # more of them is neither better nor worse


def test_a_line_says_that_it_saw_a_grey_image():
    rows = [{"benchmark": "detection", "image": "a.jpg", "phrase": "dog", "boxes": [[0.1, 0.1, 0.5, 0.5]]}]
    found = lines_of("detection", rows, "<p>dog</p> {<10><10><50><50>}", "")
    assert found["model, blank-image"]["note"] == "sees a grey picture"
    assert "note" not in found["model"]


def test_two_ways_to_read_the_same_answers_are_told_apart(tmp_path):
    row = {"benchmark": "grounding", "image": "a.jpg", "phrases": [{"phrase": "dog", "boxes": [[0.1, 0.1, 0.5, 0.5]]}]}
    row |= {"prompt": "?", "by": "x", "answer": "<p>dog</p> {<10><10><50><50>}"}
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    lines = compare(tmp_path / "one.jsonl", tmp_path / "two.jsonl").lines
    assert [(line.name, line.note) for line in lines] == [
        (name, note) for note in ("", "as the published demo reads it") for name in ("A", "B", "A - B")
    ]
