"""Dialogues of several tasks, made of rows about one picture."""

import json
import random
import re
from collections import Counter

import pytest

from minigpt4.curate.conversations import conversations_file, make_conversation, make_conversations
from minigpt4.data.schema import DESCRIBE, parse_row
from minigpt4.errors import UserError

DOG, CAR = [0.1, 0.2, 0.5, 0.9], [0.5, 0.1, 1, 0.4]
ROWS = [
    {"image": "a.jpg", "task": "caption", "answers": ["A dog by a car.", "The dog waits."]},
    {"image": "a.jpg", "answer": "A long description."},
    {"image": "a.jpg", "task": "vqa", "question": "What waits?", "answers": ["dog", "dog", "a dog"]},
    {"image": "a.jpg", "phrase": "the dog", "boxes": [DOG]},
    {"image": "a.jpg", "phrase": "the car", "boxes": [CAR], "task": "refer"},
    {
        "image": "a.jpg",
        "text": "The dog and a red car.",
        "phrases": [{"phrase": "The dog", "boxes": [DOG]}, {"phrase": "a red car", "boxes": [CAR]}],
    },
]


def parsed(*rows):
    return [parse_row(row, f"rows.jsonl:{i}") for i, row in enumerate(rows, 1)]


def talks(rows, count=400):
    return [make_conversation(rows, random.Random(seed)) for seed in range(count)]


def tasks_of(conversation):
    questions = [message["content"] for message in conversation["conversation"][::2]]
    return [match[1] if (match := re.match(r"\[(\w+)\]", question)) else "none" for question in questions]


def test_turns_are_two_to_four_of_different_tasks_and_make_a_valid_row():
    lengths = Counter()
    first = Counter()
    for talk in talks(parsed(*ROWS)):
        tasks = tasks_of(talk)
        lengths[len(tasks)] += 1
        first[tasks[0]] += 1
        assert len(set(tasks)) == len(tasks)
        assert len({"caption", "grounding", "none"} & set(tasks)) == 1
        parse_row(talk, "made")
    assert set(lengths) == {2, 3, 4}
    assert min(lengths.values()) > 40
    assert set(first) == {"caption", "grounding", "none"}  # what is said of the whole picture comes first


def test_no_turn_gives_away_a_later_answer():
    boxes = {"{<10><20><50><90>}": "dog", "{<50><10><100><40>}": "car"}
    seen = Counter()
    for talk in talks(parsed(*ROWS)):
        texts = [message["content"] for message in talk["conversation"]]
        for box, thing in boxes.items():
            ties = [i // 2 for i, text in enumerate(texts) if box in text]
            assert len(ties) <= 1
            seen[thing] += len(ties)
    assert min(seen.values()) > 100


def test_one_of_several_answers_is_drawn():
    answers = {talk["conversation"][1]["content"] for talk in talks(parsed(ROWS[0], ROWS[2])) if tasks_of(talk)[0] == "caption"}
    assert answers == {"A dog by a car.", "The dog waits."}
    questions = {talk["conversation"][0]["content"] for talk in talks(parsed(ROWS[1], ROWS[2]))}
    assert questions == set(DESCRIBE)


def test_the_same_seed_gives_the_same_conversations():
    rows = parsed(*ROWS, *({**row, "image": "b.jpg"} for row in ROWS))
    made = list(make_conversations(rows, seed=3, per_image=4))
    assert made == list(make_conversations(rows, seed=3, per_image=4))
    assert made != list(make_conversations(rows, seed=4, per_image=4))
    alone = list(make_conversations(rows[6:], seed=3, per_image=4))
    assert alone == [talk for talk in made if talk["image"] == "b.jpg"]
    assert len(alone) == len({json.dumps(talk) for talk in alone}) > 1


def test_images_that_serve_one_task_only_make_none():
    assert make_conversation(parsed(ROWS[0]), random.Random(0)) is None
    assert make_conversation(parsed(ROWS[4], {**ROWS[4], "phrase": "a van"}), random.Random(0)) is None
    assert make_conversation([], random.Random(0)) is None


def test_files_are_made_of_files(tmp_path):
    source, output = tmp_path / "rows.jsonl", tmp_path / "talks.jsonl"
    source.write_text("".join(json.dumps(row | {"split": "train"}) + "\n" for row in ROWS))
    assert conversations_file(source, output, seed=1, per_image=3) == 3
    made = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(talk["image"], talk["split"]) for talk in made] == [("a.jpg", "train")] * 3
    source.write_text('{"image": "a.jpg", "task": "caption", "answers": ["x"]}\n')
    with pytest.raises(UserError, match=r"rows.jsonl: no picture has rows for two tasks"):
        conversations_file(source, output)
    assert len(output.read_text().splitlines()) == 3  # what was there stays
    source.write_text("{}\n")
    with pytest.raises(UserError, match=r"rows.jsonl:1: a row has one of"):
        conversations_file(source, output)
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with pytest.raises(UserError, match=r"nowhere/talks.jsonl: cannot be written \(No such file or directory\)"):
        conversations_file(source, tmp_path / "nowhere/talks.jsonl")
