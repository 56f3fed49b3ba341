"""Our own schema: what rows become, and what is said of rows that are wrong."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from minigpt4.data.formats import build_source, open_source
from minigpt4.data.schema import DESCRIBE, parse_row
from minigpt4.data.source import Source
from minigpt4.errors import UserError
from minigpt4.prompt.tasks import TASKS

BOX = [0.1, 0.2, 0.5, 0.9]


def write(folder: Path, *rows, name: str = "rows.jsonl", images=("a.jpg", "b.jpg")) -> str:
    for image in images:
        Image.new("RGB", (8, 6), "teal").save(folder / image)
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def drawn(source, index=0, draws=200):
    """All distinct (questions, answers) of a sample."""
    samples = [source.sample(index, random.Random(seed)) for seed in range(draws)]
    return {tuple((turn.question, turn.answers) for turn in sample.turns) for sample in samples}


def test_a_caption_row_is_asked_for_in_all_wordings(tmp_path):
    source = build_source("jsonl", annotations=write(tmp_path, {"image": "a.jpg", "task": "caption", "answer": "A dog runs."}))
    assert isinstance(source, Source)
    assert len(source) == 1
    expected = {f"[caption] {wording}" for wording in TASKS["caption"].wordings}
    assert drawn(source) == {((question, ("A dog runs.",)),) for question in expected}
    sample = source.sample(0, random.Random(0))
    assert sample.images == source.images(0) == (tmp_path / "a.jpg",)
    assert (sample.task, sample.id) == ("caption", "jsonl:0")
    assert source.where(0) == f"{tmp_path}/rows.jsonl:1"


def test_several_captions_are_samples_of_their_own_or_stand_side_by_side(tmp_path):
    rows = [
        {"image": "a.jpg", "task": "caption", "answers": ["one", "two"]},
        {"image": "b.jpg", "task": "caption", "answer": "three"},
    ]
    path = write(tmp_path, *rows)
    one = build_source("jsonl", annotations=path)
    assert [one.sample(i, random.Random(0)).turns[0].answers for i in range(len(one))] == [("one",), ("two",), ("three",)]
    together = build_source("jsonl", annotations=path, captions="all")
    assert [together.sample(i, random.Random(0)).turns[0].answers for i in range(len(together))] == [("one", "two"), ("three",)]


def test_a_description_without_a_task_is_asked_for_with_the_prompts_of_the_second_stage(tmp_path):
    path = write(tmp_path, {"image": "a.jpg", "answer": "A dog."})
    assert drawn(build_source("jsonl", annotations=path)) == {((prompt, ("A dog.",)),) for prompt in DESCRIBE}
    assert drawn(build_source("jsonl", annotations=path, prompts="none")) == {(("", ("A dog.",)),)}
    assert drawn(build_source("jsonl", annotations=path, prompts=["Look!"])) == {(("Look!", ("A dog.",)),)}
    (tmp_path / "prompts.txt").write_text("<Img><ImageHere></Img> Look!\n\n<Img><ImageHere></Img> And?\n")
    from_file = build_source("jsonl", annotations=path, prompts=str(tmp_path / "prompts.txt"))
    assert drawn(from_file) == {(("Look!", ("A dog.",)),), (("And?", ("A dog.",)),)}


def test_answers_of_several_people_are_drawn_as_often_as_they_were_given(tmp_path):
    answers = ["red"] * 7 + ["dark red"] * 2 + ["maroon"]
    source = build_source("jsonl", annotations=write(tmp_path, {"image": "a.jpg", "question": "Colour?", "answers": answers}))
    count = Counter(source.sample(0, random.Random(seed)).turns[0].answers[0] for seed in range(3000))
    assert count["red"] / 3000 == pytest.approx(0.7, abs=0.04)
    assert count["maroon"] / 3000 == pytest.approx(0.1, abs=0.03)
    assert {question for ((question, _),) in drawn(source)} == {"Colour?"}


def test_a_vqa_row_is_asked_in_both_wordings_and_text_needs_no_image(tmp_path):
    rows = [
        {"image": "a.jpg", "question": "Colour?", "answer": "red", "task": "vqa"},
        {"question": "What is 2 + 2?", "answer": "4"},
    ]
    source = build_source("jsonl", annotations=write(tmp_path, *rows))
    long = "[vqa] Based on the image, respond to this question with a short answer: Colour?"
    assert drawn(source) == {(("[vqa] Colour?", ("red",)),), ((long, ("red",)),)}
    assert drawn(source, 1) == {(("What is 2 + 2?", ("4",)),)}
    assert source.images(1) == source.sample(1, random.Random(0)).images == ()


@pytest.mark.parametrize(
    ("task", "question", "answer"),
    [
        ("refer", "[refer] where is the dog ?", "{<10><20><50><90>}<delim>{<0><0><33><100>}"),
        ("identify", "[identify] this {<10><20><50><90>}<delim>{<0><0><33><100>} is", "the dog"),
        ("detection", "[detection] the dog", "<p>the dog</p> {<10><20><50><90>}<delim>{<0><0><33><100>}"),
    ],
)
def test_a_phrase_serves_three_tasks(tmp_path, task, question, answer):
    row = {"image": "a.jpg", "phrase": "the dog", "boxes": [BOX, [0, 0, 0.329, 1]]}
    path = write(tmp_path, row)
    source = build_source("jsonl", annotations=path, task=task)
    assert ((question, (answer,)),) in drawn(source)
    assert len(drawn(source)) == len(TASKS[task].wordings)
    assert source.sample(0, random.Random(0)).task == task
    assert len(source.sample(0, random.Random(0)).extra["boxes"]) == 2
    named = build_source("jsonl", annotations=write(tmp_path, row | {"task": task}, name="named.jsonl"))
    assert drawn(named) == drawn(source)
    with pytest.raises(UserError, match=r'rows.jsonl:1: no "task" \(refer, identify, detection\)'):
        build_source("jsonl", annotations=path)


def test_corners_are_rounded_or_truncated(tmp_path):
    path = write(tmp_path, {"image": "a.jpg", "phrase": "x", "boxes": [[0.018, 0.299, 0.5, 0.999]], "task": "refer"})
    assert {answer for ((_, answer),) in drawn(build_source("jsonl", annotations=path))} == {("{<2><30><50><100>}",)}
    truncated = build_source("jsonl", annotations=path, rounding="truncate")
    assert {answer for ((_, answer),) in drawn(truncated)} == {("{<1><29><50><99>}",)}


def test_a_text_with_boxes_serves_three_tasks(tmp_path):
    row = {
        "image": "a.jpg",
        "text": "A dog and a dog run.",
        "phrases": [{"phrase": "a dog", "boxes": [BOX], "start": 10}],
    }
    both = {**row, "phrases": [{"phrase": "A dog", "boxes": [BOX, [0, 0, 1, 1]]}, *row["phrases"]]}
    path = write(tmp_path, row, both)
    source = build_source("jsonl", annotations=path)
    asked = {f"[grounding] {wording}" for wording in TASKS["grounding"].wordings}
    grounded = "A dog and <p>a dog</p> {<10><20><50><90>} run."
    assert drawn(source) == {((question, (grounded,)),) for question in asked}
    grounded = "<p>A dog</p> {<10><20><50><90>}<delim>{<0><0><100><100>} and <p>a dog</p> {<10><20><50><90>} run."
    assert drawn(source, 1) == {((question, (grounded,)),) for question in asked}
    detection = build_source("jsonl", annotations=path, task="detection")
    found = "<p>A dog</p> {<10><20><50><90>}<delim>{<0><0><100><100>} <p>a dog</p> {<10><20><50><90>}"
    assert drawn(detection, 1) == {(("[detection] A dog and a dog run.", (found,)),)}
    caption = build_source("jsonl", annotations=path, task="caption")
    assert {answer for ((_, answer),) in drawn(caption)} == {("A dog and a dog run.",)}


def test_a_conversation_stays_as_it_is(tmp_path):
    said = ["What is <ImageHere> beside <ImageHere>?", "A dog.", "[refer] the dog", "{<1><2><3><4>}"]
    messages = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, said, strict=True)]
    source = build_source(
        "jsonl", annotations=write(tmp_path, {"images": ["a.jpg", "b.jpg"], "conversation": messages, "id": 7})
    )
    assert drawn(source) == {((said[0], (said[1],)), (said[2], (said[3],)))}
    sample = source.sample(0, random.Random(0))
    assert sample.images == (tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert (sample.id, sample.task) == ("jsonl:7", None)


def test_split_and_task_select_rows(tmp_path):
    rows = [
        {"image": "a.jpg", "answer": "1", "task": "caption", "split": "train"},
        {"image": "a.jpg", "answer": "2", "task": "caption", "split": "dev"},
        {"image": "a.jpg", "question": "3?", "answer": "3", "task": "vqa", "split": "dev"},
        {"image": "a.jpg", "answer": "4", "split": "dev"},
    ]
    path = write(tmp_path, *rows)

    def answers(**options):
        source = build_source("jsonl", annotations=path, **options)
        return [source.sample(i, random.Random(0)).turns[0].answers[0] for i in range(len(source))]

    assert answers() == ["1", "2", "3", "4"]
    assert answers(split="dev") == ["2", "3", "4"]
    assert answers(split="dev", task="caption") == ["2", "4"]
    assert answers(task="vqa") == ["3"]
    with pytest.raises(UserError, match=r"no samples \(annotations=.*split=test\)"):
        answers(split="test")
    with pytest.raises(UserError, match=r'rows.jsonl:5: no "split", but the option split asks for'):
        build_source("jsonl", annotations=write(tmp_path, *rows, {"question": "?", "answer": "!"}), split="dev")


WRONG = [
    ({"image": "a.jpg"}, r'a row has one of "answer\(s\)", "question", .*; this has none of them'),
    ({"image": "a.jpg", "question": "?"}, 'no "answers"'),
    ({"image": "a.jpg", "question": "?", "text": "!", "answer": "x"}, 'this has "question" and "text"'),
    ({"image": "a.jpg", "anser": "x"}, 'unknown key "anser"; did you mean "answer"?'),
    ({"image": "a.jpg", "answer": "x", "phrases": []}, '"phrases" does not go with "answers"'),
    ({"image": "a.jpg", "answer": 3}, '"answer" must be text, found the number 3'),
    ({"image": "a.jpg", "answer": "  "}, '"answer" is empty'),
    ({"image": "a.jpg", "answers": []}, '"answers" must be a list of texts, found a list of 0'),
    ({"image": "a.jpg", "answers": ["a", ""]}, r'"answers"\[1\] must be text, found an empty one'),
    ({"image": "a.jpg", "answers": "a"}, '"answers" must be a list of texts, found text'),
    ({"image": "a.jpg", "answers": ["a"], "answer": "a"}, '"answer" or "answers", not both'),
    ({"image": "a.jpg", "images": ["a.jpg"], "answer": "a"}, '"image" or "images", not both'),
    ({"image": 3, "answer": "a"}, '"image" must be a file name, found the number 3'),
    ({"answer": "a"}, 'no "image"'),
    (
        {"image": "a.jpg", "answer": "a", "task": "refer"},
        "\"task\" must be one of caption for a row of this form, found 'refer'",
    ),
    ({"image": "a.jpg", "answer": "a", "id": [1]}, '"id" must be text or a whole number'),
    ({"image": "a.jpg", "answer": "a", "extra": 1}, '"extra" must be an object, found the number 1'),
    ({"image": "a.jpg", "answer": "<ImageHere>"}, "an answer cannot have <ImageHere> in it"),
    ({"image": "a.jpg", "question": "<ImageHere><ImageHere>", "answer": "a"}, "2 <ImageHere> for 1 pictures"),
    ({"image": "a.jpg", "phrase": "x", "boxes": []}, r'"boxes" must be a list of \[x1, y1, x2, y2\], found a list of 0'),
    ({"image": "a.jpg", "phrase": "x", "boxes": [[1, 2, 3]]}, r'"boxes"\[0\]: expected \[x1, y1, x2, y2\], found a list of 3'),
    ({"image": "a.jpg", "phrase": "x", "boxes": [[0.5, 0, 0.2, 1]]}, "expected 0 <= x1 < x2 <= 1"),
    ({"image": "a.jpg", "phrase": "x", "boxes": [[10, 20, 300, 400]]}, "are these pixels"),
    ({"image": "a.jpg", "phrase": "x", "boxes": [[0, 0, True, 1]]}, r"expected \[x1, y1, x2, y2\]"),
    ({"images": ["a.jpg", "b.jpg"], "phrase": "x", "boxes": [BOX]}, "boxes are about one picture, found 2"),
    ({"image": "a.jpg", "text": "A dog.", "phrases": []}, '"phrases" must be a list'),
    (
        {"image": "a.jpg", "text": "A dog.", "phrases": [{"phrase": "cat", "boxes": [BOX]}]},
        r"phrases\[0\]: 'cat' does not stand in",
    ),
    (
        {"image": "a.jpg", "text": "A dog.", "phrases": [{"phrase": "dog", "boxes": [BOX], "start": 0}]},
        "does not stand in the text at character 0",
    ),
    (
        {"image": "a.jpg", "text": "A dog.", "phrases": [{"phrase": "dog", "box": [BOX]}]},
        'unknown key "box"; did you mean "boxes"?',
    ),
    (
        {"conversation": [{"role": "user", "content": "?"}]},
        '"conversation" must be a list of messages, from user and assistant',
    ),
    (
        {"conversation": [{"role": "user", "content": "?"}, {"role": "user", "content": "?"}]},
        r'conversation\[1\]: "role" must be "assistant" here',
    ),
    ({"conversation": [{"role": "user", "text": "?"}] * 2}, r'conversation\[0\]: expected {"role", "content"}'),
    ('{"image": "a.jpg", ', "not JSON"),
    ("[1]", "expected a JSON object, found a list of 1"),
    ('{"image": "a.jpg", "answer": "\\ud800"', "not JSON"),
]


@pytest.mark.parametrize(("row", "message"), WRONG)
def test_a_malformed_row_is_refused_with_its_line(tmp_path, row, message):
    good = {"image": "a.jpg", "answer": "A dog.", "task": "caption"}
    path = write(tmp_path, good, "", row, good)
    with pytest.raises(UserError, match=f"rows.jsonl:3: .*{message}|rows.jsonl:3: {message}") as caught:
        build_source("jsonl", annotations=path)
    assert "\n" not in str(caught.value)
    source = build_source("jsonl", annotations=path, malformed="skip")
    assert len(source) == 2
    assert [(p.kind, p.where) for p in source.problems()] == [("malformed row", f"{path}:3")]


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path):
    path = Path(write(tmp_path, {"question": "?", "answer": "!"}))
    path.write_bytes(path.read_bytes() + b'{"question": "\xff"}\n')
    with pytest.raises(UserError, match=r"rows.jsonl:2: not UTF-8 text"):
        build_source("jsonl", annotations=str(path))


def test_missing_images_are_told_and_raise_when_drawn_or_are_left_out(tmp_path, caplog):
    rows = [{"image": name, "answers": ["x", "y"], "task": "caption"} for name in ("a.jpg", "gone.jpg", "b.jpg")]
    path = write(tmp_path, *rows)
    source = build_source("jsonl", annotations=path)
    assert len(source) == 6
    message = f"{path}:2: no picture gone.jpg in {tmp_path}"
    for draw in (lambda: source.sample(2, random.Random(0)), lambda: source.images(3)):
        with pytest.raises(UserError) as caught:
            draw()
        assert str(caught.value) == message
    assert [(p.kind, p.where, p.message) for p in source.problems()] == [("missing picture", f"{path}:2", message)]
    skipping = build_source("jsonl", annotations=path, missing="skip")
    assert len(skipping) == 4
    assert [record.getMessage() for record in caplog.records] == [
        "jsonl: 2 of 6 samples are left out, their pictures are missing"
    ]
    assert [skipping.where(i) for i in range(4)] == [f"{path}:1"] * 2 + [f"{path}:3"] * 2
    assert [p.message for p in skipping.problems()] == [message]


def test_options_are_checked(tmp_path):
    path = write(tmp_path, {"question": "?", "answer": "!"})
    for options, message in [
        ({"annotations": path, "imagse": "x"}, "jsonl: unknown option 'imagse'; did you mean \"images\"?"),
        ({}, "jsonl: the option 'annotations' is needed"),
        ({"annotations": "nowhere.jsonl"}, "nowhere.jsonl: no such file; expected JSON Lines of our schema"),
        ({"annotations": "nowhere-*.jsonl"}, "nowhere-\\*.jsonl matches no file"),
        ({"annotations": path, "images": "nowhere"}, "nowhere: no such folder; expected where the pictures are"),
        ({"annotations": path, "captions": "al"}, "captions: 'al' is none of one, all; did you mean \"all\"?"),
        ({"annotations": path, "missing": "drop"}, "missing: 'drop' is none of error, skip"),
        ({"annotations": path, "task": "capton"}, 'did you mean "caption"?'),
        ({"annotations": path, "malformed": "x"}, "malformed must be error or skip"),
    ]:
        with pytest.raises(UserError, match=message.replace("?", r"\?")):
            build_source("jsonl", **options)
    with pytest.raises(UserError, match=r"unknown dataset format 'jsonll'; did you mean \"jsonl\"\?"):
        build_source("jsonll", annotations=path)


def test_files_are_found_by_pattern_and_range(tmp_path):
    for i in range(3):
        write(tmp_path, {"question": f"{i}?", "answer": f"{i}"}, name=f"part-{i:02d}.jsonl")
    for given in (
        f"{tmp_path}/part-*.jsonl",
        f"{tmp_path}/part-{{00..02}}.jsonl",
        [f"{tmp_path}/part-0{i}.jsonl" for i in range(3)],
    ):
        source = build_source("jsonl", annotations=given, name="parts")
        assert [source.sample(i, random.Random(0)).turns[0].answers for i in range(3)] == [("0",), ("1",), ("2",)]
        assert source.sample(0, random.Random(0)).id == "parts:0"


def test_a_file_that_changes_under_a_training_is_noticed(tmp_path):
    path = write(tmp_path, {"question": "?", "answer": "!"}, {"question": "?", "answer": "!"})
    source = build_source("jsonl", annotations=path)
    Path(path).write_text("{}\n" * 20)
    with pytest.raises(UserError, match="the file has changed since it was opened"):
        source.sample(1, random.Random(0))


def test_nulls_are_absent_keys():
    row = parse_row({"image": None, "question": "?", "answer": "!", "boxes": None}, "x:1")
    assert row.images == ()


def test_an_empty_dataset_can_be_opened_for_a_check_but_not_for_training(tmp_path):
    path = write(tmp_path, "nonsense")
    assert len(open_source("jsonl", annotations=path)) == 0
    with pytest.raises(UserError, match="not JSON"):
        build_source("jsonl", annotations=path)
    with pytest.raises(UserError, match="no samples"):
        build_source("jsonl", annotations=path, malformed="skip")
