"""Who may stop a training, and what then: Ctrl-C with worker processes, torchrun killed, a stop at a measuring step."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from test_train import metrics, recipe_of, run, world  # noqa: F401

from minigpt4.train import loop
from minigpt4.train.loop import Interrupted
from minigpt4.train.signals import signals

LONG = {"steps": 100_000, "checkpoint_every": 100_000, "validation__every": 100_000}
linux = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")


def start(given, folder, *launch):
    """The command as a terminal starts it: with a group of processes of its own, which Ctrl-C reaches as a whole."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(given))
    command = [sys.executable, *launch, "-m", "minigpt4", "train", str(folder / "recipe.yaml")]
    own = {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, start_new_session=True, env=os.environ | own, **pipes)


def wait_for(what):
    deadline = time.monotonic() + 240
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def steps_in(output):
    file = output / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def children(process):
    """All processes below one, by their numbers."""
    try:
        direct = [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []
    return [*direct, *(below for child in direct for below in children(child))]


def runs(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@linux
def test_ctrl_c_in_a_terminal_is_said_once_with_worker_processes_too(world, tmp_path):
    process = start(recipe_of(world, tmp_path / "out", data__workers=2, **LONG), tmp_path)
    wait_for(lambda: steps_in(tmp_path / "out") > 2 or process.poll() is not None)
    below = children(process.pid)
    assert len(below) >= 2
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 130, said
    told = [line for line in said.split("\n") if "stop" in line]
    assert len(told) == 2, said  # that it will, and that it has
    assert "Traceback" not in said
    wait_for(lambda: not any(map(runs, below)))


@linux
def test_the_processes_of_a_torchrun_that_is_killed_end_and_keep_what_they_have(world, tmp_path):
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    process = start(recipe_of(world, tmp_path / "out", **LONG), tmp_path, *launch)
    wait_for(lambda: steps_in(tmp_path / "out") > 2 or process.poll() is not None)
    below = children(process.pid)
    assert len(below) >= 2
    process.kill()
    process.wait()
    try:
        wait_for(lambda: not any(map(runs, below)))
    finally:
        for child in filter(runs, below):
            os.kill(child, signal.SIGKILL)
    process.stderr.close()
    assert [path.name for path in (tmp_path / "out" / "checkpoints").glob("step-*")] == [
        f"step-{max(metrics(tmp_path / 'out')):08d}"
    ]


def test_a_run_that_is_stopped_where_it_would_measure_measures_later(world, tmp_path, monkeypatch):
    whole = run(recipe_of(world, tmp_path / "whole"))

    class Stop:
        asked = 0

        def is_set(self):
            self.asked += 1
            return self.asked == 5

    @contextmanager
    def signals():
        yield Stop()

    given = recipe_of(world, tmp_path / "parts")
    monkeypatch.setattr(loop, "signals", signals)
    with pytest.raises(Interrupted, match="stopped after step 5"):
        run(given)
    assert list(metrics(tmp_path / "parts", "valid_loss")) == [0]
    monkeypatch.undo()
    parts = run(given)
    for key in ("loss", "valid_loss", f"answer/{world / 'data/shapes-0.png'}"):
        assert metrics(parts, key) == metrics(whole, key)
    assert (parts / "checkpoints/best").read_text() == (whole / "checkpoints/best").read_text()


def test_signals_that_come_together_are_one_wish(monkeypatch):
    """A launcher signals a process, and its group again: the second one ended the run without a checkpoint."""
    clock = [100.0]
    monkeypatch.setattr("minigpt4.train.signals.time.monotonic", lambda: clock[0])
    with signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        clock[0] += 0.1
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.is_set()
        clock[0] += 1.0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
