"""Dialogues about many files: resume, failures, the page, the figures."""

import json
import threading
import time

import pytest
from PIL import Image
from scripted import Scripted
from test_captioner import WORDING, growing, numbered

from minigpt4.dialogue.agents import AgentError, AgentGone, CostCeiling
from minigpt4.dialogue.analysis import analyse, verdict
from minigpt4.dialogue.captioner import Partners, Rules, converse
from minigpt4.dialogue.files import converse_files, transcripts_in, truth_in
from minigpt4.dialogue.from_caption import agrees, answered_from_captions
from minigpt4.dialogue.page import comparison_page, marked_words
from minigpt4.dialogue.prompts import load_prompts
from minigpt4.errors import UserError


@pytest.fixture
def files(tmp_path):
    for i in range(6):
        Image.new("RGB", (30, 20), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"no picture")
    return [tmp_path / f"{i}.png" for i in range(6)]


def run(file, listener=None):
    return converse(file, Partners(questioner=numbered(), answerer=growing()), WORDING, Rules(rounds=3), listener)


def names(output):
    return [json.loads(line)["image"].rsplit("/", 1)[1] for line in output.read_text().splitlines()]


def test_a_file_that_fails_takes_nothing_with_it_and_is_tried_again(files, tmp_path):
    heard, output = {}, tmp_path / "out.jsonl"
    assert converse_files(files, output, run, lambda name, what: heard.update({name: what}), "us", workers=3) == 1
    assert len(heard) == 6
    assert "not a picture" in heard[str(files[3])]
    assert names(output) == ["0.png", "1.png", "2.png", "4.png", "5.png"]
    before = output.read_text()
    Image.new("RGB", (30, 20)).save(files[3])
    heard.clear()
    assert converse_files(files, output, run, lambda name, what: heard.update({name: what}), "us") == 0
    assert list(heard) == [str(files[3])]
    assert names(output) == [f"{i}.png" for i in range(6)]
    assert set(before.splitlines()) < set(output.read_text().splitlines())


def test_what_a_kill_cut_short_is_done_again_to_the_same_file(files, tmp_path):
    files = [file for file in files if file.name != "3.png"]
    whole, output = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    converse_files(files, whole, run, lambda *_: None, "us")
    data = whole.read_bytes()
    for cut in range(0, len(data), 311):
        output.write_bytes(data[:cut])
        converse_files(files, output, run, lambda *_: None, "us")
        assert output.read_bytes() == data


def test_a_file_is_continued_neither_by_others_nor_about_another_image(files, tmp_path):
    output = tmp_path / "out.jsonl"
    assert converse_files(files, output, run, lambda *_: None, "us") in (0, 1)
    with pytest.raises(UserError, match="holds answers by us, not by others"):
        converse_files(files, output, run, lambda *_: None, "others")
    Image.new("RGB", (9, 9)).save(files[0])
    with pytest.raises(UserError, match="has changed since"):
        converse_files(files, output, run, lambda *_: None, "us")


def test_at_a_full_disk_nothing_more_is_asked(files, tmp_path, monkeypatch):
    asked = []

    def counted(file, listener):
        asked.append(file)
        return run(file, listener)

    def full(self, rows):
        raise UserError("out.jsonl: cannot write (No space left on device)")

    monkeypatch.setattr("minigpt4.io.jsonl.Output.write", full)
    with pytest.raises(UserError, match="No space left"):
        converse_files(files, tmp_path / "out.jsonl", counted, lambda *_: None, "us", workers=1)
    assert len(asked) <= 2


def test_who_is_stopped_asks_no_more_and_keeps_what_is_finished(files, tmp_path):
    """Ctrl-C, while one dialogue has just ended and another would go on for long: its rounds were paid for and thrown away."""
    rounds, output = [], tmp_path / "out.jsonl"
    going, interrupted = threading.Event(), threading.Event()

    def held(file, listener):
        if file == files[0]:
            assert going.wait(20)
            interrupted.set()
            raise KeyboardInterrupt  # as waiting would in the main thread
        if file == files[1]:  # it is about to end
            assert interrupted.wait(20)
            time.sleep(0.2)
            return run(file)
        for number in range(100):
            rounds.append(number)
            going.set()
            assert interrupted.wait(20)
            time.sleep(0.2)
            listener("answer", str(number))
        raise AssertionError("it was not told to stop")

    with pytest.raises(KeyboardInterrupt):
        converse_files(files[:3], output, held, lambda *_: None, "us", workers=3)
    assert len(rounds) <= 3
    assert names(output) == ["1.png"]


@pytest.mark.parametrize("end", [CostCeiling, AgentGone])
def test_at_the_cost_ceiling_or_with_nobody_there_no_more_dialogues_begin(files, tmp_path, end):
    files = [file for file in files if file.name != "3.png"]
    begun, lock = [], threading.Lock()

    def run_until(file, listener):
        with lock:
            begun.append(file)
            dear = len(begun) > 2
        if dear:
            raise end("no more")
        return run(file)

    output = tmp_path / "out.jsonl"
    assert converse_files(files, output, run_until, lambda *_: None, "us", workers=1) == 3
    assert (len(begun), names(output)) == (3, ["0.png", "1.png"])


@pytest.mark.parametrize("mark", ["'", "\u2019"])
def test_two_things_that_are_not_there_are_not_the_same(mark):
    assert not agrees(f"It isn{mark}t a cat.", f"It isn{mark}t a bus.")
    marked = marked_words(f"It isn{mark}t a cat{mark}s toy.", set(), None, frozenset())
    assert [text for kind, text in marked if kind] == [f"cat{mark}s", "toy"]


