"""What `minigpt4 data check` finds and says."""

import io
import json
import tarfile

import pytest
from PIL import Image
from rich.console import Console

from minigpt4.cli.preview import check_data, table_of
from minigpt4.data.check import check
from minigpt4.data.formats import build_source
from minigpt4.train.recipe import load_recipe


def save(path, colour, kind=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10), colour).save(path, kind)


@pytest.fixture
def rows(tmp_path):
    for i, colour in enumerate(["red", "green", "blue", "red"]):
        save(tmp_path / f"{i}.png", colour)
    (tmp_path / "cut.png").write_bytes((tmp_path / "0.png").read_bytes()[:50])

    def make(*rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return ("jsonl", {"annotations": str(path), "name": name.partition(".")[0]})

    return make


def caption(image, text="A thing."):
    return {"image": image, "task": "caption", "answer": text}


def places(report, kind):
    return [problem.where.rpartition(":")[2] for problem in report.problems if problem.kind == kind]


def test_everything_that_is_wrong_is_listed_with_its_line(rows, tmp_path):
    dataset = rows(
        caption("0.png"),
        caption("gone.png"),
        "{",
        caption("1.png"),
        caption("cut.png"),
        caption("0.png"),
        caption("0.png", "Another thing."),
        caption("3.png"),
        {"question": "?", "answer": "!"},
    )
    report = check([dataset], open_images="all")
    (found,) = report.datasets
    assert (found.name, found.format, found.samples, found.images, found.opened) == ("rows", "jsonl", 8, 5, 4)
    assert not report.ok
    assert places(found, "missing picture") == ["2"]
    assert places(found, "malformed row") == ["3"]
    assert places(found, "broken picture") == ["5"]
    assert places(found, "duplicate") == ["6", "8"]
    messages = {problem.where.rpartition(":")[2]: problem.message for problem in found.problems}
    path = dataset[1]["annotations"]
    assert messages["5"].startswith(f"{path}:5: {tmp_path}/cut.png: ")
    assert messages["6"] == f"{path}:6: says the same of the same picture as {path}:1"
    assert messages["8"] == f"{path}:8: the same picture as at {path}:1, under another name"
    assert dict(found.counts) == {"missing picture": 1, "malformed row": 1, "broken picture": 1, "duplicate": 2}


def test_a_clean_dataset_is_called_clean_and_a_built_one_can_be_checked_too(rows):
    dataset = rows(caption("0.png"), caption("1.png"), caption("1.png", "Twice seen."))
    for one in (dataset, build_source(dataset[0], **dataset[1])):
        report = check([one])
        assert report.ok
        assert [(d.samples, d.images, d.opened, d.problems) for d in report.datasets] == [(3, 2, 2, [])]
    assert check([rows(caption("0.png"), caption("0.png"))]).ok  # a duplicate is told, and no fault


def test_as_many_images_are_opened_as_wanted(rows):
    dataset = rows(*(caption(f"{i}.png") for i in range(4)))
    assert [check([dataset], open_images=n).datasets[0].opened for n in (0, 1, 3, 100, "all")] == [0, 1, 3, 4, 4]


def test_answers_of_several_people_make_no_duplicates(rows):
    question = {"image": "0.png", "question": "?", "task": "vqa"}
    many = [f"{i}" for i in range(50)]
    report = check([rows(question | {"answers": many}, question | {"answers": many[::-1]}, question | {"answers": many})])
    assert places(report.datasets[0], "duplicate") == ["3"]


def test_datasets_that_cannot_be_opened_are_told_beside_the_others(rows):
    good = rows(caption("0.png"))
    report = check([("jsonl", {"annotations": "nowhere.jsonl", "name": "lost"}), ("jsnl", {}), ("gqa", {"imgs": 1}), good])
    assert [(d.name, d.samples) for d in report.datasets] == [("lost", 0), ("jsnl", 0), ("gqa", 0), ("rows", 1)]
    assert [p.message.partition(";")[0] for d in report.datasets for p in d.problems] == [
        "nowhere.jsonl: no such file",
        "unknown dataset format 'jsnl'",
        "gqa: unknown option 'imgs'",
    ]
    assert not report.ok


def test_images_that_are_validated_on_and_trained_on_are_told(rows):
    train = rows(caption("0.png"), caption("1.png"), name="train.jsonl")
    valid = rows(caption("2.png", "x"), caption("1.png", "y"), name="valid.jsonl")
    report = check([train], held_out=[valid])
    assert [d.name for d in report.datasets] == ["train", "valid"]
    assert places(report.datasets[1], "also trained on") == ["2"]
    assert not report.ok
    assert check([train, train]).ok


SAID = [("user", "a?"), ("assistant", "b"), ("user", "c?"), ("assistant", "d")]
TALK = {"image": "1.png", "conversation": [{"role": role, "content": text} for role, text in SAID]}


def test_samples_that_cannot_share_their_image_are_told_before_a_training_refuses_them(rows, tmp_path):
    placed = {"image": "0.png", "question": "What is in <ImageHere>?", "answer": "x"}
    mixed = rows(caption("0.png"), placed, TALK, name="mixed.jsonl")
    tar = write_tar(tmp_path / "a.tar", ("0.png", png("red")), ("0.json", b'{"task": "caption", "answer": "x"}'))
    stream = ("webdataset_stream", {"shards": tar, "name": "stream"})
    assert check([mixed, stream]).ok
    found = check([mixed], held_out=[mixed, stream], together=[1, 2]).datasets
    told = [[p.message.partition(": ")[2] for p in one.problems if p.kind == "not for together"] for one in found]
    assert told == [
        [],
        [
            "together shows images before the questions; this one says where they stand",
            "together is for single questions, this is a conversation",
        ],
        ["together is not for streamed datasets"],
    ]
    assert places(found[1], "not for together") == ["2", "3"]


def test_a_recipe_whose_training_would_refuse_a_group_is_refused(rows, tmp_path, capsys):
    kind, options = rows(TALK)
    recipe = tmp_path / "recipe.yaml"
    for most, status in ((1, 0), (2, 1)):
        data = {"datasets": [{"format": kind, "together": most, **options}]}
        recipe.write_text(json.dumps({"output": str(tmp_path / "run"), "steps": 1, "data": data}))
        assert check_data(load_recipe(recipe, ()), "all", as_json=True) == status
        assert ("this is a conversation" in capsys.readouterr().out) == bool(status)


def write_tar(path, *files):
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(path)


def png(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_tars_are_checked_by_index_and_as_a_stream(tmp_path):
    files = []
    for i, image in enumerate([png("red"), png("green"), png("red"), png("blue")[:45]]):
        files += [(f"{i}.png", image), (f"{i}.json", json.dumps({"task": "caption", "answer": f"{i}"}).encode())]
    files += [("4.png", png("white")), ("4.json", b'{"answer": 4}')]
    path = write_tar(tmp_path / "a.tar", *files)
    (found,) = check([("webdataset", {"shards": path})], open_images="all").datasets
    assert (found.samples, found.images, found.opened) == (4, 4, 4)
    assert {kind: places(found, kind) for kind in found.counts} == {
        "malformed row": ["4"],
        "broken picture": ["3"],
        "duplicate": ["2"],
    }
    (found,) = check([("webdataset_stream", {"shards": path})], open_images="all").datasets
    assert (found.samples, found.images, found.opened) == (4, 4, 4)
    assert {kind: places(found, kind) for kind in found.counts} == {"malformed row": ["4"], "broken picture": ["3"]}
    assert check([("webdataset_stream", {"shards": path})], open_images=2).datasets[0].opened == 2
    whole = open(path, "rb").read()
    (tmp_path / "b.tar").write_bytes(whole[:700])
    report = check([("webdataset_stream", {"shards": f"{tmp_path}/*.tar"})], open_images="all")
    assert places(report.datasets[0], "broken shard") == [f"{tmp_path}/b.tar"]
    assert report.datasets[0].samples == 4


def text_of(report):
    console = Console(file=io.StringIO(), width=200)
    console.print(table_of(report))
    return console.file.getvalue()


def test_the_report_is_a_table_or_json(rows):
    wrong = [caption("gone.png", f"{i}") for i in range(12)]
    told = []
    report = check(
        [rows(caption("0.png"), *wrong), rows(caption("0.png"), name="other.jsonl")],
        progress=lambda *how_far: told.append(how_far),
    )
    assert told[:2] == [("rows", 0, 13), ("rows", 13, 13)]
    assert told[-1] == ("other", 1, 1)
    text = text_of(report)
    lines = [line.split() for line in text.splitlines()]
    assert ["│", "rows", "│", "jsonl", "│", "13", "│", "2", "│", "1", "│", "12", "│"] in lines
    assert ["│", "other", "│", "jsonl", "│", "1", "│", "1", "│", "1", "│", "0", "│"] in lines
    assert "rows: 12 x missing picture" in text
    assert "rows.jsonl:11: no picture gone.png in" in text
    assert "rows.jsonl:12: no picture" not in text
    assert "... and 2 more" in text
    assert "Nothing is missing" not in text
    data = json.loads(report.to_json())
    assert data["ok"] is False
    assert len(report.problems) == 12
    assert data["datasets"][0]["counts"] == {"missing picture": 12}
    assert [p["where"].rpartition(":")[2] for p in data["datasets"][0]["problems"]] == [str(i) for i in range(2, 14)]
    assert "Nothing is missing or broken." in text_of(check([rows(caption("0.png"))]))


def test_an_image_that_is_trained_on_is_seen_under_every_name(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"image": f"{name}.png", "answer": name}) + "\n")
    monkeypatch.chdir(tmp_path)
    for held_out in ("a.jsonl", str(tmp_path / "a.jsonl"), "b.jsonl"):
        report = check([("jsonl", {"annotations": "a.jsonl"})], held_out=[("jsonl", {"annotations": held_out})])
        assert [problem.kind for problem in report.problems] == ["also trained on"], held_out
