"""What may befall a training: odd names, kills at bad moments, changed data, recipes that are none, disks that are full."""

import json
import subprocess
import tempfile

import pytest
import torch
from PIL import Image
from test_train import recipe_of, run, world  # noqa: F401

from minigpt4 import cli
from minigpt4.checkpoints import pocket
from minigpt4.data.formats import build_source
from minigpt4.data.mixture import Part
from minigpt4.errors import UserError
from minigpt4.io.atomic import whole_file, write_text
from minigpt4.io.lock import hold
from minigpt4.model import feature_cache
from minigpt4.train import fingerprint, loop
from minigpt4.train.checkpoint import Checkpoints
from minigpt4.train.distributed import World
from minigpt4.train.fingerprint import difference, fingerprints
from minigpt4.train.loop import Trainer
from minigpt4.train.pipeline import Pipeline, run_pipeline
from minigpt4.train.recipe import Dataset, load_recipe, parse_recipe
from minigpt4.train.report import write_report
from minigpt4.train.tracking import JsonLines


def test_records_are_split_at_line_feeds_alone_and_survive_damage(tmp_path):
    path = tmp_path / "metrics.jsonl"
    said, half = "a\u2028b\u0085c\x0bd\x1ce", "\ud800"  # half a character has its whole line written as escapes
    log = JsonLines(path, 0)
    log.log(0, {f"answer/x{half}": half, "valid_loss": 2.0})
    log.log(1, {f"answer/x{said}": said, "valid_loss": 1.0})
    with path.open("ab") as file:
        file.write(b'{}\n[1]\n{"step": "x"}\n' + '{"step": 1, "a": "\u00e4'.encode()[:-1])  # cut within a character
    (tmp_path / "recipe.yaml").write_text("{}")
    assert JsonLines(path, 1).records == [
        {"step": 0, f"answer/x{half}": half, "valid_loss": 2.0},
        {"step": 1, f"answer/x{said}": said, "valid_loss": 1.0},
    ]
    assert write_report(tmp_path).stat().st_size > 0


@pytest.mark.parametrize("damage", [b"x,y\tz", b"\xff\xfe", b"\0\0\0\0", b"[", b"\x1f\x8b"])
def test_a_first_record_that_looks_like_another_kind_of_file_takes_no_other_along(damage, tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "loss": 1.0} for step in range(4)]
    text = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    path.write_bytes(damage + text[len(damage) :])
    assert JsonLines(path, 3).records == rows[1:]


def _fill(path):
    with whole_file(path) as part:
        part.write_text("half")
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_one_line(tmp_path):
    log = JsonLines(tmp_path / "metrics.jsonl", 0)
    log.path = tmp_path  # cannot be opened to be written
    with pytest.raises(UserError, match=r"cannot be written \(Is a directory\); the checkpoints are kept"):
        log.log(1, {"loss": 1.0})
    with pytest.raises(UserError, match="gone/x: cannot be written"):
        write_text(tmp_path / "gone" / "x", "y")
    write_text(tmp_path / "x", "before")
    (tmp_path / ".x.999999999.part").write_text("left by a killed run")
    with pytest.raises(UserError, match="x: cannot be written"):
        _fill(tmp_path / "x")
    assert (tmp_path / "x").read_text() == "before"
    assert not list(tmp_path.glob(".x*"))


def test_the_beginning_is_measured_once_and_the_mark_follows_the_state(world, tmp_path):
    given = recipe_of(world, tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.jsonl").write_text('{"step": 0, "valid_loss": 9.0}\n')  # killed before the first checkpoint
    run(given)
    rows = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().split("\n") if line]
    assert [row["step"] for row in rows if "valid_loss" in row] == [0, 5, 10]
    newest = max((tmp_path / "out/checkpoints").glob("step-*"))
    best = json.loads((newest / "state.json").read_text())["best_step"]
    (tmp_path / "out/checkpoints/best").write_text("step-00000000")  # a kill came before the mark
    run(given)
    assert (tmp_path / "out/checkpoints/best").read_text() == f"step-{best:08d}"
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "out").glob("*.*") if path.is_file()}
    assert len(modes) == 1  # safetensors would have the weights readable by their owner alone


def test_changed_data_is_noticed(world, tmp_path, caplog):
    rows = (world / "data/shapes.jsonl").read_text().split("\n")[:-1]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(rows) + "\n")
    dataset = {"format": "jsonl", "annotations": str(data), "images": str(world / "data"), "captions": "all"}
    given = recipe_of(world, tmp_path / "out", steps=2, data__datasets=[dataset])
    run(given)
    run(given)
    for changed in (rows[::-1], [*rows, rows[0]], [rows[0].replace("disc", "ring").replace("box", "cube"), *rows[1:]]):
        data.write_text("\n".join(changed) + "\n")
        with pytest.raises(UserError, match=r"dataset 0 \(jsonl\) has changed.*on_change=continue"):
            run(given)
    run(given | {"on_change": "continue"})
    assert "it goes on with what is there now" in caplog.text


