"""Looking more than once: in a mirror, and at each thing that a description names."""

import random

import pytest
import shapes
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageOps
from test_assistant import assistant

from minigpt4 import UserError
from minigpt4.engine.completion import Completion, Request
from minigpt4.inference.answer import Answer
from minigpt4.inference.looks import Look
from minigpt4.inference.refine import around, at_each_thing, at_what_was_found
from minigpt4.prompt.boxes import Box, parse_boxes, parse_phrases, render_phrases, with_boxes_moved, with_other_boxes

IMAGES = [shapes.draw(*thing, random.Random(i)) for i, thing in enumerate(shapes.things(4))]
GROUNDED = (
    "<p>A man</p> {<10><20><30><40>} and <p>two dogs</p> {<1><2><3><4>}<delim>{<5><6><7><8>} near <p>a car</p> {<0><0><9><9>}."
)


@pytest.fixture(scope="module")
def system():
    return assistant()


def told(system, monkeypatch, says):
    """Replaces the engine's answers: ``says(number of the request)`` is what every answer to it is; returns the calls."""
    calls = []

    def generate(requests, batch_size=None):
        calls.append(list(requests))
        first = 1 + sum(map(len, calls[:-1]))
        return [
            [Completion(text=says(number), token_ids=(), finish_reason="stop")] * request.params.n
            for number, request in enumerate(calls[-1], first)
        ]

    monkeypatch.setattr(system.engine, "generate", generate)
    return calls


def seen(system, request):
    """What the language model would receive for a request's image."""
    return system.engine.encode(request.images)[0].embeds


def test_half_of_the_answers_are_drawn_before_the_image_in_a_mirror(monkeypatch):
    """Two models' worth of answers: of the picture, and of its mirror image with left and right exchanged, turned back."""
    system = assistant()
    calls = told(system, monkeypatch, {1: "{<10><20><30><40>}", 2: "{<60><20><80><40>}"}.get)
    image = IMAGES[0]
    answer = system.refer(image, "the dog on the left", self_consistency=7, mirrored=True)
    assert answer.text == "{<10><20><30><40>}"  # four against three
    ((plain, turned),) = calls  # read together
    assert plain.messages[-1]["content"].endswith("the dog on the left")
    assert turned.messages[-1]["content"] == plain.messages[-1]["content"].replace("left", "right")
    assert (plain.params.n, turned.params.n) == (4, 3)
    assert plain.params.stratified
    torch.testing.assert_close(seen(system, turned), seen(system, Request(messages=[], images=[ImageOps.mirror(image)])))
    assert not torch.equal(seen(system, plain), seen(system, turned))
    calls.clear()
    turned_back = told(system, monkeypatch, {1: "{<20><20><40><40>}", 2: "{<60><20><80><40>}"}.get)
    assert system.refer(image, "it", self_consistency=7, mirrored=True).text == "{<20><20><40><40>}"  # all seven agree
    assert len(turned_back) == 1


def test_looking_twice_is_for_several_answers(system):
    short = {"max_new_tokens": 6}
    with pytest.raises(UserError, match="mirrored goes with self_consistency of 4 or more"):
        system.refer(IMAGES[0], "a dog", mirrored=True, **short)
    with pytest.raises(
        UserError, match="mirrored goes with self_consistency of 4 or more"
    ):  # it was taken, and changed nothing
        system.refer(IMAGES[0], "a dog", self_consistency=3, mirrored=True, **short)
    both = assistant(task_settings={"refer": {"self_consistency": 6, "mirrored": True}})
    few = {"self_consistency": 3} | short
    assert both.refer(IMAGES[0], "a dog", **few) == system.refer(IMAGES[0], "a dog", **few)  # what is wished gives way
    items = [(image, f"[refer] dog {i}") for i, image in enumerate(IMAGES)]
    alone = [both.ask(*item, **short) for item in items]
    assert both.ask_many(items, batch_size=4, **short) == alone
    assert both.chat(IMAGES[0]).ask("[refer] dog 0", **short) == alone[0]  # a conversation looks as often as a question does
    later = both.chat(IMAGES[0])
    later.ask("What is on the left?", **short)
    assert later.ask("[refer] dog 0", **short) is not None
    assert both.ask(IMAGES[0], "[refer] dog 0", self_consistency=1, **short) == system.ask(IMAGES[0], "[refer] dog 0", **short)


@pytest.mark.parametrize(
    ("box", "times", "part"),
    [
        (Box(0.4, 0.4, 0.6, 0.8), 1.5, (0.35, 0.3, 0.65, 0.9)),
        (Box(0.4, 0.4, 0.6, 0.8), 3, (0.2, 0, 0.8, 1)),
        (Box(0.9, 0, 1, 0.1), 1.5, (0.7, 0, 1, 0.3)),  # never small, never over the edge
        (Box(0, 0.5, 1, 0.5), 2, (0, 0.35, 1, 0.65)),
    ],
)
def test_the_part_around_a_box(box, times, part):
    assert around(box, times) == pytest.approx(part)


