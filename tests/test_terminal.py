"""What reaches a terminal: others' words do nothing there, and streams that are closed or full are one line."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import PLAIN, here, refused, run, world, write_lines  # noqa: F401  (fixtures)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minigpt4.cli.terminal import harmless, standard_streams
from minigpt4.inference.assistant import Assistant

NASTY = "\x1b[31mred\x9b2J \u202egnp.exe \x07\rdone [/b] [bold]x[/bold] :smile:"
OBEYED = {chr(c) for c in [*range(32), *range(127, 160)]} | set(
    "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2069"
)


@given(st.text())
def test_nothing_is_obeyed_and_json_stays_json(text):
    assert not OBEYED & set(harmless(text))
    assert OBEYED & set(harmless(text, lines=True)) <= {"\n", "\t"}
    assert json.loads(harmless(json.dumps({"a": text}, ensure_ascii=False))) == {"a": text}
    if not OBEYED & set(text):
        assert harmless(text) == text


def clean(*streams):
    for text in streams:
        assert not (OBEYED - {"\n", "\t"}) & set(text), text


def test_letters_that_a_stream_lacks_and_halves_of_characters_are_written_out(here):
    """Under an encoding of few letters; bytes of a name that is no text pass as they are."""
    code = "from minigpt4.cli.terminal import say_line, standard_streams as s\nwith s(): say_line('\\u00e9\\ud800\\udcff')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"\\xe9\\ud800\xff\n"), done.stderr


def test_the_log_tells_of_a_defect_whole(capsys):
    with standard_streams():
        try:
            raise RuntimeError("broken \x1b[2J")
        except RuntimeError:
            logging.getLogger("minigpt4.serve").exception("a request failed")
    err = capsys.readouterr().err
    assert "a request failed\nTraceback" in err
    assert "RuntimeError: broken \\u001b[2J" in err


def test_answers_and_names_do_nothing_to_a_terminal(run, here, monkeypatch):
    monkeypatch.setattr(Assistant, "caption", lambda self, images, **_: [NASTY for _ in images])
    name = "a\x1b[2J\nb.png"
    Image.new("RGB", (8, 8)).save(here / name)
    status, out, err = run("caption", name, "0.png", *PLAIN)
    assert (status, out.count("\n")) == (0, 2)
    assert out.startswith("a\\u001b[2J\\nb.png: \\u001b[31mred")
    clean(out, err)
    row = json.loads(run("caption", name, "--json", *PLAIN)[1])
    assert row == {"image": name, "caption": NASTY}
    for command in (("caption", f"gone{NASTY}\n.png"), ("caption", "0.png", "--model", f"no{NASTY}\n"), ("refer", name, NASTY)):
        out, err = run(*command, *PLAIN)[1:]
        clean(out, err)
        assert err.count("\n") <= 1


def test_data_show_and_check_print_others_words_as_they_stand(run, here):
    """Square brackets are no markup, and codes are written out."""
    Image.new("RGB", (8, 8)).save(here / "p[red].png")
    good = {"image": "p[red].png", "answer": "an answer [/b] [link=x]y[/link] \x1b[2J :smile:", "id": "[/x]\x1b[2J\n"}
    write_lines("rows.jsonl", good)
    Path("r.yaml").write_text(
        "model: {base: base}\ntrained: {projection: true}\noutput: out\nsteps: 1\nschedule: {lr: 0.001, warmup_steps: 0}\n"
        "data: {batch: 1, datasets: [{format: jsonl, name: 'n[/x]', annotations: rows.jsonl}]}\n"
    )
    status, out, err = run("data", "show", "r.yaml", "-n", 1)
    assert (status, err) == (0, "")
    clean(out)
    assert "[/x]\\u001b[2J\\n" in out
    assert "[/b] [link=x]y[/link] <unk>[2J :smile:" in out  # the tiny tokenizer has no such code
    assert "p[red].png" in out
    write_lines("rows.jsonl", good, {"image": "gone[/x]\x1b.png", "answer": "b"})
    status, out, err = run("data", "check", "r.yaml")
    assert (status, err) == (1, "")
    clean(out)
    assert "n[/x]: 1 x missing picture" in out
    assert "gone[/x]\\u001b.png" in out.replace("\n", "")


# streams that are closed or full ------------------------------------------------------------------------------------------


def shell(here, line):
    """A line for the shell; the command is ``$M``."""
    env = {**os.environ, "M": f"{sys.executable} -m minigpt4", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", line], cwd=here, env=env, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full device")
@pytest.mark.parametrize("at_once", ["", "1"])
def test_a_full_standard_output_is_one_line(here, at_once, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", at_once)
    for command in ("--help", "--version", "caption 0.png --model quick", "evaluate score p.jsonl"):
        write_lines(here / "p.jsonl", {"benchmark": "vsr", "image": "a", "statement": "x", "label": True, "answer": "true"})
        assert (
            refused(shell(here, f"$M {command} > /dev/full")) == "standard output: cannot be written (No space left on device)"
        )
    assert shell(here, "$M caption gone.png 2> /dev/full") == (2, "", "")


def test_closed_streams(here):
    assert refused(shell(here, "$M caption 0.png --model quick >&-")) == "standard output: cannot be written (it is closed)"
    assert shell(here, "$M caption 0.png --model quick --output o.jsonl >&-") == (0, "", "")
    assert (here / "o.jsonl").read_text().startswith('{"image": "0.png", "caption": ')
    assert shell(here, "$M chat 0.png --model quick <&-") == (0, "", "")
    assert shell(here, "$M caption gone.png 2>&-") == (2, "", "")
    assert shell(here, "$M caption 0.png --model quick --output o2.jsonl <&- >&- 2>&-") == (0, "", "")
    assert (here / "o2.jsonl").read_bytes() == (here / "o.jsonl").read_bytes()


def test_a_reader_that_has_left_is_no_mistake(here):
    assert shell(here, "set -o pipefail; $M --help | true; exit 0")[2] == ""
