"""The walls: who imports whom, how long files are, what must not be in them."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minigpt4"

# What each room may import of ours beside itself, `errors` and `images` (docs/ARCHITECTURE.md holds the table in words).
ROOMS = {
    "prompt": set(),
    "model": {"prompt"},
    "metrics": {"prompt"},
    "data": {"prompt", "model", "jsonl"},
    "stopping": set(),
    "chat": {"model", "prompt"},
    "self_consistency": {"model", "prompt", "metrics"},
    "decoding": {"prompt", "self_consistency"},
    "second_look": {"prompt", "self_consistency"},
    "assistant": {"model", "prompt", "stopping", "chat", "self_consistency", "decoding", "second_look"},
    "train": {"data", "model", "prompt", "stopping", "metrics"},
    "evaluate": {"assistant", "data", "model", "prompt", "metrics", "jsonl", "batch"},
    "jsonl": set(),
    "startup": {"model"},
    "errors": set(),
    "pictures": set(),
}


def files():
    return sorted(PACKAGE.rglob("*.py"))


def room(path):
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(path):
    """Rooms of ours that a file imports, for type checkers alone or not at all counted apart."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == depth and id(node) not in typing_only:
            names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            yield from names


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_import_what_they_may(path):
    own = room(path)
    if own not in ROOMS:
        return  # the command line and the package's own front may import everything
    wrong = set(imported(path)) - ROOMS[own] - {own, "errors", "pictures"}
    assert not wrong, f"{own} must not import {', '.join(sorted(wrong))}"


def test_no_room_is_forgotten():
    front = {"__init__", "__main__", "cli", "batch", "terminal"}
    assert {room(p) for p in files()} <= {*ROOMS, *front}


def tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.splitlines()] if listed.returncode == 0 else files()


def test_files_stay_readable():
    long = {p.name: n for p in files() if (n := len(p.read_text().splitlines())) > 440}
    assert not long


def test_every_module_says_what_it_is():
    for path in files():
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_nothing_of_this_machine_is_in_the_tree():
    """No paths of the developer's machine in text files."""
    home = str(Path.home())
    for path in tracked():
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".txt", ".sh", ".json", ".cfg", ""} and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            assert home + "/" not in text, path
            assert str(ROOT) + "/" not in text, path