def new_system(dataset):
    """A recipe that learns from a dataset, of a system without a base."""
    data = {"datasets": [dataset.model_dump(exclude_defaults=True)]}
    return parse_recipe({"model": {"vision": "v", "text": "t"}, "data": data, "steps": 1, "output": "x"}, "r.yaml")


def hf_rows(folder, words):
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(folder / "x.png")
    rows = "".join(json.dumps({"image": "x.png", "question": "?", "answer": word}) + "\n" for word in words)
    (folder / "train.jsonl").write_text(rows)
    return {"dataset": str(folder)}


@pytest.mark.parametrize("how", ["folder", "pattern", "one file"])
def test_any_row_of_a_dataset_that_changes_is_noticed(how, tmp_path):
    """The 32 samples that are looked at are not all of them."""
    words = ["red"] * 100
    options = hf_rows(tmp_path / "rows", words)
    given = {"folder": options, "pattern": {"annotations": f"{tmp_path}/rows/*.jsonl"}, "one file": {}}[how]
    dataset = Dataset(format="jsonl", **(given or {"annotations": str(tmp_path / "rows/train.jsonl")}))

    def now():
        part = Part(build_source("jsonl", annotations=str(tmp_path / "rows/train.jsonl")), 1.0, 1)
        return fingerprints(torch.nn.Identity(), new_system(dataset), [part])

    before = now()
    (tmp_path / "rows" / "0.png").write_bytes(b"an image")
    (tmp_path / "rows" / ".lock").write_bytes(b"of a library")
    assert now() == before
    hf_rows(tmp_path / "rows", [*words[:50], "blue", *words[51:]])
    assert difference(before, now()) == "dataset 0 (jsonl)"


def test_another_commit_of_a_dataset_on_the_hub_is_noticed(monkeypatch, tmp_path):
    hf_rows(tmp_path, ["red"])
    part = Part(build_source("jsonl", annotations=str(tmp_path / "train.jsonl")), 1.0, 1)
    dataset = Dataset(format="hf", dataset="some/rows", revision="v1")
    found = []
    for commit in ("1", "2", None):
        monkeypatch.setattr(fingerprint, "commit_of", lambda name, kind, revision, commit=commit: commit)
        found.append(fingerprints(torch.nn.Identity(), new_system(dataset), [part]))
    assert difference(found[0], found[1]) == "dataset 0 (hf) on the hub"
    assert difference(found[0], found[2]) is None  # offline, nobody knows


@pytest.mark.parametrize("wish", ["auto", True])
def test_a_cache_that_cannot_be_written_is_read_or_gone_without(wish, world, tmp_path, monkeypatch, caplog):
    given = recipe_of(world, tmp_path / "out", steps=6, data__cache_folder=str(tmp_path / "cache"), data__cache_features=wish)
    (tmp_path / "file").write_text("")
    nowhere = given | {"data": given["data"] | {"cache_folder": str(tmp_path / "file" / "cache")}}
    if wish is True:
        with pytest.raises(UserError, match="the feature cache cannot be written .*data.cache_features=false"):
            run(nowhere)
    else:
        assert (run(nowhere) / "trained.safetensors").exists()
        assert "(the run goes on without)" in caplog.text
    run(given | {"output": str(tmp_path / "filling")})

    def read_only(self, **_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(feature_cache.FileLock, "acquire", read_only)
    monkeypatch.setattr(loop, "hold", lambda *_: None)
    caplog.clear()
    run(given | {"output": str(tmp_path / "reading")})  # it is whole
    assert "goes on without" not in caplog.text
    for line in (tmp_path / "cache").glob("*/rows-0.jsonl"):
        line.write_text(line.read_text().split("\n")[0] + "\n")  # now it is not
    again = given | {"output": str(tmp_path / "again")}
    if wish is True:
        with pytest.raises(UserError, match="Read-only file system"):
            run(again)
    else:
        run(again)
        assert "(the run goes on without)" in caplog.text


def test_worker_processes_tell_in_one_line_and_may_change_in_number(world, tmp_path):
    given = recipe_of(world, tmp_path / "out", steps=2)
    run(given)
    run(given | {"data": given["data"] | {"workers": 1}})
    with pytest.raises(UserError, match=r"data\.batch was 4, and is 8 now"):
        run(given | {"data": given["data"] | {"batch": 8}})
    (tmp_path / "broken.png").write_bytes((world / "data/shapes-0.png").read_bytes()[:60])
    (tmp_path / "b.jsonl").write_text('{"image": "broken.png", "question": "?", "answer": "!"}\n')
    dataset = {"format": "jsonl", "annotations": str(tmp_path / "b.jsonl")}
    with pytest.raises(UserError) as caught:
        run(recipe_of(world, tmp_path / "b", data__datasets=[dataset], data__workers=1, data__cache_features=False))
    assert "broken.png" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends: r.yaml", "which extends this recipe"),
        ("extends: [a]", "expected the name of a recipe"),
        ("extends: 3", "expected the name of a recipe"),
        ("[1, 2]", "a recipe is a mapping"),
        ("1: 2", "unknown key 1"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("steps: 2024-99-99", "cannot be read|steps"),
    ],
)
def test_recipes_that_are_none_are_refused_in_one_line(tmp_path, text, said):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        load_recipe(tmp_path / "r.yaml")
    assert "\n" not in str(caught.value)


