"""Measures and baselines, against recorded facts, brute force and cases worked out by hand."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_cocoeval import captions, digest
from recorded import recorded

from minigpt4.evaluate.annotations import Place
from minigpt4.evaluate.baselines import best_box, centre_box, largest_boxes, mean_box, most_common, on_grid
from minigpt4.metrics.boxes import (
    iou,
    matches,
    official_answer,
    official_correct,
    official_iou,
    union_box,
)
from minigpt4.metrics.caption import bleu, cider, plain_tokens, ptb_tokens, rouge_l
from minigpt4.metrics.interval import Score, bootstrap
from minigpt4.metrics.objects import named, objects_in
from minigpt4.metrics.phrase import head_noun, head_place
from minigpt4.prompt.boxes import Box


@st.composite
def boxes(draw) -> Box:
    x1, x2 = sorted(draw(st.tuples(st.integers(0, 60), st.integers(0, 60)).filter(lambda p: p[0] != p[1])))
    y1, y2 = sorted(draw(st.tuples(st.integers(0, 60), st.integers(0, 60)).filter(lambda p: p[0] != p[1])))
    return Box(x1 / 60, y1 / 60, x2 / 60, y2 / 60)


def test_line_ends_around_an_answer_are_no_part_of_it():
    """The published code strips what the model wrote before it looks for the box."""
    for answer in ("\n{<10><20><50><60>}", "{<10><20><50><60>}\n", "\t {<10><20> <50><60>}\r\n"):
        assert official_answer(answer, 100, 100) == ("{<10><20><50><60>}", [10, 20, 50, 60])
        assert official_correct(answer, [10, 20, 50, 60], 100, 100)
    assert official_answer("at\n{<10><20><50><60>}", 100, 100) == (None, [])


# boxes -----------------------------------------------------------------------------------------------------------------


def test_the_official_evaluation_is_reproduced_to_the_last_digit():
    facts = recorded("common/refer_eval.json")
    right = 0
    for case in facts["cases"]:
        x, y, w, h = case["gt_xywh"]
        truth = [x, y, x + w, y + h]
        accepted, pixels = official_answer(case["answer"], case["width"], case["height"])
        assert accepted == case["accepted"], case
        if accepted is not None:
            assert pixels == case["pred_xyxy_pixels"]
            assert truth == case["gt_xyxy"]
            if case["iou_plus1"] is not None:
                assert official_iou(pixels, truth) == case["iou_plus1"]
        correct = official_correct(case["answer"], truth, case["width"], case["height"])
        assert correct == case.get("correct", False)
        right += correct
    assert right == facts["correct"]
    assert 100 * right / facts["total"] == pytest.approx(facts["accuracy_percent"])
    for case in facts["iou_cases"]:
        assert official_iou(case["a"], case["b"]) == case["iou_plus1"]


@given(boxes(), boxes())
def test_iou_is_that_of_painted_cells(a, b):
    def cells(box):
        x1, y1, x2, y2 = (round(v * 60) for v in box)
        return set(itertools.product(range(x1, x2), range(y1, y2)))

    assert iou(a, b) == pytest.approx(len(cells(a) & cells(b)) / len(cells(a) | cells(b)))
    assert iou(a, b) == iou(b, a)


def test_iou_of_nothing_is_nothing():
    assert iou(Box(0.5, 0.5, 0.5, 0.5), Box(0.5, 0.5, 0.5, 0.5)) == 0


@given(st.lists(boxes(), max_size=5), st.lists(boxes(), max_size=5), st.sampled_from([0.1, 0.3, 0.5]))
def test_as_many_boxes_are_paired_as_can_be(predicted, truth, threshold):
    small, large = sorted((predicted, truth), key=len)
    best = 0
    for order in itertools.permutations(large, len(small)):
        best = max(best, sum(iou(a, b) >= threshold for a, b in zip(small, order, strict=True)))
    assert matches(predicted, truth, threshold) == best


def test_a_true_box_is_found_once():
    box = Box(0, 0, 0.5, 0.5)
    assert matches([box, box, box], [box]) == 1
    assert union_box([box, Box(0.4, 0.1, 0.9, 0.3)]) == Box(0, 0, 0.9, 0.5)


# baselines -------------------------------------------------------------------------------------------------------------


@given(boxes(), st.integers(1, 6), st.integers(1, 6))
def test_no_box_on_the_grid_is_better(box, columns, rows):
    best = iou(on_grid(box, columns, rows), box)
    for x1, x2 in itertools.combinations(range(columns + 1), 2):
        for y1, y2 in itertools.combinations(range(rows + 1), 2):
            assert iou(Box(x1 / columns, y1 / rows, x2 / columns, y2 / rows), box) <= best + 1e-12


def test_fixed_boxes():
    truth = [Box(0, 0, 0.4, 0.4), Box(0.05, 0.05, 0.4, 0.4), Box(0.6, 0.6, 1, 0.8)]
    assert np.allclose(list(mean_box(truth)), [0.65 / 3, 0.65 / 3, 0.6, 1.6 / 3])
    centre = centre_box(truth)
    assert (centre.x1 + centre.x2, centre.y1 + centre.y2) == pytest.approx((1, 1))
    assert centre.x2 - centre.x1 == pytest.approx((0.4 + 0.35 + 0.4) / 3)
    assert best_box(truth) in truth[:2]
    assert best_box([truth[2]] * 3 + truth[:2]) == truth[2]


def test_the_largest_box_of_each_image():
    small, large = Box(0, 0, 0.2, 0.2), Box(0.1, 0.1, 0.9, 0.9)
    places = [
        Place(image=image, phrase="x", boxes=boxes) for image, boxes in (("a", (small,)), ("b", (small,)), ("a", (large,)))
    ]
    assert largest_boxes(places) == {"a": large, "b": small}


# sentences -------------------------------------------------------------------------------------------------------------


def test_cider_is_that_of_the_coco_tools():
    """Recorded from an independent implementation that agrees with the COCO tools."""
    items = json.loads(Path(__file__).with_name("data").joinpath("cider.json").read_text())
    scores = cider([item["references"] for item in items], [item["candidate"] for item in items])
    assert scores == pytest.approx([item["cider"] for item in items], abs=1e-9)


def test_200_captions_score_as_the_coco_tools_score_them():
    """Recorded by tests/record_cocoeval.py, which draws the same captions."""
    known = json.loads((Path(__file__).parent / "data" / "cocoeval.json").read_text())
    references, candidates = captions()
    assert digest(references, candidates) == known["captions"]
    assert len(candidates) == 200
    assert cider(references, candidates) == pytest.approx(known["cider"], abs=1e-8)
    assert rouge_l(references, candidates) == pytest.approx(known["rouge_l"], abs=1e-8)
    assert bleu(references, candidates) == pytest.approx(known["bleu"][3], abs=1e-8)


def test_cider_by_hand():
    """Two items, one-word sentences: the word's weight cancels out, only the 1-grams of four kinds agree."""
    assert cider([["dog"], ["cat"]], ["dog", "dog"]) == pytest.approx([10 / 4, 0])
    # a word that all pictures have carries no weight
    assert cider([["dog"], ["dog"]], ["dog", "dog"]) == [0, 0]


