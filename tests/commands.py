"""The commands as a user types them, for the tests of several files: a folder with a tiny system and photos, and how to run."""

import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import shapes
import torch
from conftest import quick_folder, tiny_folder
from PIL import Image

import minigpt4
from minigpt4 import cli

PLAIN = ("--model", "base", "--dtype", "float32")
QUICK = ("--model", "quick", "--dtype", "float32")  # the same in a process of its own, which it keeps shorter


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two tiny systems and six pictures, made once."""
    folder = tmp_path_factory.mktemp("world")
    torch.manual_seed(0)
    tiny_folder(folder / "base")
    quick_folder(folder / "quick")
    (folder / "photos" / "more").mkdir(parents=True)
    for i, (colour, shape, place) in enumerate(shapes.things(6)):
        shapes.draw(colour, shape, place, random.Random(i)).save(folder / f"{i}.png")
    for i, name in enumerate(("c.png", "a.JPG", "b.webp", "more/d.gif")):
        Image.open(folder / f"{i}.png").save(folder / "photos" / name)
    (folder / "letters").mkdir()
    (folder / "letters" / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture
def here(world, tmp_path, monkeypatch):
    """A folder of its own with the same files, to be in."""
    for path in world.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here, monkeypatch, capsys):
    """``run(*arguments)`` -> exit status, standard output, standard error."""

    def run(*arguments, stdin=""):
        monkeypatch.setattr(sys, "argv", ["minigpt4", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def system(world):
    """The same system, asked in Python."""
    return minigpt4.load(world / "base", dtype="float32")


def start(*arguments, **options):
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "minigpt4", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )


def finish(process, timeout=120):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


def refused(result):
    """What a refused command says: one line, nothing else, status 2."""
    status, out, err = result
    assert (status, out) == (2, ""), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    return err.removeprefix("error: ").rstrip("\n")


def written(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


ADDED = ("answer", "caption", "by", "image_digest")
"""What commands add to the rows that they are given."""


def asked(path):
    """The rows of an output as they were in the input."""
    return [{k: v for k, v in row.items() if k not in ADDED} for row in written(path)]


def write_lines(path, *rows):
    Path(path).write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