def test_what_surrounds_a_found_box_is_looked_at(monkeypatch):
    """Four answers before the whole picture, then four before the part around their box, brought back from there."""
    system = assistant(task_settings={"refer": {"self_consistency": 4, "mirrored": True, "zoom_in": True}})
    image = IMAGES[0]
    there = "{<40><40><60><80>}"  # in the whole picture, and in the mirror
    # In the part it is the lower half; the part is 1.5 times 0.2 by 0.4 with the box in the middle.
    says = {1: there, 2: there, 3: "{<0><50><100><100>}", 4: "{<0><50><100><100>}"}
    calls = told(system, monkeypatch, lambda number: says.get(number, "nothing"))
    assert system.refer(image, "it").boxes == [Box.from_grid(35, 60, 65, 90)]
    assert [[request.params.n for request in call] for call in calls] == [[2, 2], [2, 2]]
    part = image.crop([round(v * side) for v, side in zip((0.35, 0.3, 0.65, 0.9), image.size * 2, strict=True)])
    torch.testing.assert_close(seen(system, calls[1][0]), system.engine.encode([part])[0].embeds)
    torch.testing.assert_close(seen(system, calls[1][1]), system.engine.encode([ImageOps.mirror(part)])[0].embeds)
    calls.clear()
    assert system.chat(image).ask("[refer] it").boxes == [Box.from_grid(35, 60, 65, 90)]  # and so in a conversation
    del says[3], says[4]
    calls.clear()
    assert system.refer(image, "it").boxes == [Box.from_grid(40, 40, 60, 80)]  # nothing is found there: as it was

    calls.clear()
    system.refer(image, "it", zoom_in=False)
    system.detect(image, "it")
    system.ask([image, image], "[refer] it")  # of two pictures, which one?
    assert list(map(len, calls)) == [2, 1, 2]


def test_the_same_is_not_looked_at_twice():
    asked = []
    boxes = ["{<10><10><90><90>}", "{<40><40><60><60>}", "nothing"]  # what surrounds the first is the whole picture
    answers = [[box] * 3 for box in boxes]
    looks = [Look.at([image], "[refer] it") for image in IMAGES[:3]]
    again = at_what_was_found(looks, answers, lambda some: asked.append(len(some)) or [["nothing"] * 3 for _ in some])
    assert again == answers
    assert asked == [1]


def test_lengths_and_stops_of_a_description_are_not_those_of_its_things(monkeypatch):
    """`min_new_tokens=40` made each `[refer]` question go on behind its box, and its boxes were the answer's."""
    system = assistant(task_settings={"grounding": {"zoom_in": True}})
    calls = told(system, monkeypatch, lambda number: "<p>a dog</p> {<1><2><3><4>}")
    system.ground(IMAGES[0], min_new_tokens=9, max_new_tokens=12, stop=["."], repetition_penalty=1.2, temperature=0.7, seed=3)
    described, refined = (call[0].params for call in calls)
    assert (described.min_new_tokens, described.max_new_tokens, described.stop) == (9, 12, (".",))
    assert (refined.min_new_tokens, refined.stop, refined.repetition_penalty) == (0, (), 1.2)
    assert (refined.temperature, refined.seed) == (0.7, 3)


def test_other_boxes_take_the_place_of_a_phrases_own():
    one, two = Box.from_grid(50, 60, 70, 80), Box.from_grid(0, 0, 100, 100)
    text = with_other_boxes(GROUNDED, {"A man": [one, two], "two dogs": [one], "a cat": [two]})
    assert text == (
        "<p>A man</p> {<50><60><70><80>}<delim>{<0><0><100><100>} and <p>two dogs</p> {<50><60><70><80>} "
        "near <p>a car</p> {<0><0><9><9>}."
    )
    assert with_other_boxes("<p>a dog {<1><2><3><4>} runs", {"a dog": [one]}) == "<p>a dog {<50><60><70><80>} runs"
    said = "<p>a dog</p> {<1><2><3><4>} <delim>{<1><1><2><2>} by a cat {<5><5><6><6>} on grass"
    assert with_other_boxes(said, {"a dog": [one]}) == "<p>a dog</p> {<50><60><70><80>} by a cat on grass"
    assert with_other_boxes("a dog {<1><2><3><4>}", {"a dog": [one], "": [one]}) == "a dog {<1><2><3><4>}"


