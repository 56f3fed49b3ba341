"""Trainings that stop and go on, and their checkpoints: killed, damaged, without room, moved, with another recipe."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
import yaml
from test_train import metrics, recipe_of, run, world  # noqa: F401  (the last is a fixture)

from minigpt4 import cli
from minigpt4.checkpoints.trained import read_trained
from minigpt4.errors import UserError
from minigpt4.train import checkpoint as checkpoint_module
from minigpt4.train.checkpoint import Checkpoints


def start(given, folder):
    """The command, in a process of its own."""
    path = folder / "recipe-in.yaml"
    path.write_text(yaml.safe_dump(given))
    return subprocess.Popen(
        [sys.executable, "-m", "minigpt4", "train", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_equals_uninterrupted(world, tmp_path, workers, monkeypatch):
    whole = run(recipe_of(world, tmp_path / "whole", data__workers=workers))
    given = recipe_of(world, tmp_path / "parts", data__workers=workers)
    from minigpt4.train.loop import Trainer

    plain = Trainer._step

    def die(self, batches):
        if self.step == 7:
            raise KeyboardInterrupt  # nothing is saved: the newest checkpoint is of step 6
        return plain(self, batches)

    monkeypatch.setattr(Trainer, "_step", die)
    with pytest.raises(KeyboardInterrupt):
        run(given)
    monkeypatch.setattr(Trainer, "_step", plain)
    parts = run(given)
    assert metrics(parts) == metrics(whole)
    assert metrics(parts, "valid_loss") == metrics(whole, "valid_loss")
    for name, tensor in read_trained(whole).items():
        assert torch.equal(tensor, read_trained(parts)[name]), name
    assert any(".lora_B." in name for name in read_trained(whole))


def test_kill_at_any_moment_and_start_again(world, tmp_path, caplog):
    given = recipe_of(world, tmp_path / "killed", steps=16, checkpoint_every=1)
    process = start(given, tmp_path)
    checkpoints = tmp_path / "killed" / "checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "trained.safetensors").exists()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the other: with another number the last bits of sums would differ
    try:
        with caplog.at_level("INFO", logger="minigpt4"):
            run(given)
        assert "continuing after step" in caplog.text
        run(recipe_of(world, tmp_path / "whole", steps=16))
    finally:
        torch.set_num_threads(threads)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")


def test_ctrl_c_saves_and_leaves(world, tmp_path, monkeypatch, capsys):
    given = recipe_of(world, tmp_path / "stopped", steps=100_000, checkpoint_every=100_000, validation__every=100_000)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(given))
    path, ended = tmp_path / "stopped" / "metrics.jsonl", threading.Event()

    def press():
        while not (path.exists() and len(path.read_text().splitlines()) > 2):
            if ended.wait(0.01):
                return
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sys, "argv", ["minigpt4", "train", str(tmp_path / "recipe.yaml")])
    person = threading.Thread(target=press)
    person.start()
    try:
        with pytest.raises(SystemExit) as left:
            cli.main()
    finally:
        ended.set()
        person.join()
    said = capsys.readouterr().err
    assert left.value.code == 130, said
    assert "the same command goes on" in said
    (saved,) = (tmp_path / "stopped" / "checkpoints").glob("step-*")
    assert json.loads((saved / "state.json").read_text())["step"] == max(metrics(tmp_path / "stopped"))


def test_damaged_checkpoints_are_passed_over(world, tmp_path, caplog):
    given = recipe_of(world, tmp_path / "out")
    run(given)
    for folder, harm in (("step-00000010", "trained.safetensors"), ("step-00000009", "optimizer.safetensors")):
        path = tmp_path / "out" / "checkpoints" / folder / harm
        path.write_bytes(path.read_bytes()[:-100])
    before = metrics(tmp_path / "out")
    given["keep"] = 5
    with caplog.at_level("WARNING", logger="minigpt4"):
        run(given)
    assert "step-00000010 is damaged (trained.safetensors is cut short)" in caplog.text
    assert metrics(tmp_path / "out") == before


def test_a_full_disk_leaves_earlier_checkpoints(world, tmp_path, monkeypatch):
    plain = checkpoint_module.save_optimizer

    def full(optimizer, names, average, path):
        if "00000006" in str(path):
            raise OSError(28, "No space left on device")
        plain(optimizer, names, average, path)

    monkeypatch.setattr("minigpt4.train.loop.save_optimizer", full)
    given = recipe_of(world, tmp_path / "out")
    with pytest.raises(UserError, match=r"step-00000006: .*No space left on device.*earlier ones are kept"):
        run(given)
    assert {p.name for p in (tmp_path / "out" / "checkpoints").glob("*step*")} == {"step-00000003", "step-00000005"}
    monkeypatch.undo()
    run(given)
    assert metrics(tmp_path / "out") == metrics(run(recipe_of(world, tmp_path / "whole")))


def test_damaged_checkpoints_do_not_push_out_whole_ones(world, tmp_path, caplog):
    """Damaged ones with higher numbers are moved aside; a fresh one is never removed."""
    recipe = recipe_of(world, tmp_path / "out", steps=6, checkpoint_every=2, keep=2)
    run(recipe)
    folder = tmp_path / "out" / "checkpoints"
    for checkpoint in folder.glob("step-*"):
        (checkpoint / "optimizer.safetensors").write_bytes(b"short")
    (folder / "step-00000008").mkdir()
    (folder / "step-00000008" / "manifest.json").write_text("{}")
    (folder / ".step-00000003").mkdir()  # a run was killed while it wrote
    expected = (tmp_path / "out" / "trained.safetensors").read_bytes()
    run(recipe)
    assert "no checkpoint is whole; the run begins anew" in caplog.text
    assert (tmp_path / "out" / "trained.safetensors").read_bytes() == expected
    left = sorted(p.name for p in folder.iterdir() if p.is_dir())
    assert [name for name in left if name.startswith("step-")][-1] == "step-00000006"
    assert {name for name in left if name.startswith("damaged-")} >= {"damaged-step-00000006", "damaged-step-00000008"}
    assert not [name for name in left if name.startswith(".step")]


def test_what_was_just_written_is_not_removed_for_a_higher_number(tmp_path):
    """A damaged one that could not be moved aside, on a disk that was full, say."""
    (tmp_path / "step-00000009").mkdir()
    Checkpoints(tmp_path, 1).save(2, lambda folder: (folder / "x").write_text("x"), False)
    assert (tmp_path / "step-00000002" / "x").exists()


def test_weights_that_are_no_numbers_are_not_written(world, tmp_path, monkeypatch):
    recipe = recipe_of(world, tmp_path / "out", steps=4, checkpoint_every=2)
    plain = torch.optim.AdamW.step

    def breaks(self, *args, **kwargs):
        plain(self, *args, **kwargs)
        calls.append(1)
        if len(calls) == 4:  # the last step, whose loss nobody looks at any more
            self.param_groups[0]["params"][0].data.fill_(float("nan"))

    calls: list[int] = []
    monkeypatch.setattr(torch.optim.AdamW, "step", breaks)
    with pytest.raises(UserError, match="holds values that are no numbers"):
        run(recipe)
    assert not (tmp_path / "out" / "trained.safetensors").exists()
    monkeypatch.undo()
    run(recipe)  # goes on from step 2
    assert (tmp_path / "out" / "trained.safetensors").exists()


def test_keeps_the_newest_and_the_best(world, tmp_path):
    run(recipe_of(world, tmp_path / "out", steps=30, checkpoint_every=2))
    folder = tmp_path / "out" / "checkpoints"
    kept = {p.name for p in folder.glob("step-*")}
    best = (folder / "best").read_text()
    assert {"step-00000028", "step-00000030", best} == kept


def test_where_features_are_kept_does_not_make_another_recipe(world, tmp_path):
    run(recipe_of(world, tmp_path / "out", steps=2))
    cached = {"cache_features": True, "cache_folder": str(tmp_path / "features")}
    given = recipe_of(world, tmp_path / "out", steps=2)
    assert run(given | {"data": given["data"] | cached}) == tmp_path / "out"


def test_a_folder_that_was_moved_is_continued(world, tmp_path):
    run(recipe_of(world, tmp_path / "out"))
    (tmp_path / "out").rename(tmp_path / "moved")
    before = metrics(tmp_path / "moved")
    run(recipe_of(world, tmp_path / "moved"))
    assert metrics(tmp_path / "moved") == before


def test_another_recipe_does_not_continue_this_one(world, tmp_path):
    run(recipe_of(world, tmp_path / "out"))
    with pytest.raises(UserError, match=r"another recipe \(schedule.lr was 0.01, and is 0.001 now\)"):
        run(recipe_of(world, tmp_path / "out", schedule={"lr": 1e-3}))
