"""The commands that README and guides show: each can be given as it is shown, and those of the README do what it says.

Every line of a block ``sh`` is read. A command of `minigpt4` (or ``./run``) must be one that there is, with options and values
that it takes, and files of this repository that it names must exist. The README's are run, on a tiny system in the pocket
model's place and without a network; those that cannot be are in `NOT_RUN`, with the reason. Where a guide's commands are run,
its own test says so (``test_docs_*.py``).
"""

import io
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer.main
from conftest import tiny_folder
from PIL import Image
from typer.testing import CliRunner

import minigpt4
from minigpt4.checkpoints import pocket
from minigpt4.cli import app

ROOT = Path(__file__).parents[1]
GUIDES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "minigpt4/pocket/README.md"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *GUIDES]
OTHERS = {"git", "pip", "./run test", "./run setup"}
PROGRAM = typer.main.get_command(app)
NOT_RUN = {
    "converse": "ten rounds take a while; run by test_cli_dialogue.py",
    "train": "run by test_docs_own_data.py",
    "web": "goes on until it is stopped; run by test_page.py",
    "serve": "goes on until it is stopped; run by test_serve_chat.py",
    "curate": "asks two models for minutes; run by test_curate.py",
}


def shown(page: Path) -> list[list[str]]:
    """The commands of a page, in words, without what is not for minigpt4."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]
    found = [shlex.split(line, comments=True) for line in lines]
    return [words for words in found if words and not {words[0], " ".join(words[:2])} & OTHERS]


def parsed(words: list[str]) -> None:
    """Raises an error of the command line's if it cannot be given like this."""
    program, *rest = words
    assert program in ("minigpt4", "./run"), f"{program}: a program that this test does not know"
    command = PROGRAM
    while hasattr(command, "commands"):
        name, *rest = rest
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    command.make_context(words[1], list(rest))
    for word in rest:
        if re.match(r"(recipes|docs|tests|minigpt4|benchmarks)/", word):
            assert (ROOT / word).exists(), f"{word}: no such file"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_can_be_given_as_it_is_shown(page):
    for words in shown(page):
        try:
            parsed(words)
        except Exception as error:
            pytest.fail(f"{shlex.join(words)}: {getattr(error, 'message', error)}")


def test_mistakes_would_be_found():
    unknown = ["./run aks photo.jpg x", "minigpt4 ask photo.jpg x --num-beam 3", "minigpt4 evaluate run pope --limit many"]
    for wrong in [*unknown, "./run train recipes/none.yaml", "rm photo.jpg"]:
        with pytest.raises(Exception, match=r".") as caught:
            parsed(shlex.split(wrong))
        assert not isinstance(caught.value, IndexError)


def test_packages_are_installed_by_names_that_there_are():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for page in PAGES:
        for line in re.findall(r"pip install .*", page.read_text(encoding="utf-8")):
            assert set(re.findall(r"\[([\w-]+)\]", line.partition("`")[0])) <= set(extras), line


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A place with what the README's commands name, and a tiny system as the pocket model."""
    place = tmp_path_factory.mktemp("readme")
    tiny_folder(place / "tiny")
    (place / "tiny/generation_config.json").write_text('{"max_new_tokens": 4, "eos_token_id": 2, "pad_token_id": 0}')
    (place / "holiday").mkdir()
    for name in ("photo.jpg", "a.jpg", "b.jpg", "holiday/1.jpg", "holiday/2.jpg"):
        Image.linear_gradient("L").convert("RGB").save(place / name)
    rows = [{"image": name, "captions": ["a dog runs", "a brown dog"]} for name in ("a.jpg", "b.jpg")]
    (place / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


@pytest.fixture
def as_pocket(here, monkeypatch):
    monkeypatch.chdir(here)
    monkeypatch.setitem(pocket.FOLDERS, "pocket", here / "tiny")
    monkeypatch.setattr("sys.stdin", io.StringIO(""))


COMMANDS = [words[1:] for words in shown(PAGES[0])]


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] not in NOT_RUN], ids=" ".join)
def test_the_readme_s_commands_do_what_it_says(words, as_pocket):
    done = CliRunner().invoke(app, words, input="What is it?\n/quit\n", catch_exceptions=False)
    assert done.exit_code == 0, done.output
    for option in ("--draw", "--output"):
        if option in words:
            assert Path(words[words.index(option) + 1]).stat().st_size


def test_what_is_not_run_is_shown():
    assert set(NOT_RUN) <= {words[0] for words in COMMANDS}


def test_the_readme_s_python_runs(as_pocket):
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGES[0].read_text(encoding="utf-8"), re.M | re.S)
    names: dict = {}
    exec(code, names)
    assert Path("drawn.png").exists()
    assert isinstance(names["model"], minigpt4.Assistant)


def test_the_readme_has_what_a_newcomer_looks_for():
    text = PAGES[0].read_text(encoding="utf-8")
    for wanted in (
        "arxiv.org/abs/2304.10592",
        "arxiv.org/abs/2310.09478",
        "github.com/Vision-CAIR/MiniGPT-4",
        "pip install",
        "trained on research data",
        "a second in batches",
        "vision encoder | connector | language model",
        "CITATION.cff",
    ):
        assert wanted in text
    for target in re.findall(r"\]\(((?!http)[^)#]+)", text):
        assert (ROOT / target).exists(), target