BOXES = st.builds(lambda x, y, w, h: Box.from_grid(x, y, x + w, y + h), *[st.integers(0, 50)] * 4)
PHRASES = st.tuples(st.sampled_from(["a dog", "the man", "left shoe"]), st.lists(BOXES, min_size=1, max_size=3))
TIED = st.lists(PHRASES, max_size=4)


@given(TIED, st.dictionaries(st.sampled_from(["a dog", "the man", "a hat"]), st.lists(BOXES, min_size=1, max_size=2)))
def test_what_is_read_is_what_was_put_in(tied, others):
    text = " and ".join(render_phrases([phrase]) for phrase in tied)
    assert with_other_boxes(text, dict(parse_phrases(text))) == text or len({phrase for phrase, _ in tied}) < len(tied)
    read = dict(parse_phrases(with_other_boxes(text, others)))
    for phrase, boxes in parse_phrases(text):
        times = sum(name == phrase for name, _ in tied)
        assert read[phrase] == (others[phrase] * times if phrase in others else boxes)


def test_boxes_are_moved_and_nothing_else():
    text = "at {<10><20><30><40>}<delim>{<1><2><3>} or <50> <60> <70> <80> there"
    moved = with_boxes_moved(text, lambda box: Box(box.x1 / 2, box.y1 / 2, box.x2 / 2, box.y2 / 2))
    assert moved == "at {<5><10><15><20>}<delim>{<1><2><3>} or {<25><30><35><40>} there"
    assert with_boxes_moved(text, lambda box: box).startswith("at {<10><20><30><40>}<delim>")
    assert parse_boxes(with_boxes_moved(text, lambda box: box)) == parse_boxes(text)


def test_each_phrase_of_a_description_is_asked_about_by_itself(monkeypatch):
    system = assistant(task_settings={"grounding": {"zoom_in": True, "max_new_tokens": 9}})
    found = {"A man": "{<50><60><70><80>}", "two dogs": "nothing to see", "a car": "<p>a car</p> {<8><8><9><9>}"}
    asked = []

    def generate(requests, batch_size=None):
        asked.append([(request.messages[-1]["content"].partition("</Img> ")[2], request) for request in requests])
        answers = [next((found[name] for name in found if name in question), GROUNDED) for question, _ in asked[-1]]
        return [[Completion(text=text, token_ids=(), finish_reason="stop")] for text in answers]

    monkeypatch.setattr(system.engine, "generate", generate)
    question = "[grounding] describe this image in detail"
    answers = system.ask_many([(image, question) for image in IMAGES[:2]], num_beams=2, repetition_penalty=1.5)
    expected = GROUNDED.replace("{<10><20><30><40>}", found["A man"]).replace("{<0><0><9><9>}", "{<8><8><9><9>}")
    assert list(answers) == [expected] * 2  # for the dogs nothing was found, and they stay where they were
    again = [each for call in asked[1:] for each in call]
    assert sorted(q.split("]")[0] for q, _ in again) == ["[detection"] * 2 + ["[refer"] * 4
    assert {(r.params.num_beams, r.params.repetition_penalty) for _, r in again} == {(2, 1.5)}  # a caller's settings reach all
    asked.clear()
    assert system.chat(IMAGES[0]).ask(question) == expected
    asked.clear()
    assert system.ask(IMAGES[0], question, zoom_in=False) == GROUNDED
    assert len(asked) == 1


def test_what_has_no_name_is_not_asked_about():
    nameless = "<p></p> {<1><2><3><4>} and <p>a dog</p> {<1><1><2><2>}"
    look = Look.at([IMAGES[0]], "[grounding] describe this image in detail")
    (answer,) = at_each_thing([look], [nameless], lambda items: ["{<5><5><6><6>}" for _ in items])
    assert answer == "<p></p> {<1><2><3><4>} and <p>a dog</p> {<5><5><6><6>}"


def test_looking_again_ends_and_is_for_descriptions_with_places(system):
    wished = assistant(task_settings={"grounding": {"zoom_in": True}, "refer": {"self_consistency": 4, "mirrored": True}})
    short = {"max_new_tokens": 6}
    question = "[grounding] describe this image in detail"
    assert isinstance(wished.ground(IMAGES[0], **short), Answer)  # for real, if only with noise to look at
    assert not wished.streams(question, {})
    assert wished.streams(question, {"zoom_in": False})
    assert "".join(wished.stream(IMAGES[0], question, **short)).strip() == system.ask(IMAGES[0], question, **short)
    for ask in (system.ask, lambda *a, **k: list(system.stream(*a, **k))):
        with pytest.raises(UserError, match=r"zoom_in goes with \[grounding\]"):
            ask(IMAGES[0], "[refer] a dog" if ask == system.ask else question, zoom_in=True, **short)
    wished.official = True
    assert not wished.plan(question, {}).zoom_in
