"""./run: prepares the environment once, and passes everything on. Python and its installer are stand-ins that take notes."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "run"

PYTHON = r"""#!/bin/sh
# Stands in for Python: makes environments out of copies of itself and writes down what it was asked.
printf '%s\n' "$*" >>"$NOTES"
case "$*" in
*"-m venv "*)
    for folder; do :; done
    case "$*" in *--clear*) rm -rf "$folder" ;; esac
    mkdir -p "$folder/bin"; cp "$0" "$folder/bin/python" ;;
*"pip install"*)
    sleep "${SLOW:-0}"
    case "$*" in *"[cpu"*) [ -z "${NO_WHEEL:-}" ] || exit 1 ;; esac
    exit "${INSTALL:-0}" ;;
"-m minigpt4"*) printf 'answer to %s\n' "$3"; exit "${STATUS:-0}" ;;
"-m $BROKEN"*) exit 1 ;;
esac
"""


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone in a folder with a space, with nothing installed."""
    folder = tmp_path / "my clone"
    folder.mkdir()
    shutil.copy(RUN, folder)
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).write_text(name)
    python = tmp_path / "bin/python3"
    python.parent.mkdir()
    python.write_text(PYTHON)
    python.chmod(0o755)
    monkeypatch.setenv("PATH", f"{python.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("BROKEN", "nothing")
    for name in ("PYTHON", "MINIGPT4_VENV"):
        monkeypatch.delenv(name, raising=False)
    return folder


def run(clone, *args, **more):
    env = os.environ | {key: str(value) for key, value in more.items()}
    return subprocess.run([clone / "run", *args], capture_output=True, text=True, env=env, cwd=clone.parent, check=False)


def asked(clone, what=""):
    notes = clone.parent / "notes"
    return [line for line in notes.read_text().splitlines() if what in line] if notes.exists() else []


def test_the_first_command_prepares_and_the_second_does_not(clone):
    first = run(clone, "ask", "a photo.jpg", "What is it?")
    assert (first.returncode, first.stdout) == (0, "answer to ask\n"), first.stderr
    assert "once" in first.stderr
    (install,) = asked(clone, "pip install")
    assert f"--constraint {clone}/constraints.txt" in install
    assert install.endswith(f"--editable {clone}[cpu]")
    second = run(clone, "ask", "a photo.jpg", "What is it?")
    assert (second.stdout, second.stderr) == ("answer to ask\n", "")
    assert len(asked(clone, "pip install")) == 1
    assert len(asked(clone, "-m venv")) == 1
    assert asked(clone, "-m minigpt4")[-1] == "-m minigpt4 ask a photo.jpg What is it?"


def test_the_exit_status_is_the_commands(clone):
    assert run(clone, "ask", STATUS=2).returncode == 2


def test_changed_declarations_are_installed_again(clone):
    run(clone, "setup")
    (clone / "pyproject.toml").write_text("more")
    run(clone, "setup")
    assert len(asked(clone, "pip install")) == 2
    assert len(asked(clone, "-m venv")) == 1


def test_tests_install_what_they_need(clone):
    assert run(clone, "test", "-k", "boxes").returncode == 0
    assert asked(clone, "pip install")[0].endswith("[test]")
    assert asked(clone)[-1] == "-m pytest -k boxes"
    run(clone, "ask")  # what the tests need includes what everything else needs
    assert len(asked(clone, "pip install")) == 1


def test_tests_that_fail_are_told_by_the_exit_status(clone):
    assert run(clone, "test", BROKEN="pytest").returncode == 1


def test_an_installation_that_fails_is_said_and_tried_again(clone):
    failed = run(clone, "ask", INSTALL=1)
    assert failed.returncode == 2
    assert "registry" in failed.stderr
    assert not asked(clone, "-m minigpt4")
    assert run(clone, "ask").stdout == "answer to ask\n"


@pytest.mark.parametrize("state", ["empty", "killed"])
def test_an_environment_that_was_not_finished_is_made_again(clone, state):
    (clone / ".venv/bin").mkdir(parents=True)
    if state == "killed":  # while pip was put into it
        (clone / ".venv/bin/python").write_text("#!/bin/sh\nexit 1\n")
        (clone / ".venv/bin/python").chmod(0o755)
    assert run(clone, "ask").stdout == "answer to ask\n"


def test_a_command_brings_what_it_needs(clone):
    for command in ("ask", "web", "serve", "train", "caption", "web"):
        assert run(clone, command).returncode == 0
    extras = [line.rpartition("[")[2].rstrip("]").split(",") for line in asked(clone, "pip install")]
    assert extras == [["cpu"], ["cpu", "serve"], ["cpu", "train", "data"]]
    declared = tomllib.loads((RUN.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    told = re.findall(r"install \w+ \"\[([\w,]+)\]\"", RUN.read_text())
    assert len(told) > 5
    assert {extra for some in told for extra in some.split(",")} <= set(declared)


def test_where_there_is_no_faster_answer_there_is_one(clone):
    done = run(clone, "ask", NO_WHEEL=1)
    assert (done.returncode, done.stdout) == (0, "answer to ask\n"), done.stderr
    assert "Without the packages for a faster answer" in done.stderr
    assert [line.endswith("[cpu]") for line in asked(clone, "pip install")] == [True, False]
    assert run(clone, "ask", NO_WHEEL=1).stderr == ""
    assert run(clone, "serve", NO_WHEEL=1).stdout == "answer to serve\n"
    assert asked(clone, "pip install")[-1].endswith("[serve]")


@pytest.mark.parametrize("target", ["absolute", "relative", "link to a link"])
def test_a_symbolic_link_leads_to_the_project(clone, tmp_path, target):
    (tmp_path / "bin2").mkdir()
    link = tmp_path / "bin2/minigpt4"
    link.symlink_to(clone / "run" if target == "absolute" else f"../{clone.name}/run")
    if target == "link to a link":
        (tmp_path / "other").symlink_to("bin2/minigpt4")
        link = tmp_path / "other"
    said = subprocess.run([link, "ask"], capture_output=True, text=True, cwd="/", check=False)
    assert (said.returncode, said.stdout) == (0, "answer to ask\n"), said.stderr
    assert asked(clone, "pip install")[0].endswith(f"--editable {clone}[cpu]")
    assert (clone / ".venv").is_dir()


@pytest.mark.parametrize("harm", ["gone", "link to nothing", "interpreter gone"])
def test_a_vanished_python_is_noticed_and_made_anew(clone, harm):
    run(clone, "ask")
    python = clone / ".venv/bin/python"
    python.unlink()
    if harm == "link to nothing":
        python.symlink_to("/nowhere/python3.11")
    elif harm == "interpreter gone":
        python.write_text("#!/nowhere/python3.11\n")
        python.chmod(0o755)
    again = run(clone, "ask")
    assert (again.returncode, again.stdout) == (0, "answer to ask\n"), again.stderr
    assert "is gone (upgraded, or moved)" in again.stderr
    assert len(again.stderr.splitlines()) == 1
    assert run(clone, "ask").stderr == ""


def test_a_moved_project_is_installed_anew(clone):
    run(clone, "ask")
    moved = clone.rename(clone.with_name("elsewhere"))
    assert run(moved, "ask").stdout == "answer to ask\n"
    assert asked(moved, "pip install")[-1].endswith(f"--editable {moved}[cpu]")


def test_an_environment_whose_python_was_upgraded_is_made_again(clone, tmp_path):
    """Its link leads to another Python now, which starts well and knows no package."""
    run(clone, "ask")
    python, system = clone / ".venv/bin/python", tmp_path / "python3.11"
    python.rename(system)
    python.symlink_to(system)
    run(clone, "ask")  # as environments are
    newer = tmp_path / "python3.12"
    newer.write_text(system.read_text().replace('"-m $BROKEN"*)', '"-m pip --version" | "-m $BROKEN"*)'))
    newer.chmod(0o755)
    python.unlink()
    python.symlink_to(newer)
    done = run(clone, "ask")
    assert done.stdout == "answer to ask\n", done.stderr
    assert "made anew" in done.stderr
    assert len(asked(clone, "-m venv --clear")) == 1
    assert run(clone, "ask").stderr == ""


def test_two_first_commands_at_once_install_once(clone):
    env = os.environ | {"SLOW": "1"}
    both = [subprocess.Popen([clone / "run", "ask"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in "ab"]
    assert [process.communicate(timeout=60)[0] for process in both] == [b"answer to ask\n"] * 2
    assert len(asked(clone, "pip install")) == 1


def test_another_place_and_another_python(clone, tmp_path):
    other = shutil.copy(tmp_path / "bin/python3", tmp_path / "other python")
    done = run(clone, "ask", PYTHON=other, MINIGPT4_VENV="some where")
    assert done.stdout == "answer to ask\n", done.stderr
    assert (tmp_path / "some where/bin/python").exists()  # relative to where the command was given
    assert not (clone / ".venv").exists()


def test_a_python_that_is_none_is_said(clone):
    done = run(clone, "ask", PYTHON="/nowhere/python")
    assert done.returncode == 2
    assert "PYTHON=/nowhere/python" in done.stderr
    assert not (clone / ".venv").exists()


def test_preparing_alone_says_nothing_on_standard_output(clone):
    done = run(clone, "setup")
    assert (done.returncode, done.stdout) == (0, "")
    assert not asked(clone, "-m minigpt4")
