"""Benchmarks from annotations to a table: what is asked, kept, continued and scored."""

import json

import pytest
from PIL import Image

from minigpt4 import cli
from minigpt4.cli.batch import Bar
from minigpt4.cli.options import System
from minigpt4.errors import UserError
from minigpt4.evaluate.benchmarks.base import Against
from minigpt4.evaluate.benchmarks.registry import BENCHMARKS
from minigpt4.evaluate.run import compare, score_answers
from minigpt4.prompt.tasks import split_identifier

HERE, THERE = [[0.1, 0.1, 0.5, 0.5]], [[0.6, 0.6, 1.0, 1.0]]
FIRST, SECOND = "{<10><10><50><50>}", "{<60><60><100><100>}"


class Knowing:
    """A system that knows where the dog is, if it is shown a picture that is not grey, and remembers what it was asked."""

    def __init__(self):
        self.asked: list[str] = []
        self.stop_after = None

    def ask_many(self, items, batch_size, **generation):
        answers = []
        for (image,), question in items:
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            split_identifier(question)
            self.asked.append(question)
            answers.append(SECOND if isinstance(image, Image.Image) else FIRST)
        return answers


@pytest.fixture
def system(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for i in range(6):
        Image.new("RGB", (20, 10), (i, 200, 30)).save(tmp_path / f"{i}.png")
    rows = [{"image": f"{i}.png", "phrase": f"dog {i}", "boxes": HERE if i < 5 else THERE} for i in range(6)]
    (tmp_path / "dogs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    knowing = Knowing()
    monkeypatch.setattr(System, "load", lambda _: knowing)
    return knowing


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["minigpt4", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return left.value.code or 0, out, err

    return run


def accuracy(out: str, line: int = 0) -> float:
    return json.loads(out)["lines"][line]["accuracy@0.5"]["value"]


def test_answers_are_kept_and_scored_again_without_the_system(run, system, tmp_path):
    status, out, err = run("refer", "dogs.jsonl", "--blank-image", "--json", "--grid", 4)
    assert status == 0
    assert "answers are kept in refer-dogs.jsonl" in err
    assert accuracy(out) == pytest.approx(5 / 6, abs=1e-5)
    assert accuracy(out, 1) == pytest.approx(1 / 6, abs=1e-5)  # blank-image
    assert len(system.asked) == 12
    again = run("refer", "dogs.jsonl", "--blank-image", "--json", "--grid", 4)
    assert again[1] == out
    assert len(system.asked) == 12
    kept = ["score", "refer-dogs.jsonl", "--blank-image", "refer-dogs.blank-image.jsonl", "--json", "--grid", 4]
    assert json.loads(run(*kept)[1])["lines"] == json.loads(out)["lines"]
    assert "accuracy@0.5" in run("score", "refer-dogs.jsonl")[1]


def test_the_blank_image_are_asked_each_question_once(run, system, tmp_path):
    rows = [{"image": f"{i}.png", "captions": ["A dog."]} for i in range(6)]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = run("captions", "--references", "captions.jsonl", "--blank-image", "--json", "--batch-size", 2)[1]
    assert json.loads(out)["items"] == 6
    assert system.asked == ["[caption] Briefly describe this image."] * 7


def test_a_run_that_was_stopped_goes_on(run, system):
    system.stop_after = 4
    assert run("refer", "dogs.jsonl", "--batch-size", 2, "--json")[0] == 130
    system.stop_after = None
    status, out, _ = run("refer", "dogs.jsonl", "--batch-size", 2, "--json")
    assert status == 0
    assert json.loads(out)["items"] == 6
    assert sorted(system.asked) == sorted(f"[refer] give me the location of dog {i}" for i in range(6))


def test_a_limit_draws_the_same_questions(run, system):
    assert json.loads(run("refer", "dogs.jsonl", "--limit", 3, "--json")[1])["items"] == 3
    first = list(system.asked)
    assert json.loads(run("refer", "dogs.jsonl", "--limit", 3, "--predictions", "other.jsonl", "--json")[1])["items"] == 3
    assert system.asked[3:] == first
    run("refer", "dogs.jsonl", "--json")  # all of them: the three are kept
    assert len(system.asked) == 3 + 3 + 3


@pytest.mark.parametrize("stop", [None, 7])
def test_what_the_last_run_asked_is_what_is_scored(run, system, tmp_path, stop):
    """Corrected annotations and another wording left their rows in the file, and `score` counted both."""
    run("refer", "dogs.jsonl")
    text = (tmp_path / "dogs.jsonl").read_text()
    (tmp_path / "dogs.jsonl").write_text(text.replace(json.dumps(THERE), json.dumps(HERE)))
    system.stop_after = stop and stop - 1  # killed before the one that is new: five of six are there
    status, out, _ = run("refer", "dogs.jsonl", "--json")
    system.stop_after = None
    if stop is None:
        assert (status, accuracy(out)) == (0, 1.0)
    found = json.loads(run("score", "refer-dogs.jsonl", "--json")[1])
    assert (found["items"], accuracy(json.dumps(found))) == (6 if stop is None else 5, 1.0)
    (tmp_path / "dogs.jsonl").write_text(text)
    assert accuracy(run("refer", "dogs.jsonl", "--json")[1]) == pytest.approx(5 / 6, abs=1e-5)  # taken back, not asked again
    assert len(system.asked) == (7 if stop is None else 6)
    assert accuracy(run("score", "refer-dogs.jsonl", "--json")[1]) == pytest.approx(5 / 6, abs=1e-5)


def test_a_smaller_limit_is_scored_as_such_and_loses_nothing(run, system, tmp_path):
    run("refer", "dogs.jsonl")
    run("refer", "dogs.jsonl", "--limit", 2)
    assert json.loads(run("score", "refer-dogs.jsonl", "--json")[1])["items"] == 2
    run("refer", "dogs.jsonl")
    assert json.loads(run("score", "refer-dogs.jsonl", "--json")[1])["items"] == 6
    assert len(system.asked) == 6
    assert "earlier" not in (tmp_path / "refer-dogs.jsonl").read_text()


FITTED = "fixed boxes are fitted to the questions themselves, which flatters them"


def blank_lines(out):
    return [line["name"] for line in json.loads(out)["lines"] if "blank-image" in line["name"]]


def test_older_answers_about_a_grey_image_do_not_take_questions_away(run, system, tmp_path):
    (tmp_path / "run").mkdir()
    given = ["refer", "dogs.jsonl", "--predictions", "run"]
    run(*given, "--limit", 2, "--blank-image")
    run(*given)
    out = run("score", "run", "--json")[1]
    assert json.loads(out)["items"] == 6
    assert not blank_lines(out)
    why = "run/answers.blank-image.jsonl answers 2 of 6 questions as they were asked; its line is left out"
    assert why in json.loads(out)["notes"]
    out = run("score", "run", "--blank-image", "run/answers.blank-image.jsonl", "--json")[1]  # it is wished
    assert json.loads(out)["items"] == 2
    assert blank_lines(out)
    told = "run/answers.blank-image.jsonl answers 2 of 6 questions; the others are not scored"
    assert told in json.loads(out)["notes"]
    run(*given, "--blank-image")
    out = run("score", "run", "--json")[1]
    assert (json.loads(out)["items"], len(blank_lines(out)), json.loads(out)["notes"]) == (6, 1, [FITTED])
    run(*given, "--limit", 3)  # more is answered than is asked: it fits
    assert blank_lines(run("score", "run", "--json")[1])


def test_answers_about_a_grey_image_in_other_words_or_of_others_are_not_set_beside(run, system, tmp_path):
    (tmp_path / "run").mkdir()
    run("refer", "dogs.jsonl", "--predictions", "run", "--blank-image")
    blank = tmp_path / "run/answers.blank-image.jsonl"
    text = blank.read_text()
    blank.write_text(text.replace("[refer] give me", "give me"))
    out = run("score", "run", "--json")[1]
    assert (json.loads(out)["items"], blank_lines(out)) == (6, [])
    assert json.loads(out)["notes"] == [FITTED, f"{blank.relative_to(tmp_path)}: no answers in it; its line is left out"]
    notes = json.loads(run("score", "run", "--blank-image", blank, "--json")[1])["notes"]
    assert notes == [FITTED, f"{blank}: 6 of 6 questions were asked in other words there"]
    blank.write_text(text.replace(" blank_image", " num_beams=3 blank_image"))
    out = run("score", "run", "--json")[1]
    assert (json.loads(out)["items"], blank_lines(out)) == (6, [])
    assert "another system's answers" in json.loads(out)["notes"][1]
    blank.write_text("")
    assert json.loads(run("score", "run", "--json")[1])["items"] == 6


def test_answers_by_somebody_else_are_not_taken(run, system):
    run("refer", "dogs.jsonl")
    status, _, err = run("refer", "dogs.jsonl", "--num-beams", 3)
    assert status == 2
    assert "holds answers by pocket@" in err
    assert "num_beams=3" in err


def test_doubled_answers_count_once(run, system, tmp_path):
    out = run("refer", "dogs.jsonl", "--json")[1]
    file = tmp_path / "refer-dogs.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines, *lines[:4], *lines]))
    assert run("score", file, "--json")[1] == out
    assert run("refer", "dogs.jsonl", "--json")[1] == out
    assert file.read_text() == "".join(lines)


WHOLE = {
    "image": "a.jpg",
    "answer": "x",
    "question": "what?",
    "answers": ["red"],
    "captions": ["a dog"],
    "phrase": "a dog",
    "boxes": HERE,
    "asked": "poem",
    "choices": ["a", "b"],
    "truth": "a",
    "label": True,
    "statement": "it is",
    "text": "it is",
    "set": "random",
    "there": ["dog"],
    "kind": "in-domain",
    "width": 9,
    "height": 9,
    "largest": HERE[0],
}


def refusal(what, *given):
    try:
        what(*given)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", BENCHMARKS)
def test_kept_answers_that_lack_what_is_scored_are_named_by_file_line_and_field(name, tmp_path):
    phrases = [{"phrase": "a dog", "boxes": HERE}] if name == "grounding" else ["a dog"]
    whole = WHOLE | {"benchmark": name, "phrases": phrases}
    file = tmp_path / "answers.jsonl"
    other = tmp_path / "whole.jsonl"
    other.write_text(json.dumps(whole) + "\n")
    BENCHMARKS[name].report([whole], Against(blank_image=[whole]))  # with all fields, it counts
    told = set()
    for field in set(whole) - {"benchmark", "answer"}:
        less = {key: value for key, value in whole.items() if key != field}
        for row in (less, whole | {field: {"of": "another kind"}}, whole | {field: None}):
            file.write_text(json.dumps(whole | {"image": "b.jpg"}) + "\n\n" + json.dumps(row) + "\n")
            if (said := refusal(score_answers, file)) is None:
                continue
            told.add(field)
            assert said.startswith(f"{file}:3: ")
            assert field in said.split(";")[0]
            assert refusal(score_answers, other, file) == refusal(compare, other, file) == said
    assert {"image", *BENCHMARKS[name].needs} <= told


def test_a_missing_image_is_said_and_not_scored(run, system, tmp_path):
    (tmp_path / "5.png").unlink()
    status, out, err = run("refer", "dogs.jsonl", "--json")
    assert status == 1
    assert "5.png: no such file" in err
    assert json.loads(out)["items"] == 5
    assert "1 of 6 questions could not be asked" in json.loads(out)["notes"][-1]
    assert accuracy(out) == 1
    for i in range(5):
        (tmp_path / f"{i}.png").unlink()  # what is answered needs no image
    assert run("refer", "dogs.jsonl", "--json")[1] == out


def test_no_image_at_all(run, system, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    status, out, err = run("refer", "dogs.jsonl", "--images", "elsewhere")
    assert (status, out, len(system.asked)) == (2, "", 0)
    last = err.splitlines()[-1]
    assert last == "error: dogs.jsonl: none of the 6 questions could be asked (are the images in elsewhere?)"


def test_what_is_wrong_is_said_before_the_system_is_loaded(run, system, tmp_path, monkeypatch):
    lines = (tmp_path / "dogs.jsonl").read_text().splitlines(keepends=True)
    bad = ['{"image": "0.png", "phrase": "x", "boxes": []}\n', "{broken\n"]
    (tmp_path / "mixed.jsonl").write_text("".join([lines[0], bad[0], lines[1], bad[1], lines[5]]))
    (tmp_path / "5.png").unlink()
    errors: list[str] = []
    said: list[list[str]] = []  # by the time the system is loaded

    def load(_):
        said.append(list(errors))
        return system

    monkeypatch.setattr(System, "load", load)
    monkeypatch.setattr(Bar, "wrong", lambda self, message: errors.append(message))

    status, out, _ = run("refer", "mixed.jsonl", "--json")
    assert status == 1
    assert [[message.split(": ")[0] for message in before] for before in said] == [
        ["mixed.jsonl:2", "mixed.jsonl:4", "refer, 5.png"]
    ]
    assert len(system.asked) == json.loads(out)["items"] == 2
    notes = json.loads(out)["notes"]
    assert any(
        note.startswith("2 rows of the annotations cannot be used and were not asked, the first: mixed.jsonl:2")
        for note in notes
    )
    (tmp_path / "bad.jsonl").write_text("".join(bad))
    status, out, err = run("refer", "bad.jsonl")
    assert (status, out, len(said)) == (2, "", 1)
    assert err.startswith('error: bad.jsonl:1: "boxes" must be a list')


def test_what_was_said_twice_is_asked_and_counted_twice(run, system, tmp_path):
    lines = (tmp_path / "dogs.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "twice.jsonl").write_text("".join([*lines, lines[5]]))
    out = run("refer", "twice.jsonl", "--json")[1]
    assert json.loads(out)["items"] == 7
    assert accuracy(out) == pytest.approx(5 / 7, abs=1e-5)
    assert json.loads(run("score", "refer-twice.jsonl", "--json")[1])["items"] == 7


def test_detection_of_things(run, system, tmp_path):
    row = {"image": "0.png", "boxes_xyxy_norm": {"1": HERE[0:1], "2": THERE}}
    phrases = [{"phrase": "A wet dog", "id": "1", "types": ["animals"]}, {"phrase": "she", "id": "2", "types": ["people"]}]
    (tmp_path / "e.jsonl").write_text(json.dumps(row | {"captions": [{"caption": "", "phrases": phrases}]}) + "\n")
    status, out, _ = run("detection", "e.jsonl", "--things", "dog, people", "--json")
    assert status == 0
    assert system.asked == ["[detection] dog", "[detection] people"]
    assert json.loads(out)["lines"][0]["recall@0.5"]["value"] == 1 / 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["refer", "gone.jsonl"], "gone.jsonl: no such file"),
        (["refer", "dogs.jsonl", "--split", "dev"], "no rows of split 'dev'"),
        (["refer", "dogs.jsonl", "--images", "nowhere"], "nowhere: no such folder"),
        (["refer", "dogs.jsonl", "--prior-split", "train"], "--prior-split goes with --prior"),
        (["detection", "dogs.jsonl", "--things", "unicorn"], "nothing to ask for"),
        (["score", "dogs.jsonl"], "dogs.jsonl:1: is no answer to a benchmark's question"),
        (["score", "gone.jsonl"], "gone.jsonl: No such file"),
    ],
)
def test_mistakes_are_one_line_each(run, system, arguments, says):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert not system.asked