def test_bleu_by_hand():
    references, said = [["the cat sat on the mat", "a cat was on the mat"]], ["the cat was on the mat"]
    # 1-grams: six of six ("the" is twice in the first reference); 2-grams: five of five; 3-grams: all but the-cat-was;
    # 4-grams: all but the-cat-was-on
    assert bleu(references, said) == pytest.approx((6 / 6 * 5 / 5 * 3 / 4 * 2 / 3) ** 0.25)
    short = bleu([["one two three four five six"]], ["one two three four"])
    assert short == pytest.approx(math.exp(1 - 6 / 4))
    assert bleu([["a b c d"]], ["x"]) == 0


def test_rouge_by_hand():
    (score,) = rouge_l([["police killed the gunman"]], ["police kill the gunman"])
    assert score == pytest.approx(3 / 4)  # precision and recall are equal
    (score,) = rouge_l([["a b c d e f"]], ["a c"])
    assert score == pytest.approx((1 + 1.44) * 1 * (2 / 6) / (2 / 6 + 1.44 * 1))
    assert rouge_l([["a"]], [""]) == [0]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A man's dog doesn't run.", "a man 's dog does n't run"),
        ("The dogs' owner can't, it's 3.5 o'clock!", "the dogs owner ca n't it 's 3.5 o'clock"),
        ("a black-and-white T-shirt (red)", "a black-and-white t-shirt red"),
        ("two   dogs ... -- playing ;", "two dogs playing"),
        ("I cannot see 1,000 men", "i can not see 1,000 men"),
        ("", ""),
    ],
)
def test_tokens_as_in_the_penn_treebank(text, tokens):
    assert ptb_tokens(text) == tokens.split()


def test_plain_tokens():
    assert plain_tokens("A man's dog-like cat, 3.5!") == ["a", "man's", "dog", "like", "cat", "3", "5"]


