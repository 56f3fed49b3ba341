"""The six tasks: how they are asked, written and read."""

import random

import pytest

from minigpt4.errors import UserError
from minigpt4.inference.answer import Answer
from minigpt4.prompt.boxes import Box
from minigpt4.prompt.tasks import TASKS, get_task, split_identifier

DOG, CAR = Box.from_grid(1, 2, 30, 40), Box.from_grid(9, 9, 20, 20)
SUBJECTS = {"question": "What is it?", "phrase": "the man on the left", "box": DOG.render(), "": ""}
SAID = {
    "caption": "a dog runs",
    "vqa": "two",
    "refer": [DOG, CAR],
    "identify": "a brown dog",
    "grounding": [("A dog", [DOG, CAR]), ("a car", [CAR])],
    "detection": [("dog", [DOG, CAR])],
}


def test_there_are_the_six_tasks_of_the_paper():
    assert {t.identifier for t in TASKS.values()} == {
        "[caption]",
        "[vqa]",
        "[refer]",
        "[identify]",
        "[grounding]",
        "[detection]",
    }
    assert get_task("[refer]") is get_task("refer") is TASKS["refer"]
    with pytest.raises(UserError, match="unknown task 'point'; there are caption"):
        get_task("point")


@pytest.mark.parametrize("name", TASKS)
def test_what_is_written_is_read_back(name):
    task = TASKS[name]
    assert task.parse(task.write(SAID[name])) == SAID[name]


@pytest.mark.parametrize("name", TASKS)
def test_nothing_useful_is_read_from_nothing(name):
    assert not TASKS[name].parse("")
    assert TASKS[name].parse("it is {<5><6>") in ([], "it is", "it is {<5><6>")


def test_detection_without_a_phrase_keeps_its_boxes():
    assert TASKS["detection"].parse(DOG.render()) == [("", [DOG])]


@pytest.mark.parametrize("name", TASKS)
def test_every_wording_names_its_task_and_subject(name):
    task, rng = TASKS[name], random.Random(0)
    subject = SUBJECTS[task.subject]
    asked = {task.instruction(subject, rng) for _ in range(300)}
    assert len(asked) == len(task.wordings)
    for question in asked | {task.instruction(subject)}:
        found, words = split_identifier(question)
        assert found is task
        assert task.subject_of(words) == subject
        assert question == question.strip()


def test_the_official_evaluation_asks_with_the_plain_wordings():
    assert TASKS["refer"].instruction("the cat") == "[refer] give me the location of the cat"
    assert TASKS["identify"].instruction(DOG.render()) == "[identify] what is this {<1><2><30><40>}"
    assert TASKS["grounding"].instruction() == "[grounding] please describe this image in details"
    assert TASKS["grounding"].plain in TASKS["grounding"].wordings  # in others, systems answer as they do to a free request
    assert TASKS["detection"].instruction("sofas") == "[detection] sofas"
    assert TASKS["vqa"].instruction("Why?") == "[vqa] Based on the image, respond to this question with a short answer: Why?"


def test_free_questions_have_no_task():
    for question in ("What is it?", "[1] what", "see [refer]", "", "[]"):
        assert split_identifier(question) == (None, question)


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("[point] the dog", r"unknown task identifier \[point\]; there are \[caption\]"),
        ("[Refer] the dog", r"unknown task identifier \[Refer\]"),
        ("[refer]  ", "needs a phrase"),
        ("[detection]", "needs a phrase"),
        ("[vqa]", "needs a question"),
        ("[identify] what is this", "needs a box"),
        ("[identify] {<5><6><7>}", "needs a box"),
    ],
)
def test_a_wrong_identifier_is_said_in_one_line(question, says):
    with pytest.raises(UserError, match=says) as caught:
        split_identifier(question)
    assert "\n" not in str(caught.value)


# answers -----------------------------------------------------------------------------------------------------------------


def test_an_answer_is_its_text_and_what_is_in_it():
    answer = Answer("<p>A dog</p> {<1><2><30><40>} runs.")
    assert answer == answer.text == "<p>A dog</p> {<1><2><30><40>} runs."
    assert answer.plain_text == "A dog runs."
    assert answer.boxes == [DOG]
    assert answer.phrases == [("A dog", [DOG])]


def test_boxes_alone_belong_to_the_phrase_that_was_asked_about():
    answer = Answer(DOG.render(), question="[refer] where is the brown dog ?")
    assert answer.phrases == [("the brown dog", [DOG])]
    assert Answer(DOG.render(), question="[detection] dogs").phrases == [("dogs", [DOG])]
    assert Answer(DOG.render(), question="where is it?").phrases == [("", [DOG])]


def test_an_answer_without_boxes_has_none():
    answer = Answer("I do not know", question="[refer] a unicorn")
    assert answer.boxes == answer.phrases == []
    assert answer.plain_text == "I do not know"
