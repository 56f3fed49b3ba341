"""Rules about descriptions and repairs by rule: each fires on what it is for, and on nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt4.curate.rules import REPAIRS, RULES, changed_words, flaws_of, near_duplicates, repaired
from minigpt4.metrics.fluency import flaws

GOOD = (
    "A young woman in a red coat walks her two dogs along a wide beach. The sky above the sea is full of grey clouds, and a "
    "lighthouse stands on the rocks to the left. She holds a leash in one hand and an umbrella in the other."
)


def names(text, **options):
    return [flaw["rule"] for flaw in flaws_of(text, **({"min_words": 5, "max_words": 100} | options))]


def test_a_good_description_passes_and_is_not_repaired():
    assert names(GOOD) == []
    assert repaired(GOOD) == (GOOD, [])


@pytest.mark.parametrize(
    ("rule", "text", "evidence"),
    [
        ("repeated_sentence", f"{GOOD} It is cold. It is cold.", "it is cold"),
        (
            "repeated_ngram",
            "On the left side is a cat, on the left side is a dog, on the left side is a bird.",
            "on the left side",
        ),
        ("loop", f"{GOOD} There is a dog, a dog, a dog here.", "a dog a dog a dog"),
        ("apology", f"{GOOD} I apologize for that.", "I apologize"),
        ("apology", f"I'm sorry I made a mistake. {GOOD}", "I'm sorry"),
        ("foreign_script", f"{GOOD} \u72d7\u5728 the beach.", "\u72d7\u5728"),
        ("stray_symbols", f"{GOOD} ### Human", "###"),
        ("stray_symbols", f"{GOOD} So nice!!!!!!", "!!!!!!"),
        ("cut_ending", f"{GOOD} The boat in the", "holds a leash"),
        ("fragment", "A dog.", "2 words"),
        ("too_long", GOOD * 3, "words"),
        ("empty", "  ", "nothing"),
    ],
)
def test_each_rule_fires_and_shows_its_evidence(rule, text, evidence):
    found = {flaw["rule"]: flaw["evidence"] for flaw in flaws_of(text, 5, 100)}
    assert rule in found
    if rule == "cut_ending":
        evidence = "The boat in the"
    assert evidence in found[rule]
    assert rule not in names(text, off=[rule])


def test_letters_with_accents_and_quotes_are_english_enough():
    assert names('A sign says "Caf\u00e9 M\u00fcller" in the old na\u00efve style of the place.') == []


def test_repairs_mend_what_they_can():
    text = (
        "### A dog runs on the beach. A dog runs on the beach. The sea is calm. \u72d7 is here. "
        "I apologize for that. The dog runs on a beach. The man ** holds a"
    )
    assert repaired(text) == (
        "A dog runs on the beach. The sea is calm.",
        ["stray_symbols", "foreign_script", "apology", "repeated_sentence", "near_repeat", "cut_ending"],
    )


def test_repairs_keep_the_quotes_and_brackets_of_other_sentences():
    text = 'A man (left) says "Hello!" He waves. The sign (he says "Stop here.") is red. He waves.'
    assert repaired(text)[0] == 'A man (left) says "Hello!" He waves. The sign (he says "Stop here.") is red.'


@given(
    st.lists(st.sampled_from(["A dog runs. ", "I'm sorry. ", "### ", "the ", "\u72d7", "!!!!", "Cats sit", ". ", "\n"])).map(
        "".join
    )
)
def test_repairs_are_idempotent_and_only_take_away(text):
    once, _ = repaired(text)
    twice, changes = repaired(once)
    assert (twice, changes) == (once, [])
    assert len(once) <= len(text)


@given(st.lists(st.sampled_from("a dog runs on the beach and then . it sits".split()), max_size=60).map(" ".join))
def test_what_fluency_calls_repetition_is_never_kept(text):
    if "repeats" in flaws(text):
        assert {"repeated_sentence", "repeated_ngram", "loop", "repetition"} & set(names(text))


def test_near_duplicates_point_to_the_first():
    other = "Three men sit at a wooden table in a bright kitchen and play cards while a cat looks on from the window."
    texts = [("a", GOOD), ("b", other), ("c", GOOD.replace("red", "blue")), ("d", GOOD), ("e", "")]
    assert near_duplicates(texts, 0.8) == {"c": "a", "d": "a"}
    assert near_duplicates(texts, 1.0) == {"d": "a"}


@given(st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12))
def test_a_word_diff_holds_both_texts(before, after):
    pieces = changed_words(" ".join(before), " ".join(after))
    assert " ".join(text for kind, text in pieces if kind != "new").split() == before
    assert " ".join(text for kind, text in pieces if kind != "gone").split() == after


def test_every_rule_and_repair_has_a_name_people_can_switch_off():
    assert len(RULES) == 9
    assert set(REPAIRS) >= {"apology", "repeated_sentence", "stray_symbols", "foreign_script", "cut_ending"}