def test_a_download_is_bounded_and_a_full_disk_is_said(tmp_path, monkeypatch):
    def never(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", never)
    with pytest.raises(UserError, match="has not given it in 30 minutes"):
        pocket._download(pocket.VISION, tmp_path)
    full = subprocess.CompletedProcess([], 1, "", "ERROR: Could not install: [Errno 28] No space left on device\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: full)
    with pytest.raises(OSError, match="No space left on device"):
        pocket._download(pocket.VISION, tmp_path)


def test_one_process_alone_looks_for_the_newest_checkpoint(world, tmp_path, monkeypatch):
    """Two that move damaged ones aside at once would go on from different ones."""
    given = recipe_of(world, tmp_path / "out", steps=2)
    run(given)
    looked = []
    monkeypatch.setattr(Checkpoints, "latest", lambda self: looked.append(self))
    trainer = object.__new__(Trainer)
    trainer.checkpoints = Checkpoints(tmp_path / "out" / "checkpoints", 2)
    for rank, asked in ((1, 0), (0, 1)):
        trainer.world = Second(rank=rank)
        trainer._resume()
        assert len(looked) == asked


class Second(World):
    """One of two processes; the leader has found nothing."""

    def gather(self, value):
        return [None, value]


HOSTILE = {
    "deep": ("a: " + "[" * 5000, "nested too deeply"),
    "deep enough to be read": ("a: " + "[" * 150 + "]" * 150, "nested too deeply"),
    "itself": ("a: &a [*a]", "holds itself"),
    "no date": ("output: 2024-99-99", "cannot be read"),
    "no text": (b"\xff\xfea\0", "not UTF-8"),
    "open": ("a: [", "not YAML"),
}


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("command", [("train",), ("data", "check"), ("curate", "run"), ("converse", "x.png", "--prompts")])
def test_every_command_that_reads_yaml_refuses_what_has_no_end_in_one_line(command, text, tmp_path, monkeypatch, capsys):
    given, said = HOSTILE[text]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_bytes(given if isinstance(given, bytes) else given.encode())
    (tmp_path / "x.png").write_bytes(b"x")
    monkeypatch.setattr("sys.argv", ["minigpt4", *command, "r.yaml"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    err = capsys.readouterr().err
    assert (left.value.code, err.count("\n")) == (2, 1), err
    assert said in err


@pytest.mark.parametrize("damage", ['{"a"', "3", "[1]", "\ud800"])
def test_the_state_of_a_pipeline_that_is_damaged_counts_nothing_as_done(damage, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    made = "import pathlib; pathlib.Path('made').write_text('x')"
    pipeline = Pipeline.model_validate(
        {"state": "state.json", "steps": [{"kind": "script", "command": ["-c", made], "output": ["made"]}]}
    )
    assert [run_pipeline(pipeline), run_pipeline(pipeline)] == [["done"], ["skipped"]]
    (tmp_path / "state.json").write_bytes(damage.encode(errors="surrogatepass"))
    assert run_pipeline(pipeline) == ["done"]
    assert "state.json is damaged: no step counts as done" in caplog.text
    held = hold("state.json", "a pipeline")
    with pytest.raises(UserError, match="a pipeline is writing there already"):
        run_pipeline(pipeline)
    held.release()


def test_a_cache_folder_that_may_not_be_written_is_no_reason_to_go_without_a_lock(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINIGPT4_CACHE", str(tmp_path / "file" / "no folder"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    held = hold(tmp_path / "out", "a training")
    with pytest.raises(UserError, match="a training is writing there already"):
        hold(tmp_path / "out", "a training")
    held.release()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(UserError, match="no lock can be made there"):
        hold(tmp_path / "out", "a training")
