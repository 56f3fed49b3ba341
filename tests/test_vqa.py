"""Measures of short answers, against the published tools and by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import recorded

from minigpt4.metrics.vqa import (
    exact,
    normalise,
    percent,
    percent_by,
    plain_words,
    strip_punctuation,
    vizwiz_accuracy,
    vqa_accuracy,
    yes_or_no,
)

FACTS = recorded("common/vqa_accuracy.json")


@pytest.mark.parametrize("case", FACTS["cases"], ids=lambda c: repr(c["answer"]))
def test_accuracy_of_the_official_tool(case):
    have = percent([vqa_accuracy(case["answer"], case["gts"], official=True)])
    assert have == case["accuracy_percent"]
    have = percent([vqa_accuracy(case["answer"], case["gts"], official=True, numbered=False)])
    assert have == case["accuracy_percent_if_gts_lack_answer_id"]


def test_accuracy_of_a_set():
    scores = [vqa_accuracy(case["answer"], case["gts"], official=True) for case in FACTS["cases"]]
    want = FACTS["accuracy"]
    assert percent(scores) == want["overall"]
    assert percent_by(scores, [case["question_type"] for case in FACTS["cases"]]) == want["perQuestionType"]
    assert percent_by(scores, [case["answer_type"] for case in FACTS["cases"]]) == want["perAnswerType"]


@pytest.mark.parametrize("case", FACTS["normalisation"], ids=lambda c: repr(c["in"]))
def test_normalisation_of_the_official_tool(case):
    stripped = strip_punctuation(case["in"], official=True)
    assert stripped == case["punctuation"]
    assert plain_words(stripped) == case["punctuation_then_digits_articles"]


def test_other_sets():
    sets = FACTS["other_sets"]
    truths = [[a["answer"] for a in item["answers"]] for item in sets["vizwiz"]["data"]]
    scores = [vizwiz_accuracy(a, t) for a, t in zip(sets["vizwiz"]["answers"], truths, strict=True)]
    assert scores == sets["vizwiz"]["per_item"]
    for name, score in (
        ("gqa", lambda a, item: exact(a, item["answer"])),
        ("hm", lambda a, item: yes_or_no(a, bool(item["label"]))),
        ("vsr", lambda a, item: exact(a, "true" if item["label"] else "false")),
    ):
        scores = [score(a, item) for a, item in zip(sets[name]["answers"], sets[name]["data"], strict=True)]
        assert 100 * sum(scores) / len(scores) == pytest.approx(sets[name]["reported_percent"]), name


def test_agreement_is_no_reason_not_to_normalise():
    assert vqa_accuracy("Yes.", ["yes"] * 10) == 1
    assert vqa_accuracy("yes.", ["yes"] * 10, official=True) == 0
    assert vqa_accuracy("the dog", ["dog"] * 10) == 1


def test_every_period_goes_unless_official():
    assert strip_punctuation("x" + "." * 40 + "y") == "xy"
    assert strip_punctuation("x" + "." * 40 + "y", official=True) == "x........y"
    assert normalise("Two cats, dont\tlook at the 3.5 (or 4.) ...") == "2 cats don't look at 3.5 or 4"


@given(st.integers(0, 10))
def test_by_hand(agree):
    """n of ten said it: each of them has n - 1 others who did, each of the rest n."""
    truth = ["cat"] * agree + ["dog"] * (10 - agree)
    by_hand = (agree * min(1, (agree - 1) / 3) + (10 - agree) * min(1, agree / 3)) / 10
    assert vqa_accuracy("a cat", truth) == pytest.approx(by_hand)


def test_nothing_to_compare_with():
    with pytest.raises(ValueError, match="no annotator"):
        vqa_accuracy("a", [])
    assert percent([]) == 0


def test_few_annotators_can_agree_too():
    """Two people who said the same made the right answer a third right."""
    assert [vqa_accuracy("cat", ["cat"] * count) for count in (1, 2, 3, 4)] == [1.0] * 4
    assert [vqa_accuracy("cat", ["cat"] * count, official=True) for count in (2, 3, 4)] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert vqa_accuracy("cat", ["cat", "dog"]) == 0.5
    assert vqa_accuracy("cat", ["cat", "cat", "dog"]) == pytest.approx((0.5 + 0.5 + 1) / 3)