@pytest.mark.parametrize(
    ("phrase", "noun"),
    [
        ("two dogs", "dogs"),
        ("A man in a blue shirt", "man"),
        ("a group of young people running", "people"),
        ("the swimming pool", "pool"),
        ("a tall building", "building"),
        ("a red bathing suit", "suit"),
        ("the black and white dog", "dog"),
        ("a boy and a girl", "boy"),
        ("the back of a truck", "back"),
        ("a man's hat", "hat"),
        ("people", "people"),
        ("a short but steep cliff", "cliff"),
        ("one of the old looking ships", "ships"),
        ("<p>", "p"),
        ("", ""),
    ],
)
def test_the_noun_of_a_phrase(phrase, noun):
    assert head_noun(phrase) == noun


@pytest.mark.parametrize(
    ("sentence", "start", "one", "noun"),
    [
        ("a dog runs on sand", 1, True, "dog"),
        ("two young dogs run", 1, False, "dogs"),
        ("a baby girl sleeps", 1, True, "girl"),
        ("a black and white cow", 1, True, "cow"),
        ("a red bathing suit", 2, False, "suit"),
        ("a swing hangs", 1, True, "swing"),
        ("a red , old car", 2, False, "car"),
        ("a red", 1, True, None),
        ("one is blue", 1, True, None),
    ],
)
def test_the_noun_that_words_of_a_sentence_lead_to(sentence, start, one, noun):
    words = sentence.split()
    place = head_place(words, start, sentence=True, one=one)
    assert (words[place] if place is not None else None) == noun


# intervals -------------------------------------------------------------------------------------------------------------


def test_an_interval_holds_what_theory_says():
    rng = np.random.default_rng(1)
    right = rng.random(2000) < 0.3
    score = bootstrap(right.tolist())
    spread = 1.96 * math.sqrt(score.value * (1 - score.value) / 2000)
    assert score.value == pytest.approx(right.mean())
    assert score.low == pytest.approx(score.value - spread, abs=0.004)
    assert score.high == pytest.approx(score.value + spread, abs=0.004)


def test_questions_about_one_image_are_one_piece_of_evidence():
    right = [1, 1, 1, 1, 0, 0, 0, 0] * 20
    alone, together = bootstrap(right), bootstrap(right, groups=[i // 4 for i in range(160)])
    assert alone.value == together.value == 0.5
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_a_difference_has_the_interval_of_the_pairs():
    rng = np.random.default_rng(2)
    hard = rng.random(500) < 0.5
    first, second = hard | (rng.random(500) < 0.1), hard
    score = bootstrap(first.tolist()) - bootstrap(second.tolist())
    pairs = first.astype(float) - second
    spread = 1.96 * pairs.std() / math.sqrt(500)
    assert score.value == pytest.approx(pairs.mean())
    assert (score.low, score.high) == pytest.approx((score.value - spread, score.value + spread), abs=0.006)
    assert score.low > 0
    assert bootstrap(first.tolist()).low < bootstrap(second.tolist()).high
    assert math.isnan((bootstrap([1]) - Score(0.5, math.nan, math.nan)).low)
    assert math.isnan((bootstrap([1]) - bootstrap([])).value)
    sometimes = bootstrap([1, 0], [1, 0], ["a", "b"]) - bootstrap([0, 0], [1, 1], ["a", "b"])
    assert (sometimes.value, sometimes.low, sometimes.high) == (1, 1, 1)  # pictures that say nothing of one are left out


def test_ratios_and_their_edges():
    assert bootstrap([1, 2, 0], [2, 2, 1]).value == pytest.approx(3 / 5)
    assert math.isnan(bootstrap([0, 0], [0, 0]).value)
    assert math.isnan(bootstrap([]).value)
    all_right = bootstrap([1] * 10)
    assert (all_right.low, all_right.high) == (1, 1)
    assert bootstrap([0, 1] * 9) == bootstrap([0, 1] * 9)


def test_what_is_said_most_often():
    assert most_common(["b", "a", "b"]) == "b"


@pytest.mark.parametrize(
    ("text", "things"),
    [
        ("a dog's tail", ["dog"]),
        ("the man\u2019s hat and the children's toys", ["person", "person"]),
        ("two firemen and policemen", ["person", "person"]),
        ("the men's room", []),
        ("a specimen in the abdomen isn't a cat's", ["cat"]),
    ],
)
def test_things_are_named_in_the_possessive_too(text, things):
    assert objects_in(text) == things


def test_boxes_and_markup_are_no_words():
    text = "<p>A dog</p> {<10><20><30><40>} runs on <p>grass</p> {<1><2><3><4>}<delim>{<5><6><7><8>} ."
    assert named(text, {"dog"}).words == 5
