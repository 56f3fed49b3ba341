"""The verbs that point: what the language model is asked, with which settings, and what comes of its answer."""

import io
import json

import pytest
from conftest import tiny_model, tiny_processor
from PIL import Image

from minigpt4 import cli
from minigpt4.cli.options import System
from minigpt4.engine.completion import Completion, Piece
from minigpt4.engine.engine import Engine
from minigpt4.errors import UserError
from minigpt4.inference.assistant import Assistant
from minigpt4.prompt.boxes import Box

DOG = Box.from_grid(10, 20, 50, 60)


class Told(Assistant):
    """A system whose language model says what it is told to, and remembers what it was asked."""

    def __init__(self, says: str = DOG.render(), task_settings: dict | None = None):
        model = tiny_model()
        super().__init__(model, tiny_processor(model.config), task_settings=task_settings)
        self.says, self.asked = says, []
        self.engine = ToldEngine(self)


class ToldEngine(Engine):
    """Opens the images as any engine does, and says what it is told to."""

    def __init__(self, told):
        super().__init__(told.model, told.processor)
        self.told = told

    def generate(self, requests, batch_size=None):
        done = []
        for request in requests:
            self.encode(request.images)
            question = request.messages[-1]["content"].removeprefix("<Img><ImageHere></Img> ")
            self.told.asked.append((question, request.params))
            done.append([Completion(text=self.told.says, token_ids=(), finish_reason="stop")] * request.params.n)
        return done

    def stream(self, request):
        ((done,),) = self.generate([request])
        first, blank, rest = done.text.partition(" ")
        yield Piece(0, first)
        yield Piece(0, blank + rest, completion=done)


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
        ("ground", [], "[grounding] please describe this image in details"),
        ("identify", ["20,20,100,60"], "[identify] what is this {<10><20><50><60>}"),
        ("identify", [DOG], "[identify] what is this {<10><20><50><60>}"),
        ("vqa", ["Why?"], "[vqa] Based on the image, respond to this question with a short answer: Why?"),
        ("caption", [], "[caption] Briefly describe this image."),
    ],
)
def test_the_llm_is_asked_in_the_official_words(photo, verb, arguments, question):
    told = Told()
    answer = getattr(told, verb)(photo, *arguments, max_new_tokens=7)
    assert [asked for asked, _ in told.asked] == [question]
    assert told.asked[0][1].max_new_tokens == 7
    assert answer == told.says
    assert answer.image == photo


def test_what_is_found_can_be_read_and_drawn(photo):
    answer = Told().refer(photo, "the dog")
    assert answer.boxes == [DOG]
    assert answer.phrases == [("the dog", [DOG])]
    assert answer.draw().size == (600, 300)
    assert Told("a brown dog").identify(photo, DOG).draw().tobytes() != Told("a cat").identify(photo, DOG).draw().tobytes()
    assert Told("nothing").refer(photo, "the dog").boxes == []


def test_an_identifier_by_hand_is_the_same_question(photo):
    told = Told(task_settings={"refer": {"num_beams": 2}})
    told.refer(photo, "the dog")
    told.ask(photo, "[refer] give me the location of the dog")
    told.chat(photo).ask("[refer] give me the location of the dog")
    assert told.asked[0] == told.asked[1] == told.asked[2]
    assert told.asked[0][1].num_beams == 2


