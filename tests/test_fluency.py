"""Rules that find what is wrong with a long answer, on answers whose failings are plain to see."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt4.evaluate.annotations import Problems
from minigpt4.evaluate.benchmarks.base import Against, Choice
from minigpt4.evaluate.benchmarks.failures import failings
from minigpt4.evaluate.benchmarks.registry import BENCHMARKS
from minigpt4.metrics.fluency import flaws

GOOD = (
    "A brown dog runs along the beach. Behind it, two children in red coats are throwing a ball to each other. "
    "The sky is grey, and the sea looks cold."
)
POEM = "Upon the shore a brown dog runs,\nhis paws are quick, his heart is free,\nhe chases after setting suns\nbeside the sea"


@pytest.mark.parametrize(
    ("text", "verse", "found"),
    [
        (GOOD, False, []),
        (POEM, True, []),
        (POEM, False, ["unfinished"]),
        (GOOD[:-30], False, ["unfinished"]),
        (GOOD + " A brown dog runs along the beach.", False, ["repeats"]),
        (GOOD + '"', False, []),
        ("A dog.", False, ["fragment"]),
        ("", False, ["fragment"]),
        ("A man in a blue shirt is very very very tall and wears a hat.", False, ["repeats"]),
        ("There is a dog and a cat and a cat and a cat and a cat", False, ["repeats", "unfinished"]),
        ("He had had enough, and she had had enough of it too, that day.", False, []),
        (f"The sea is wide.\n{POEM}\nThe sea is wide.", True, []),  # a refrain
        (f"The sea is wide.\n{POEM}\nThe sea is wide.\nThe sea is wide.", True, ["repeats"]),
    ],
)
def test_flaws(text, verse, found):
    assert flaws(text, verse=verse) == found


@given(st.text("ab .!\n", max_size=60), st.booleans())
def test_any_text_can_be_judged_and_saying_it_three_times_repeats(text, verse):
    assert set(flaws(text, verse=verse)) <= {"repeats", "unfinished", "fragment"}
    if len(text.split()) > 3 and any(char in "ab" for char in text):
        assert "repeats" in flaws("\n".join([text] * 3), verse=verse)


def test_a_description_is_about_what_people_saw():
    row = {"asked": "description", "captions": ["A dog on a beach", "a puppy near the sea"], "answer": GOOD}
    assert failings(row) == []
    other = "The kitchen has white cupboards and a large oven, and a kettle stands on a table."
    assert failings(row | {"answer": other}) == ["off the subject"]
    assert failings(row | {"answer": other, "asked": "poem"}) == []


def test_both_questions_are_asked_of_each_image_and_counted_apart(tmp_path):
    file = tmp_path / "captions.jsonl"
    file.write_text("".join(json.dumps({"image": f"{i}.jpg", "captions": ["A dog runs."]}) + "\n" for i in range(4)))
    benchmark = BENCHMARKS["failures"]
    rows = benchmark.read(file, Choice(), Problems())
    assert [benchmark.question(row) for row in rows[:2]] == [
        "Describe the image in detail.",
        "Can you write a beautiful poem about this image?",
    ]
    descriptions = [GOOD, GOOD, "A dog runs.", "A dog runs. A dog runs. A dog runs"]
    for i, row in enumerate(rows):
        row["answer"] = descriptions[i // 2] if row["asked"] == "description" else POEM
    description, poem = benchmark.report(rows, Against()).lines
    shares = {name: score.value for name, score in description.scores.items()}
    assert shares == {"failed": 0.5, "repeats": 0.25, "unfinished": 0.25, "fragment": 0.25, "off the subject": 0.0}
    assert poem.scores["failed"].value == 0
