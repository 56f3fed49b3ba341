"""Benchmarks through an endpoint: the same answers and scores as from the folder, and what an endpoint cannot do."""

import base64
import json

import httpx2
import pytest
from scripted import Server, completion
from serving import assistant, picture, serving

from minigpt4 import cli
from minigpt4.cli.options import System
from minigpt4.dialogue.agents import CostCeiling
from minigpt4.dialogue.endpoint import Endpoint, Limits
from minigpt4.errors import UserError
from minigpt4.evaluate.predict import answered
from minigpt4.evaluate.ranking import choose
from minigpt4.evaluate.run import Asked, compare, run_benchmark, score_answers
from minigpt4.evaluate.served import Served, connect


@pytest.fixture(scope="module")
def system():
    return assistant()


@pytest.fixture(scope="module")
def address(system):
    with serving(system) as address:
        yield f"{address}/v1#tiny"


@pytest.fixture
def questions(tmp_path):
    """Twelve questions about four images, of which one is missing, one a PNG and one larger than any endpoint is sent."""
    for i, (color, size, kind) in enumerate([("red", (40, 30), "jpg"), ("blue", (1200, 900), "jpg"), ("green", (9, 9), "png")]):
        picture(color, size).save(tmp_path / f"{i}.{kind}")
    names = ["0.jpg", "1.jpg", "2.png", "gone.jpg"]
    rows = [{"image": name, "question": f"What is {w}?", "answer": "red"} for name in names for w in ("it", "that", "this")]
    (tmp_path / "vqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "vqa.jsonl"


def asked(questions, load, **more):
    return run_benchmark("vqa", questions, load, "somebody", batch_size=5, **more)


def test_our_own_endpoint_gives_the_answers_and_the_score_of_the_folder(questions, system, address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = asked(questions, lambda: system)
    before = answered(here.file)
    here.file.rename("here.jsonl")
    there = asked(questions, lambda: connect(address))
    after = answered(there.file)
    assert [row["answer"] for row in after] == [row["answer"] for row in before]
    assert len({row["answer"] for row in before}) > 1
    assert there.report.as_dict() == here.report.as_dict()
    assert there.problems == here.problems
    assert "gone.jpg: no such file" in there.problems[0]


@pytest.mark.parametrize(
    "settings",
    [{"max_new_tokens": 3}, {"num_beams": 2}, {"do_sample": True, "seed": 3, "temperature": 1.5}, {"do_sample": False}],
)
def test_decoding_is_what_was_asked_for(questions, system, address, settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = asked(questions, lambda: system, settings=settings)
    said = [row["answer"] for row in answered(here.file)]
    here.file.unlink()
    there = asked(questions, lambda: connect(address, settings), settings=settings)
    assert [row["answer"] for row in answered(there.file)] == said


def test_the_command_measures_what_is_served_and_refuses_what_is_for_folders(questions, address, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(System, "load", lambda self: pytest.fail("nothing is to be loaded here"))
    run = ["run", "vqa", "--data", questions, "--output", tmp_path / "out"]

    def command(*arguments):
        cli.evaluate([str(a) for a in arguments], standalone_mode=False)

    command(*run, "--model", address)
    assert "model" in capsys.readouterr().out
    row = json.loads((tmp_path / "out/answers.jsonl").read_text().splitlines()[0])
    assert row["by"] == address
    assert "parsed" in row
    for model, option, told in [
        (address, ["--dtype", "float32"], "--dtype: for a system that is loaded here"),
        (address.partition("#")[0], [], "name the endpoint's model too"),
        (address + "x", [], "has no model 'tinyx'; it has tiny"),
        ("http://127.0.0.1:9/v1#tiny", [], "cannot be reached"),
        ("pocket", ["--max-cost", "1"], "go with an endpoint"),
    ]:
        with pytest.raises(UserError, match=told):
            command(*run[:-1], tmp_path / "other", "--model", model, *option)


@pytest.fixture
def choices(questions):
    """Questions whose likeliest answer differs with the image and, as a whole, from the likeliest by its mean token."""
    given = ["a", "a b c d e f", "red and blue", "no", "no"]
    rows = [
        {"image": name, "question": f"Which, {word}?", "choices": [*given, word], "answer": i % 6}
        for name in ("0.jpg", "1.jpg", "2.png", "gone.jpg")
        for i, word in enumerate(["it", "that", "the one over there", "x", "why not", "one"])
    ]
    file = questions.parent / "choice.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_our_own_endpoint_takes_the_likeliest_of_given_answers_as_the_folder_does(
    choices, system, address, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    def measured(load):
        done = run_benchmark("choice", choices, load, "somebody", Asked(blank_image=True), batch_size=5)
        said = [
            [row["answer"] for row in answered(file)]
            for file in (done.file, done.file.with_name(f"{done.file.stem}.blank-image.jsonl"))
        ]
        for file in tmp_path.glob("choice-choice*"):
            file.unlink()
        return done, said

    here, before = measured(lambda: system)
    there, after = measured(lambda: connect(address))
    assert after == before
    assert len(set(before[0])) > 2
    assert there.report.as_dict() == here.report.as_dict()
    assert there.problems == here.problems
    rows = [json.loads(line) for line in choices.read_text().splitlines()[:18]]
    items = [([str(tmp_path / row["image"])], row["question"], row["choices"]) for row in rows]
    whole = [max(own, key=lambda score: score.logprob).text for own in system.score_many(items)]
    assert whole != choose(system, items), "a case in which the mean over tokens could be told from the whole"


def test_one_choice_that_is_refused_takes_no_other_with_it(choices, address, tmp_path):
    served, image = connect(address), str(tmp_path / "0.jpg")
    items = [([image], "Which?", ["a", "b"]), ([image], "Which?", ["a", " "]), ([image], "Which?", ["a", "a"])]
    first, refused, alone = served.choose(items)
    assert first in ("a", "b")
    assert "HTTP 400" in str(refused)
    assert "one of them is empty" in str(refused)
    assert alone == "a"
    assert served.endpoint.spent.prompt_tokens > 0


def test_what_others_serve_cannot_take_the_likeliest_and_is_refused_before_anything_is_asked(choices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server, served = other(completion("red"))
    with pytest.raises(UserError, match="choice takes the likeliest of given answers, and it at http"):
        run_benchmark("choice", choices, lambda: served, "somebody")
    assert len(server.requests) == 1  # the list of models


@pytest.mark.parametrize("reply", ["{}", '{"answers": [{"probabilities": [{"value": "a"}]}]}', "[]", "garbage"])
def test_a_reply_that_does_not_say_how_likely_answers_are_is_a_problem_of_that_question(choices, tmp_path, reply):
    _, served = other(httpx2.Response(200, text=reply))
    (said,) = served.choose([([str(tmp_path / "0.jpg")], "Which?", ["a", "b"])])
    assert isinstance(said, UserError)
    assert "does not say how likely" in str(said) or "no JSON object" in str(said)


def test_the_ceiling_holds_for_choices_too(choices, tmp_path):
    paid = httpx2.Response(
        200,
        json={
            "answers": [{"probabilities": [{"logprob": -1, "tokens": 2}, {"logprob": -3, "tokens": 3}]}],
            "usage": {"input_tokens": 2000, "output_tokens": 0},
        },
    )
    _, served = other(paid, cost=0.004)
    items = [([str(tmp_path / "0.jpg")], f"Which {i}?", ["a", "b"]) for i in range(3)]
    assert served.choose(items[:2]) == ["a", "a"]
    assert isinstance(served.choose(items[2:])[0], UserError)
    with pytest.raises(CostCeiling):
        served.choose(items[2:])


def other(*replies, **limits):
    """An endpoint of somebody else's that lists no models."""
    server = Server(httpx2.Response(404), *replies)
    endpoint = Endpoint(
        "http://there/v1",
        "it",
        side=None,
        prices=(1.0, 1.0),
        limits=Limits(concurrency=1, retries=1, **limits),
        transport=server.transport,
        sleep=lambda _: None,
    )
    return server, Served(endpoint)


def test_others_are_asked_for_their_likeliest_answer_and_sent_files_as_they_are(questions):
    server, served = other(completion("red"))
    assert served.ask_many([(questions.parent / "0.jpg", "What?")], max_new_tokens=7) == ["red"]
    body = json.loads(server.requests[-1].content)
    assert (body["temperature"], body["max_tokens"]) == (0.0, 7)
    url = body["messages"][0]["content"][0]["image_url"]["url"]
    assert base64.b64decode(url.partition(",")[2]) == (questions.parent / "0.jpg").read_bytes()
    assert served.body({"top_p": 0.9}) == {"top_p": 0.9, "temperature": 1.0}  # it samples, as on a folder
    assert served.body({"top_p": 1.0}) == {"top_p": 1.0, "temperature": 0.0}
    with pytest.raises(UserError, match="zoom_in: only `minigpt4 serve` has that"):
        served.body({"zoom_in": True})


def test_one_refused_question_takes_no_other_with_it_and_is_asked_once(questions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def reply(request):
        refused = "What is that?" in request.content.decode()
        return httpx2.Response(400, json={"error": {"message": "not that"}}) if refused else completion("red")

    server, served = other(reply)
    measured = asked(questions, lambda: served)
    assert len(answered(measured.file)) == 6
    assert sum("not that" in problem for problem in measured.problems) == 3
    assert len(server.requests) == 1 + 9  # the list of models, and each question about an image that is there


def test_the_ceiling_ends_the_run_and_what_was_answered_counts(questions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, served = other(completion("red", 100, 10), cost=0.0028)
    with pytest.raises(UserError, match=r"cost ceiling of 0.0028 is reached .* what was answered is kept in vqa-vqa.jsonl"):
        asked(questions, lambda: served)
    kept = answered(tmp_path / "vqa-vqa.jsonl")
    assert len(kept) == 3  # those that were paid for
    _, served = other(completion("red"))
    assert asked(questions, lambda: served).report.items == 9


def test_answers_in_which_nothing_can_be_read_are_counted_and_named(questions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, served = other(completion(""), completion("red"))
    measured = asked(questions, lambda: served)
    told = "1 of 9 answers cannot be read, the first about 0.jpg: ''"
    assert told in measured.notes
    assert told in score_answers(measured.file).notes


def test_the_identifier_of_the_task_can_be_left_out(questions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server, served = other(completion("red"))
    asked(questions, lambda: served, asked=Asked(identifier=False))
    said = json.loads(server.requests[-1].content)["messages"][0]["content"][-1]["text"]
    assert said.startswith("Based on the image, respond to this question")
    without = tmp_path / "vqa-vqa.jsonl"
    without.rename(tmp_path / "without.jsonl")
    asked(questions, lambda: served)
    both = compare(without, tmp_path / "without.jsonl")  # the same questions, though not in the same words
    assert both.items == 9
    assert [row["prompt"][:5] for row in (*answered(without)[:1], *answered(tmp_path / "without.jsonl")[:1])] == [
        "[vqa]",
        "Based",
    ]
