"""Choosing the likeliest of given answers, and the steps of evaluation as commands: run, score, prepare, compare."""

import json

import pytest
from conftest import tiny_model, tiny_processor
from PIL import Image
from test_evaluate_official import TEN, lines

from minigpt4 import cli
from minigpt4.cli.options import System
from minigpt4.evaluate.ranking import candidate_losses, choose
from minigpt4.evaluate.run import compare
from minigpt4.inference.assistant import Assistant
from minigpt4.prompt.templates import with_images

# choosing ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def assistant():
    model = tiny_model()
    return Assistant(model, tiny_processor(model.config))


def test_the_likeliest_candidate_is_chosen(assistant, tmp_path):
    images = []
    for i in range(3):
        images.append(tmp_path / f"{i}.png")
        Image.new("RGB", (32, 32), (80 * i, 200 - 50 * i, 30)).save(images[-1])
    candidates = [("red", "blue", "green"), ("yes", "no"), ("1", "22", "333")]
    items = [([image], "which?", given) for image, given in zip(images, candidates, strict=True)]
    chosen = choose(assistant, items)
    assert chosen == [choose(assistant, [item])[0] for item in items]
    processor = assistant.processor
    for (shown, asked, given), best in zip(items, chosen, strict=True):
        embeds = assistant.engine.encode(shown)[0].embeds[None]
        prompt = processor.chat.training_prompt(with_images(asked, 1))
        (losses,) = candidate_losses(assistant.model, processor, [prompt], embeds, [given])
        assert losses[given.index(best)] == min(losses)


def test_official_systems_choose_by_the_official_measure(monkeypatch):
    model = tiny_model()
    system = Assistant(model, tiny_processor(model.config, "minigpt-v2"))
    likely = str(system.ask([], "why?", max_new_tokens=20, min_new_tokens=20))  # long, and made of likely tokens
    given = ["why", likely]
    monkeypatch.setattr(system, "official", True)
    (losses,) = candidate_losses(model, system.processor, ["[INST] why? [/INST]"], None, [given], official=True)
    (own,) = candidate_losses(model, system.processor, ["[INST] why? [/INST]"], None, [given])
    best, by_own = given[losses.index(min(losses))], given[own.index(min(own))]
    assert choose(system, [([], "why?", given)]) == [best]
    monkeypatch.setattr(system, "official", False)
    assert choose(system, [([], "why?", given)]) == [by_own] != [best]


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, assistant):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(System, "load", lambda _: assistant)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["minigpt4", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def own(tmp_path):
    """Six questions of one's own with choices, about six images."""
    rows = []
    for i in range(6):
        Image.new("RGB", (32, 32), (40 * i, 100, 30)).save(tmp_path / f"{i}.png")
        rows.append({"image": f"{i}.png", "question": f"Which {i}?", "choices": ["red", "blue", "green"], "answer": i % 3})
    (tmp_path / "own.jsonl").write_text(lines(*rows[:4], rows[4] | {"answer": "green"}, rows[5] | {"answer": 9}))
    return tmp_path / "own.jsonl"


def test_three_steps(run, own, tmp_path, monkeypatch, assistant):
    command = ("run", "choice", "--data", "own.jsonl", "--output", "out", "--blank-image", "--json")
    status, out, err = run(*command)
    assert status == 1  # one of the rows cannot be used
    assert 'own.jsonl:6: "answer" must be the number of a choice' in err
    report = json.loads(out)
    assert report["items"] == 5
    assert report == json.loads((tmp_path / "out" / "report.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert all(row["answer"] in row["choices"] for row in rows)
    assert all(row["prompt"].endswith(row["question"]) for row in rows)
    monkeypatch.setattr(System, "load", lambda _: pytest.fail("nothing is left to ask"))
    assert run(*command)[1] == out
    assert json.loads(run("score", "out", "--json")[1])["lines"] == report["lines"]
    assert "chance" in run("score", "out")[1]
    assert run("run", "choice", "--data", "own.jsonl", "--output", "other", "--num-beams", 3)[2].startswith(
        "error: choice ranks given answers: num_beams would change nothing"
    )
    assert run("run", "chess", "--data", "own.jsonl", "--output", "other")[2].startswith("error: chess: no such benchmark")


def test_preparing_on_the_command_line(run, tmp_path):
    status, out, err = run("prepare", "vizwiz", "--data", ".")
    assert (status, err) == (1, "")
    assert "missing: val.json or Annotations/val.json: from https://vizwiz.org" in out
    (tmp_path / "val").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "val" / "a.jpg")
    (tmp_path / "val.json").write_text(json.dumps([{"image": "a.jpg", "question": "?", "answers": TEN}]))
    status, out, err = run("prepare", "vizwiz", "--data", ".")
    assert (status, err) == (0, "")
    assert out.endswith("1 questions about 1 images, 0 of which are not there\n")


# comparing -------------------------------------------------------------------------------------------------------------------


def test_two_runs_are_compared_question_by_question(run, tmp_path):
    """B is right where A is, and in 10 questions more: what is hard for both cancels out in the difference."""
    rows = [{"benchmark": "vsr", "image": f"{i}", "statement": "x", "label": True} for i in range(200)]

    def write(name, right, of=rows):
        kept = [row | {"answer": "true" if right(i) else "false", "by": name} for i, row in enumerate(of)]
        (tmp_path / name).write_text(lines(*kept))
        return tmp_path / name

    a, b = write("a", lambda i: i < 100), write("b", lambda i: i < 110)
    report = compare(a, b)
    one, two, ahead = report.lines
    assert [line.name for line in report.lines] == ["A", "B", "A - B"]
    assert (one.scores["accuracy"].value, two.scores["accuracy"].value) == (0.5, 0.55)
    difference = ahead.scores["accuracy"]
    assert difference.value == pytest.approx(-0.05)
    assert difference.low < difference.value < difference.high < 0
    assert difference.high - difference.low < (one.scores["accuracy"].high - one.scores["accuracy"].low) / 2
    # the interval of a mean of 200 values of 0 and -1, 5 % of them -1: 1.96 * sqrt(0.05 * 0.95 / 200)
    assert difference.high - difference.low == pytest.approx(2 * 1.96 * (0.05 * 0.95 / 200) ** 0.5, rel=0.15)
    some = write("some", lambda i: True, rows[50:])
    report = compare(a, some)
    assert report.items == 150
    assert report.notes[-1] == "50 answers to questions that only one of them has are left out"
    assert "A - B" in run("compare", a, b)[1]
    assert "(a)" in run("compare", a, b)[1]
    (tmp_path / "other").write_text(
        lines({"benchmark": "choice", "image": "1", "question": "?", "choices": ["a"], "truth": "a", "answer": "a"})
    )
    assert run("compare", a, "other")[2] == f"error: {a} has answers to vsr, other to choice: they cannot be compared\n"
