"""The walls: who imports whom, how long files are, what must not be in them."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minigpt4"


def rooms() -> dict[str, set[str] | None]:
    """What each room may import, from the table in docs/ARCHITECTURE.md; None for everything."""
    found: dict[str, set[str] | None] = {}
    for line in (ROOT / "docs/ARCHITECTURE.md").read_text().splitlines():
        if match := re.fullmatch(r"\| `(\w+)/` \|.*\| ([^|]*) \|", line):
            name, may = match.groups()
            found[name] = None if may == "everything" else set(re.findall(r"`(\w+)`", may))
    return found


ROOMS = rooms()
FRONT = {"__init__", "__main__", "errors"}


def files():
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(source: str, depth: int) -> set[str]:
    """Rooms of ours that a file names in its imports, wherever they stand: at the top, under TYPE_CHECKING, in a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            if node.level == depth:
                found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
            elif node.level == 0 and node.module and node.module.split(".")[0] == "minigpt4":
                rest = node.module.split(".")[1:]
                found |= {rest[0]} if rest else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("minigpt4.")}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module":
            found |= {a.value.split(".")[1] for a in node.args if isinstance(a, ast.Constant) and "minigpt4." in str(a.value)}
    return found


def wrong_imports(path: Path, source: str) -> set[str]:
    own, may = room(path), ROOMS[room(path)]
    if may is None:
        return set()
    return imported(source, len(path.relative_to(PACKAGE).parts)) - may - {own, "errors", "__version__"}


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_import_what_they_may(path):
    if room(path) in FRONT:
        return  # the package's own front may import everything
    wrong = wrong_imports(path, path.read_text())
    assert not wrong, f"{room(path)} must not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize(
    "line",
    [
        "from ..inference.assistant import Assistant",
        "from ..inference import chat",
        "from minigpt4.cli import app",
        "import minigpt4.train.loop",
        "if TYPE_CHECKING:\n    from ..inference.chat import Chat",
        "def late():\n    from ..serve import app",
    ],
)
def test_an_upward_import_is_seen(line):
    path = PACKAGE / "engine" / "engine.py"
    assert not wrong_imports(path, path.read_text())
    assert wrong_imports(path, path.read_text() + "\n" + line + "\n")


def test_the_table_names_every_room_and_its_arrows_point_down():
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert set(ROOMS) == folders
    above: set[str] = set()
    for name, may in ROOMS.items():
        assert may is None or may <= above, f"{name} may import what stands below it: {sorted(may - above)}"
        above.add(name)
    assert {room(p) for p in files()} <= {*ROOMS, *FRONT}


def test_printing_and_exit_codes_live_in_the_command_line_alone():
    for path in files():
        if room(path) in {"cli", "__main__"}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in {"print", "sys.exit", "typer.echo", "typer.Exit"}, f"{path}:{node.lineno}: {name}"
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] != "typer", f"{path}:{node.lineno}"


def test_one_file_writes_to_the_terminal():
    """Others' words reach a terminal through cli/terminal.py alone, which writes out what a terminal would obey."""
    for path in sorted((PACKAGE / "cli").glob("*.py")):
        if path.name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in {"print", "Console", "sys.stdout.write", "sys.stderr.write"}, f"{path}:{node.lineno}: {name}"


def tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.splitlines()] if listed.returncode == 0 else files()


def test_files_stay_readable():
    long = {p.name: n for p in files() if (n := len(p.read_text().splitlines())) > 440}
    assert not long


def test_every_module_says_what_it_is():
    for path in files():
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_the_field_s_own_words():
    """Private words of earlier days do not come back."""
    private = re.compile(r"\b(eyes?|minds?)\b", re.IGNORECASE)
    written = {".py", ".yaml", ".md", ".txt", ".json", ".html", ".css", ".js"}
    found = (path for folder in ("minigpt4", "recipes", "docs") for path in (ROOT / folder).rglob("*"))
    places = [path for path in found if path.suffix in written]
    quoting = {ROOT / "docs/curation-report.html", ROOT / "docs/gallery.md"}  # what models said
    for path in {*places, ROOT / "README.md"} - quoting:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not private.search(line), f"{path.relative_to(ROOT)}:{number}: {line.strip()[:200]}"


def test_nothing_of_this_machine_is_in_the_tree():
    """No paths of the developer's machine in text files."""
    home = str(Path.home())
    for path in tracked():
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".txt", ".sh", ".json", ".cfg", ""} and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            assert home + "/" not in text, path
            assert str(ROOT) + "/" not in text, path
