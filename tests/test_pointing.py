"""The verbs that point: what the mind is asked, with which settings, and what comes of its answer."""

import pytest
from conftest import tiny_model, tiny_processor
from PIL import Image

from minigpt4.assistant import Assistant
from minigpt4.errors import UserError
from minigpt4.prompt.answer import Answer
from minigpt4.prompt.boxes import Box

DOG = Box.from_grid(10, 20, 50, 60)


class Told(Assistant):
    """A system whose mind says what it is told to, and remembers what it was asked."""

    def __init__(self, says: str = DOG.render(), task_generation: dict | None = None):
        model = tiny_model(task_generation=task_generation)
        super().__init__(model, tiny_processor(model.config))
        self.says, self.asked = says, []

    def complete(self, conversations, image_embeds, **generation):
        for conversation in conversations:
            self.asked.append((conversation[-1]["content"].removeprefix("<Img><ImageHere></Img> "), generation))
        return [Answer(self.says)] * len(conversations)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.new("RGB", (200, 100), (90, 90, 90)).save(path)
    return path


@pytest.mark.parametrize(
    ("verb", "arguments", "question"),
    [
        ("refer", ["the dog "], "[refer] give me the location of the dog"),
        ("detect", ["dogs"], "[detection] dogs"),
        ("ground", [], "[grounding] describe this image in detail"),
        ("identify", ["20,20,100,60"], "[identify] what is this {<10><20><50><60>}"),
        ("identify", [DOG], "[identify] what is this {<10><20><50><60>}"),
        ("vqa", ["Why?"], "[vqa] Based on the image, respond to this question with a short answer: Why?"),
        ("caption", [], "[caption]"),
    ],
)
def test_the_mind_is_asked_in_the_published_words(photo, verb, arguments, question):
    told = Told()
    answer = getattr(told, verb)(photo, *arguments, max_new_tokens=7)
    assert [asked for asked, _ in told.asked] == [question]
    assert told.asked[0][1]["max_new_tokens"] == 7
    assert answer == told.says
    assert answer.picture == photo


def test_what_is_found_can_be_read_and_drawn(photo):
    answer = Told().refer(photo, "the dog")
    assert answer.boxes == [DOG]
    assert answer.phrases == [("the dog", [DOG])]
    assert answer.draw().size == (600, 300)
    assert Told("a brown dog").identify(photo, DOG).draw().tobytes() != Told("a cat").identify(photo, DOG).draw().tobytes()
    assert Told("nothing").refer(photo, "the dog").boxes == []


def test_an_identifier_by_hand_is_the_same_question(photo):
    told = Told(task_generation={"refer": {"num_beams": 2}})
    told.refer(photo, "the dog")
    told.ask(photo, "[refer] give me the location of the dog")
    told.chat(photo).ask("[refer] give me the location of the dog")
    assert told.asked[0] == told.asked[1] == told.asked[2]
    assert told.asked[0][1] == {"num_beams": 2}


def test_long_answers_get_room_unless_told_otherwise(photo):
    told = Told()
    told.ground(photo)
    told.ground(photo, max_new_tokens=20)
    told.ask(photo, "Describe it.")
    assert [settings.get("max_new_tokens") for _, settings in told.asked] == [400, 20, None]


def test_a_batch_of_different_tasks_keeps_its_order_and_settings(photo):
    told = Told(task_generation={"caption": {"num_beams": 3}})
    told.says = "x"
    questions = ["[caption]", "Why?", "[caption]", "[grounding] describe this image in detail"]
    answers = told.ask_many([(photo, question) for question in questions])
    assert [answer.question for answer in answers] == questions
    assert dict((q, s) for q, s in told.asked) == {
        "[caption]": {"num_beams": 3},
        "Why?": {},
        "[grounding] describe this image in detail": {"max_new_tokens": 400},
    }


def test_mixed_batches_answer_as_single_questions_do(photo):
    """With a real, tiny mind."""
    model = tiny_model(task_generation={"caption": {"num_beams": 2}})
    assistant = Assistant(model.float(), tiny_processor(model.config))
    other = Image.new("RGB", (50, 80), (200, 30, 30))
    items = [(photo, "[caption]"), (other, "Why?"), (photo, "Why?"), (other, "[caption]"), (photo, "Why?")]
    together = assistant.ask_many(items, max_new_tokens=6)
    assert together == [assistant.ask(*item, max_new_tokens=6) for item in items]
    assert len(set(together)) > 1


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda m, p: m.refer(p, "  "), r"\[refer\] needs a phrase"),
        (lambda m, p: m.detect(p, ""), r"\[detection\] needs a phrase"),
        (lambda m, p: m.vqa(p, ""), r"\[vqa\] needs a question"),
        (lambda m, p: m.identify(p, "0,0,900,50"), "not inside the picture, which is 200 x 100"),
        (lambda m, p: m.identify(p, ""), "is not a box"),
        (lambda m, p: m.ask(p, "[point] x"), r"unknown task identifier \[point\]"),
        (lambda m, p: m.chat(p).ask("[point] x"), r"unknown task identifier \[point\]"),
        (lambda m, p: m.refer(str(p) + ".gone", "x"), "no such file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(photo, ask, says):
    with pytest.raises(UserError, match=says) as caught:
        ask(Told(), photo)
    assert "\n" not in str(caught.value)
