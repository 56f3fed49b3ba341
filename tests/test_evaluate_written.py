"""Answers that are written where one of several is asked for: which of them is meant."""

import pytest

from minigpt4.evaluate.benchmarks.base import Against
from minigpt4.evaluate.benchmarks.choosing import written_choice
from minigpt4.evaluate.benchmarks.registry import BENCHMARKS


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a cat", 1),
        ("A cat.", 1),
        ("B", 1),
        ("(b) a cat", 1),
        ("b. because of its ears", 1),
        ("The answer is C", 2),
        ("It is a black cat on a mat", 2),  # the longer one of two that are both in it
        ("a dog or a cat", None),
        ("I do not know", None),
        ("A", 0),
        ("z", None),
        ("", None),
    ],
)
def test_a_written_answer_means_one_of_those_given_or_none(text, place):
    assert written_choice(text, ["a dog", "a cat", "black cat"]) == place


@pytest.mark.parametrize(
    ("text", "choices", "place"),
    [
        ("The answer is a dog.", ["cat", "bird", "dog"], 2),  # an article, not the letter A
        ("The answer is A because of its ears", ["cat", "bird", "dog"], 0),
        ("The answer is (a) or so", ["cat", "bird", "dog"], 0),
        ("The answer is a.", ["cat", "bird", "dog"], 0),
        ("a man and a woman", ["man", "woman"], None),  # "man" is within "woman" as letters only
        ("The man is talking to the woman.", ["man", "woman", "child"], None),
        ("a woman", ["man", "woman"], 1),
        ("50%", ["50", "50%"], 1),
        ("It is 50 %, or 50%.", ["50", "50%"], None),
        ("It is 50%.", ["50", "50%"], 1),
        ("C++", ["C", "C++"], 1),
        ("It is -5 degrees", ["5 degrees", "-5 degrees"], 1),
        ("yes", ["Yes.", "No."], 0),
        ("a cat", ["a dog", "a cat", "a cat"], 1),
        ("It is a T-shirt", ["shirt", "t-shirt"], 1),
        ("ff", ["Ff", "ff", "FF"], 1),
        (" FF\n", ["Ff", "ff", "FF"], 2),
        ("The genotype is ff.", ["Ff", "ff", "FF"], 1),
        ("fF", ["Ff", "ff", "FF"], None),
        ("The Dog and a cat", ["dog", "cat"], None),  # capitals count only where they tell answers apart
    ],
)
def test_marks_articles_and_parts_of_words_are_no_answers_by_themselves(text, choices, place):
    assert written_choice(text, choices) == place


def test_choices_that_differ_in_capitals_are_different_answers():
    genes = {"image": "a.jpg", "question": "Which?", "choices": ["Ff", "ff", "FF"], "truth": "ff"}
    for name in ("choice", "choice_written", "scienceqa"):
        rows = [genes | {"benchmark": name, "answer": answer} for answer in ("Ff", "ff", "FF")]
        model, usual = BENCHMARKS[name].report(rows, Against()).lines
        assert model.scores["accuracy"].value == pytest.approx(1 / 3)
        assert usual.scores["accuracy"].value == 1
    rows = [genes | {"choices": ["yes", "no"], "truth": "yes", "answer": "yes"}] * 2
    rows.append(genes | {"choices": ["Yes", "No"], "truth": "Yes", "answer": "No"})
    usual = BENCHMARKS["choice"].report(rows, Against()).lines[1]
    assert usual.scores["accuracy"].value == 1  # it is no choice of the third as it is written, and means one
