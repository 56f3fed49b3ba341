"""CHAIR and POPE against cases worked out by hand."""

import json
import math
from pathlib import Path

import pytest

from minigpt4.metrics import objects
from minigpt4.metrics.objects import Named, chair, kinds, named, objects_in
from minigpt4.metrics.words import singular
from minigpt4.metrics.yes_no import official_yes, said_yes


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A man rides a horse.", ["person", "horse"]),
        ("Two men ride horses, and a woman watches.", ["person", "horse", "person"]),
        ("a hot dog on a plate", ["hot dog"]),
        ("Hotdogs and dogs", ["hot dog", "dog"]),
        ("the batter stands at home plate with a baseball bat", ["baseball bat"]),
        ("three buses at a bus stop", ["bus"]),
        ("a train on train tracks", ["train"]),
        ("an orange and white cat in an orange shirt eats an orange", ["cat", "orange"]),
        ("A teddy bear, a polar bear", ["teddy bear", "bear"]),
        ("wine glasses, knives, mice and scissors", ["wine glass", "knife", "mouse", "scissors"]),
        ("toilet paper beside the toilet", ["toilet"]),
        ("a baseball player on a tennis court with a tennis racquet", ["person", "tennis racket"]),
        ("carrot cake", ["cake"]),
        ("a laptop computer with its computer mouse and a computer monitor", ["laptop", "mouse", "tv"]),
        ("The sky is blue.", []),
        ("", []),
    ],
)
def test_things_are_named_by_the_longest_phrase(text, found):
    assert objects_in(text) == found


def test_every_kind_is_known_by_its_own_name_and_in_the_plural():
    assert len(kinds()) == 80
    for kind in kinds():
        assert objects_in(f"There is a {kind} here.") == [kind]
        plural = {"knife": "knives", "mouse": "mice", "sheep": "sheep", "person": "people", "skis": "skis"}
        plural |= {"scissors": "scissors", "sandwich": "sandwiches", "bench": "benches", "couch": "couches", "bus": "buses"}
        plural |= {"wine glass": "wine glasses", "toothbrush": "toothbrushes", "broccoli": "broccoli"}
        assert objects_in(f"There are two {plural.get(kind, kind + 's')} here.") == [kind]


MANY = {
    "man": "men",
    "woman": "women",
    "child": "children",
    "person": "people",
    "mouse": "mice",
    "goose": "geese",
    "ox": "oxen",
}
MANY |= {
    "knife": "knives",
    "pocketknife": "pocketknives",
    "wife": "wives",
    "calf": "calves",
    "plant in a pot": "plants in a pot",
}
MANY |= {"plant in a vase": "plants in a vase"}
AS_ONE = set("people men women children someone cattle luggage baggage broccoli sheep skis scissors shears aircraft".split())
AS_ONE |= {"wine glasses", "champagne glasses", "tvs"}


def plural(text):
    """By the rules of a grammar, from the singular."""
    *before, noun = [text] if text in MANY else text.rsplit(" ", 1)
    if noun in AS_ONE:
        return text
    if noun in MANY:
        many = MANY[noun]
    elif noun.endswith("man"):
        many = f"{noun[:-2]}en"
    elif noun.endswith("y") and noun[-2] not in "aeiou":
        many = f"{noun[:-1]}ies"
    else:
        many = noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")
    return " ".join([*before, many])


def test_every_listed_word_is_known_in_the_plural():
    listed = json.loads((Path(objects.__file__).with_name("coco_objects.json")).read_text())
    for kind, texts in listed["classes"].items():
        for text in set(texts) - AS_ONE:
            assert objects_in(f"There are {plural(text)} here.") == [kind], plural(text)
    uncounted = ("table tennis", "horse drawn", "bowl cut", "man made", "tie dye", "and white", "and black", "and orange")
    for text, kind in listed["phrases"].items():
        if not text.endswith(uncounted):
            assert objects_in(f"There are {plural(text)} here.") == ([kind] if kind else []), plural(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("two jet skis and a jet", ["boat", "airplane"]),
        ("a man on a jet ski", ["person", "boat"]),
        ("skis and a ski", ["skis", "skis"]),
        ("apple pies, cookies and loaves on shelves", []),
        ("this tennis court is his", []),
    ],
)
def test_what_words_in_the_plural_mean(text, found):
    assert objects_in(text) == found


@pytest.mark.parametrize(
    ("many", "one"),
    [
        ("leaves", "leaf"),
        ("bookshelves", "bookshelf"),
        ("gloves", "glove"),
        ("olives", "olive"),
        ("pies", "pie"),
        ("cookies", "cookie"),
        ("puppies", "puppy"),
        ("skies", "sky"),
        ("potatoes", "potato"),
        ("canoes", "canoe"),
        ("lenses", "lens"),
        ("tennis", "tennis"),
        ("paninis", "panini"),
        ("glasses", "glasses"),
        ("dresses", "dress"),
    ],
)
def test_singular(many, one):
    assert singular(many) == one
    assert singular(one) == one


def test_chair():
    texts = [
        named("A man with two dogs and a dog.", {"person", "dog", "cat"}),  # three mentions, all there; two of three kinds
        named("A cat and a dog on a bed.", {"cat"}),  # three mentions, two false
        named("It is cold.", {"bird"}),
    ]
    assert texts == [Named(3, 0, 2, 3, 8), Named(3, 2, 1, 1, 8), Named(0, 0, 0, 1, 3)]
    assert chair(texts) == {"CHAIR_i": 2 / 6, "CHAIR_s": 1 / 3, "recall": 3 / 5, "words": 19 / 3}
    assert all(math.isnan(value) for value in chair([]).values())


@pytest.mark.parametrize(
    ("text", "official", "said"),
    [
        ("Yes", True, True),
        ("No, there is not.", False, False),
        ("no", False, False),
        ("NO", True, False),  # the official rule knows two spellings
        ("Yes. But no cat", True, True),
        ("There is not", False, None),
        ("I cannot say", True, None),
        ("", True, None),
        ("Yes, there is no doubt", False, True),
        ("nothing", True, None),
        ("\nNo", True, False),
        ("No\nYes", True, False),
    ],
)
def test_what_was_said(text, official, said):
    assert official_yes(text) is official
    assert said_yes(text) is said