# figures ---------------------------------------------------------------------------------------------------------------


def transcript(image, plain, caption, *rounds):
    made = [{"question": q, "answer": a, "flaws": flaws, "new_nouns": new, "time": None} for q, a, flaws, new in rounds]
    return {"image": image, "plain": plain, "caption": caption, "rounds": made, "stopped": "rounds", "joined": False}


ROWS = [
    transcript("a.jpg", "A dog.", "A dog on a sofa with a cat.",
               ("Describe.", "A dog.", [], ["dog"]), ("What?", "A sofa.", [], ["sofa"]), ("what", "?", ["unsure"], [])),
    transcript("x/b.jpg", "A bus.", "A bus and a dog.",
               ("Describe.", "A bus.", [], ["bus"]), ("Who?", "A dog.", [], ["dog"])),
]  # fmt: skip


def test_figures_are_what_one_counts_by_hand(tmp_path):
    file = tmp_path / "truth.jsonl"
    file.write_text('{"image": "d/a.jpg", "objects": ["dogs", "sofa"]}\n{"image": "b.jpg", "captions": ["A bus by a tree."]}\n')
    found = analyse(ROWS, truth_in(file))
    assert (found["dialogues"], found["rounds"]) == (2, 2.5)
    assert found["unique_questions"] == pytest.approx((1 / 2 + 1) / 2)
    assert (found["unsure"], found["empty"]) == (1 / 5, 0)
    assert found["new_nouns"] == [1.0, 1.0, 0.0]
    assert found["new_true_nouns"] == [1.0, 0.5, 0.0]
    # things: dog, sofa in a; bus, tree in b. "cat" is in no image of the set, so it counts neither way.
    assert found["plain"] == {"recall": 2 / 4, "chair_i": 0.0, "chair_s": 0.0, "words": 2.0}
    assert found["enriched"] == {"recall": 3 / 4, "chair_i": 1 / 4, "chair_s": 1 / 2, "words": 6.5}
    assert "finds more" in found["verdict"]


def test_questions_are_put_to_who_has_the_caption_alone(tmp_path):
    def say(prompt):
        [message] = prompt.messages
        assert not prompt.images
        for thing in ("sofa", "dog"):
            if f"on a {thing}" in message["content"] or f"and a {thing}" in message["content"]:
                return f"Answer: a {thing}, I think. Question: what else?"
        return "I do not know."

    agent = Scripted(say)
    found = answered_from_captions(ROWS, agent, load_prompts()["image"])
    assert found == {"questions": 2.0, "plain": 0.0, "enriched": 1.0}  # the first ones and the unsure one are not asked
    assert len(agent.prompts) == 4
    comparison_page(tmp_path / "page.html", ROWS, carried=found)
    assert "Of 2 questions of the dialogues, 0.0 % are answered" in (tmp_path / "page.html").read_text()
    with pytest.raises(AgentError, match="ceiling"):
        answered_from_captions(ROWS, Scripted([CostCeiling("the ceiling")]), load_prompts()["image"])
    failing = Scripted([AgentError("HTTP 500")])
    assert answered_from_captions(ROWS, failing, load_prompts()["image"])["enriched"] == 0.0


@pytest.mark.parametrize(
    ("said", "answer", "agreed"),
    [
        ("On a red sofa.", "It is a sofa.", True),
        ("On a chair.", "It is a sofa.", False),
        ("I don't know, a sofa?", "It is a sofa.", False),
        ("", "It is a sofa.", False),
        ("Yes.", "yes, it is", True),
        ("No.", "yes", False),
        ("Two of them", "two", True),
    ],
)
def test_what_agrees_with_an_answer(said, answer, agreed):
    assert agrees(said, answer) is agreed


def test_the_verdict_says_when_hallucination_rises_faster():
    figures = {"recall": 0.5, "chair_i": 0.1, "words": 10}
    assert "faster" in verdict(figures, {"recall": 0.6, "chair_i": 0.3, "words": 30})
    assert "finds more" in verdict(figures, {"recall": 0.7, "chair_i": 0.2, "words": 30})
    assert "finds no more" in verdict(figures, {"recall": 0.5, "chair_i": 0.1, "words": 30})


def test_new_nouns_are_marked_true_or_false():
    there, vocabulary = frozenset({"dog", "sofa"}), frozenset({"dog", "sofa", "bus"})
    pieces = marked_words("A dog, sofas & a bus.", {"dog"}, there, vocabulary)
    assert "".join(text for _, text in pieces) == "A dog, sofas & a bus."
    assert [(kind, text) for kind, text in pieces if kind] == [("true", "sofas"), ("false", "bus")]
    assert ("new", "bus") in marked_words("A bus.", set(), None, frozenset())


def test_the_page_escapes_what_models_say(tmp_path, files):
    nasty = transcript(str(files[0]), "<script>alert(1)</script>", "A <b>cat</b>.", ("<i>?", "<img src=x>", ["empty"], []))
    comparison_page(tmp_path / "page.html", [nasty, *ROWS], {"a.jpg": ["dog"]})
    text = (tmp_path / "page.html").read_text()
    assert not any(tag in text for tag in ("<script", "<i>?", "<img src=x", "<b>"))
    assert "&lt;script&gt;" in text
    assert "data:image/jpeg;base64," in text
    assert "http://" not in text.replace("http-equiv", "")


def test_what_is_no_dialogue_is_said(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text('{"image": "a.jpg", "dialogue": 3}\n')
    with pytest.raises(UserError, match=r"x\.jsonl:1: no dialogue"):
        transcripts_in(file)
    with pytest.raises(UserError, match=r"x\.jsonl:1: expected"):
        truth_in(file)