def test_long_answers_get_room_unless_told_otherwise(photo):
    told = Told()
    told.ground(photo)
    told.ground(photo, max_new_tokens=20)
    told.ask(photo, "Describe it.")
    assert [params.max_new_tokens for _, params in told.asked] == [400, 20, 512 // 4]


def test_a_batch_of_different_tasks_keeps_its_order_and_settings(photo):
    told = Told(task_settings={"caption": {"num_beams": 3}})
    told.says = "x"
    questions = ["[caption]", "Why?", "[caption]", "[grounding] please describe this image in details"]
    answers = told.ask_many([(photo, question) for question in questions])
    assert [answer.question for answer in answers] == questions
    assert {question: (params.num_beams, params.max_new_tokens) for question, params in told.asked} == {
        "[caption]": (3, 128),
        "Why?": (1, 128),
        "[grounding] please describe this image in details": (1, 400),
    }


def test_mixed_batches_answer_as_single_questions_do(photo):
    """With a real, tiny language model."""
    model = tiny_model()
    assistant = Assistant(model.float(), tiny_processor(model.config), task_settings={"caption": {"num_beams": 2}})
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


# the command line --------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command with a system that says what it is told to; returns status, standard output and standard error."""

    def run(says: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(System, "load", lambda _: Told(says))
        monkeypatch.setattr("sys.argv", ["minigpt4", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return left.value.code or 0, out, err

    return run


def test_refer_prints_pixels_that_identify_takes(run, photo, tmp_path):
    assert run("{<10><20><50><60>}", "refer", photo, "the dog", "--draw", tmp_path / "drawn.png") == (0, "20,20,100,60\n", "")
    assert Image.open(tmp_path / "drawn.png").size == (600, 300)
    assert run("a brown dog", "identify", photo, "20,20,100,60") == (0, "a brown dog\n", "")


def test_several_phrases_are_named(run, photo):
    text = "<p>dogs</p> {<0><0><50><50>}<delim>{<50><50><100><100>} and <p>a cat</p> {<10><20><50><60>}"
    lines = ["dogs: 0,0,100,50", "dogs: 100,50,200,100", "a cat: 20,20,100,60"]
    assert run(text, "detect", photo, "dogs and cats")[1].splitlines() == lines
    assert run(text, "ground", photo)[1].splitlines() == ["dogs and a cat", *lines]
    again = run(text, "ground", photo, "--zoom-in")[1].splitlines()  # asked about each thing, it says all of that again
    places = [line.split(": ")[1] for line in lines]
    assert again == ["dogs and a cat", *(f"{thing}: {place}" for thing in ("dogs", "a cat") for place in places)]
    assert "zoom_in goes with [grounding]" in run(text, "refer", photo, "a cat", "--zoom-in")[2]


def test_json_gives_pixels_and_relative_coordinates(run, photo):
    status, out, _ = run("<p>the dog</p> {<10><20><50><60>}", "ask", photo, "[detection] the dog", "--json")
    place = {"pixels": [20.0, 20.0, 100.0, 60.0], "relative": [0.1, 0.2, 0.5, 0.6]}
    assert status == 0
    assert json.loads(out) == {
        "image": str(photo),
        "question": "[detection] the dog",
        "answer": "<p>the dog</p> {<10><20><50><60>}",
        "text": "the dog",
        "width": 200,
        "height": 100,
        "phrases": [{"phrase": "the dog", "boxes": [place]}],
    }
    row = json.loads(run("{<10><20><50><60>}", "refer", photo, "the dog", "--json")[1])
    assert row["phrases"] == [{"phrase": "the dog", "boxes": [place]}]
    assert json.loads(run("a dog", "identify", photo, "0.1,0.2,0.5,0.6", "--json")[1])["box"] == place


def test_an_answer_without_boxes_is_said_and_is_no_failure(run, photo, tmp_path):
    status, out, err = run("who knows", "refer", photo, "a unicorn", "--draw", tmp_path / "drawn.png")
    assert (status, out, err) == (0, "", "no box in the answer: who knows\n")
    assert (tmp_path / "drawn.png").exists()
    assert run("who knows", "refer", photo, "a unicorn", "--draw", tmp_path / "new" / "drawn.png")[0] == 0
    assert (tmp_path / "new" / "drawn.png").exists()  # as --output does
    assert json.loads(run("who knows", "refer", photo, "a unicorn", "--json")[1])["phrases"] == []


def test_a_box_may_be_drawn_with_any_paint_program(run, photo, tmp_path):
    mask = Image.new("RGB", (400, 200))
    mask.paste((255, 0, 0), (40, 40, 200, 120))
    mask.save(tmp_path / "mask.png")
    row = json.loads(run("a dog", "identify", photo, "--mask", tmp_path / "mask.png", "--json")[1])
    assert row["box"]["relative"] == [0.1, 0.2, 0.49, 0.59]
    Image.new("RGB", (400, 200)).save(tmp_path / "empty.png")
    assert "nothing is drawn" in run("", "identify", photo, "--mask", tmp_path / "empty.png")[2]
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned to the right, as a telephone writes it
    mask.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=turned)
    assert json.loads(run("a dog", "identify", photo, "--mask", tmp_path / "turned.png", "--json")[1])["box"] == row["box"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["refer", "PHOTO", " "], "[refer] needs a phrase"),
        (["ask", "PHOTO", "[point] the dog"], "unknown task identifier [point]"),
        (["ask", "PHOTO", "PHOTO", "why?", "--draw", "x.png"], "--draw needs a question about one photo"),
        (["identify", "PHOTO"], "identify needs a box"),
        (["identify", "PHOTO", "0,0,900,50"], "not inside the picture, which is 200 x 100"),
        (["identify", "PHOTO", "right of the tree"], "is not a box"),
        (["refer", "PHOTO", "x", "--draw", "out"], "name a picture file"),
        (["refer", "PHOTO", "x", "--draw", "/dev/null/out.png"], "out.png: cannot be written ("),
        (["refer", "gone.png", "x"], "gone.png: no such file"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line_each(run, photo, arguments, says):
    status, out, err = run("x", *(photo if a == "PHOTO" else a for a in arguments))
    assert (status, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("as_json", [True, False])
def test_a_conversation_draws_its_last_answer(run, photo, tmp_path, monkeypatch, as_json):
    said = (
        f"/draw {tmp_path}/early.png\n[detection] dogs\n/draw {tmp_path}/drawn.png\n/draw\n/reset\n/draw {tmp_path}/late.png\n"
    )
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    status, out, err = run("<p>dogs</p> {<10><20><50><60>}", "chat", photo, *(["--json"] if as_json else []))
    assert status == 1  # lines of a pipe were in error
    assert Image.open(tmp_path / "drawn.png").size == (600, 300)
    assert {path.name for path in tmp_path.iterdir()} == {"photo.png", "drawn.png"}
    assert err.count("there is no answer yet to draw") == 2
    assert err.count("/draw needs a file") == 1
    assert ("phrases" in json.loads(out)) if as_json else out == "<p>dogs</p> {<10><20><50><60>}\n"
