"""Every benchmark whose data is there, in one report: found, run, resumed, told."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import quick_folder
from serving import picture

from minigpt4 import cli
from minigpt4.errors import UserError
from minigpt4.evaluate.suite import find
from minigpt4.inference.assistant import Assistant

CAPTIONS = [{"image": f"{i}.jpg", "captions": ["a dog runs", "a brown dog"]} for i in range(6)]
VQA = [{"image": f"{i}.jpg", "question": "What <b>is</b> | it?", "answers": ["dog"]} for i in range(6)]
POPE = [{"question_id": i, "image": f"{i}.jpg", "text": "Is there a dog?", "label": "yes"} for i in range(6)]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def data(tmp_path):
    """Two benchmarks of one's own and an official one, about six images of which one is missing."""
    folder = tmp_path / "data"
    (folder / "pope" / "val2014").mkdir(parents=True)
    for i in range(5):
        for place in (folder, folder / "pope" / "val2014"):
            picture(("red", "green", "blue", "white", "black")[i]).save(place / f"{i}.jpg")
    (folder / "captions.jsonl").write_text(lines(CAPTIONS))
    (folder / "vqa.jsonl").write_text(lines(VQA))
    for kind in ("random", "popular", "adversarial"):
        (folder / "pope" / f"coco_pope_{kind}.json").write_text(lines(POPE))
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return quick_folder(folder / "system")


def test_data_in_folders_is_found_too(data):
    (data / "advanced" / "meme").mkdir(parents=True)
    for part in ("Sentences", "Annotations"):
        (data / "grounding" / part).mkdir(parents=True)
    (data / "refer").mkdir()  # of something else
    assert {one.name for one in find(data) if one.data.is_dir()} == {"pope", "grounding", "advanced"}


def command(*arguments):
    """The exit status."""
    return cli.evaluate([str(a) for a in arguments], standalone_mode=False)


def reports(output):
    """Both reports without the line that says when they were written."""
    texts = [(output / name).read_text() for name in ("report.md", "report.html")]
    return [re.sub(r"Written [\d :UTC-]+\.", "", text) for text in texts]


def test_what_is_there_is_found(data, tmp_path):
    assert {one.name: one.data for one in find(data)} == {
        "captions": data / "captions.jsonl",
        "vqa": data / "vqa.jsonl",
        "pope": data / "pope",
    }
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="nothing: no benchmark's data is there"):
        find(tmp_path / "nothing")
    named = data / "suite.yaml"
    named.write_text("pope: pope\nshort: {benchmark: vqa, data: vqa.jsonl, limit: 2, images: .}\n")
    pope, short = find(named)
    assert (pope.benchmark, pope.data) == ("pope", data / "pope")
    assert (short.name, short.benchmark, short.limit, short.images) == ("short", "vqa", 2, data)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- pope", "expected benchmarks by name"),
        ("pope: {limit: 3}", "pope: expected the data"),
        ("pope: {data: x, limits: 3}", "unknown key 'limits'; there are benchmark, data"),
        ("pope: {data: x, limit: '3'}", "limit must be int, found '3'"),
        ("pope: {data: x, limit: 0}", "limit must be at least 1"),
        ("popes: x", "no benchmark 'popes'; there are captions"),
        ("../pope: {benchmark: pope, data: x}", "must be text that a folder can be called by"),
        ("a: [", "not YAML"),
    ],
)
def test_a_file_that_makes_no_sense_is_one_line(tmp_path, text, told):
    (tmp_path / "suite.yaml").write_text(text)
    with pytest.raises(UserError, match=re.escape(told)) as error:
        find(tmp_path / "suite.yaml")
    assert "\n" not in str(error.value)


def test_one_report_of_all_and_what_cannot_be_measured_says_why(data, tiny, tmp_path, capsys):
    (data / "gqa").mkdir()
    (data / "gqa" / "testdev_balanced_questions.json").write_text("[]")
    output = tmp_path / "out"
    run = ["all", "--data", data, "--output", output, "--model", tiny, "--blank-image", "--max-new-tokens", 3]
    assert command(*run) == 1
    told = capsys.readouterr()
    assert "vqa (2 of 4)" in told.err
    assert "error: gqa: " in told.err
    text, page = reports(output)
    for name in ("captions", "vqa", "pope"):
        assert f"## {name}\n" in text
        report = json.loads((output / name / "report.json").read_text())
        assert report["items"] == {"captions": 5, "vqa": 5, "pope": 15}[name]
        assert [line["name"] for line in report["lines"]][:2] == ["model", "model, blank-image"]
        assert all("parsed" in json.loads(row) for row in (output / name / "answers.jsonl").read_text().splitlines())
    assert "Not measured" in text
    assert "1 of 6 questions could not be asked" in text
    assert "What \\<b\\>is\\</b\\> \\| it?" in text  # no column of others' making
    assert "<b>" not in page
    assert "&lt;b&gt;is" in page
    command("score", output / "vqa")  # each is a run of its own


KILLED = """
import os, signal, sys
from minigpt4 import cli
from minigpt4.cli.options import import_quickly
import_quickly()  # as the command does, before anything else imports slowly
from minigpt4.inference.assistant import Assistant
answer, asked = Assistant.ask_many, []
def ask_many(self, items, **settings):
    asked.append(items)
    if len(asked) > int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return answer(self, items, **settings)
Assistant.ask_many = ask_many
cli.evaluate(sys.argv[2:], standalone_mode=False)
"""


def test_killed_and_started_again_it_gives_the_same_report(data, tiny, tmp_path, monkeypatch):
    arguments = ["all", "--data", data, "--model", tiny, "--batch-size", 2, "--max-new-tokens", 4]
    assert command(*arguments, "--output", tmp_path / "at-once") == 1  # one image is missing
    again = [str(a) for a in (*arguments, "--output", tmp_path / "killed")]
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[2])}
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", KILLED, "2", *again], capture_output=True, env=environment)
        assert done.returncode == -signal.SIGKILL
    asked = []
    answer = Assistant.ask_many

    def counting(self, items, **settings):
        asked.append(len(items))
        return answer(self, items, **settings)

    monkeypatch.setattr(Assistant, "ask_many", counting)
    assert command(*again) == 1
    assert sum(asked) == 25 - (2 + 2) - (1 + 2)  # nothing is asked twice
    assert reports(tmp_path / "killed") == reports(tmp_path / "at-once")
