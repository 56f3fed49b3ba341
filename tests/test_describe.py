"""Descriptions made of several captions: what agrees is put together, what contradicts or repeats is left out."""

import json

import pytest

from minigpt4.curate.describe import Sentence, describe, descriptions_file, repeats
from minigpt4.curate.facts import contradict, facts_of
from minigpt4.errors import UserError


@pytest.mark.parametrize(
    ("a", "b", "about"),
    [
        ("Two dogs run.", "Three dogs run on a beach.", "number of dog"),
        ("A dog runs.", "Two dogs run.", "number of dog"),
        ("The dogs play.", "A dog plays.", "number of dog"),
        ("A black dog and a white dog meet.", "Two dogs meet.", None),
        ("A black dog and a white dog meet.", "A dog waits.", "number of dog"),
        ("A group of people wait.", "Five people wait.", None),
        ("A group of people wait.", "A man waits.", "number of people"),
        ("A couple of children play.", "Three children play.", "number of child"),
        ("Two people ride bikes.", "A man and a woman ride bikes.", None),
        ("A person rides.", "Two women ride.", "number of people"),
        ("A woman sits.", "A woman and a baby sit on a bench.", "number of people"),
        ("A man sits.", "A man and a woman sit.", None),
        ("A red car turns.", "A blue car turns.", "colour of car"),
        ("A red and blue car turns.", "A blue car turns.", None),
        ("A gray cat sleeps.", "A grey cat sleeps.", None),
        ("A brown dog runs.", "A tan dog runs.", None),
        ("A dog with a red collar.", "A black dog.", None),
        ("A man in a red shirt.", "A man in a shirt that is torn.", None),
        ("A man in a red shirt.", "A man in a green shirt.", "colour of shirt"),
        ("A man smiles.", "A woman smiles.", "sex"),
        ("A boy in his bed.", "A girl in her bed.", "sex"),
        ("A person smiles.", "A woman smiles.", None),
        ("A man jumps.", "A boy jumps.", "age"),
        ("A young child jumps.", "A boy jumps.", None),
        ("People sit in a kitchen.", "People sit on a beach.", "place"),
        ("A dog lies indoors.", "A dog lies on a rug.", None),
        ("Nothing to see here.", "A dog runs.", None),
    ],
)
def test_contradictions_are_seen_both_ways(a, b, about):
    a, b = facts_of(a), facts_of(b)
    assert contradict(a, b) == contradict(b, a) == about


@pytest.mark.parametrize(
    ("sentence", "counts", "colours"),
    [
        ("Two small dogs run through the tall grass.", {"dog": (2, True)}, {}),
        ("A man with a red hat, two black boots.", {"man": (1, True), "boot": (2, True)}, {"hat": {"red"}, "boot": {"black"}}),
        ("A black and white dog chases another dog.", {"dog": (2, True)}, {"dog": {"black", "white"}}),
        ("Several children watch a pair of clowns.", {"child": (2, False), "clown": (2, True)}, {}),
        ("One bus passes.", {"bus": (1, True)}, {}),
    ],
)
def test_numbers_and_colours_belong_to_things(sentence, counts, colours):
    facts = facts_of(sentence)
    assert {noun: facts.counts.get(noun) for noun in counts} == counts
    assert facts.colours == colours


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("A dog runs through the snow.", "A dog is running through snow.", True),
        ("A dog runs through the snow.", "A man in a coat watches the dog.", False),
        ("A man stands on a hill.", "A woman standing on a hill.", True),
        ("A big red bus drives down the road.", "On a road with trees people wait for a bus.", False),
    ],
)
def test_near_duplicates_are_seen(a, b, same):
    assert repeats(Sentence(a), Sentence(b)) is repeats(Sentence(b), Sentence(a)) is same


def test_a_description_is_made_of_captions_that_agree():
    captions = [
        "A brown dog jumps over a wooden fence .",
        "Dog leaping a fence in a garden with tall flowers .",
        "Two brown dogs jump over a fence .",
        "A black dog leaps over flowers .",
        "A brown dog jumps over a fence .",
        "a man 's hand holds a treat in the air .",
    ]
    told = describe(captions)
    assert told == (
        "A dog leaping a fence in a garden with tall flowers. A man's hand holds a treat in the air. "
        "The brown dog jumps over a wooden fence."
    )


def test_a_description_has_as_many_sentences_as_wanted():
    captions = [
        "A red kite hangs above the quiet harbour",
        "Fishermen mend torn nets beside old crates",
        "Gulls circle the lighthouse",
        "An empty rowing boat drifts slowly past",
        "Heavy clouds promise rain tonight",
    ]
    assert describe(captions).count(".") == 4
    assert describe(captions, most=3).count(".") == 3
    assert describe(captions, most=2).count(".") == 2
    for sentence in describe(captions).split(". "):
        assert sentence.rstrip(".") in captions


@pytest.mark.parametrize(
    "captions",
    [
        [],
        ["A dog runs in the snow."],
        ["A dog runs in the snow."] * 5,
        ["A dog runs in the snow.", "A dog running through snow.", "the dog runs"],
        ["Two cats sleep on a sofa.", "Three cats wait near the door."],
        ["", " ", "dog", "."],
    ],
)
def test_where_nothing_fits_together_there_is_no_description(captions):
    assert describe(captions) is None


@pytest.mark.parametrize(
    ("caption", "written"),
    [
        ("a girl going into a wooden building", "A girl is going into a wooden building."),
        ("Two boys playing in the mud .", "Two boys are playing in the mud."),
        ("A man wearing a hat rides a horse .", "A man wearing a hat rides a horse."),
        ("A man standing there holds sticks", "A man standing there holds sticks."),
        ("A dog that is running", "A dog that is running."),
        ("woman selling fruit", "A woman is selling fruit."),
        ("a old bench and a apple", "An old bench and an apple."),
        ("Is this a one-way street ?", "Is this a one-way street?"),
    ],
)
def test_captions_become_sentences(caption, written):
    told = describe([caption, "Green lanterns glow softly above everything."])
    assert written in (told.split(" Green lanterns")[0], told.removeprefix("Green lanterns glow softly above everything. "))


def test_what_was_spoken_of_is_spoken_of_as_known():
    told = describe(["A tall woman sells bread", "A woman counts her coins at night", "A van with open doors waits"])
    assert told.startswith(("A tall woman sells bread. ", "A woman counts her coins at night. "))
    assert "The woman counts her coins at night." in told or "The tall woman sells bread." in told
    assert "A van with open doors waits." in told


def test_files_are_made_of_files(tmp_path):
    source, output = tmp_path / "captions.jsonl", tmp_path / "descriptions.jsonl"
    good = ["A brown dog jumps over a wooden fence .", "A dog waits in a garden with tall flowers ."]
    rows = [
        {"image": "a.jpg", "split": "dev", "task": "caption", "answers": good},
        {"image": "b.jpg", "task": "caption", "answers": ["A dog.", "The dog."]},
        {"question": "?", "answer": "!"},
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert descriptions_file(source, output) == (1, 2)
    (made,) = map(json.loads, output.read_text().splitlines())
    assert made == {"image": "a.jpg", "split": "dev", "answer": describe(good)}
    source.write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(UserError, match=r"captions.jsonl: no picture has two captions that agree"):
        descriptions_file(source, output)
