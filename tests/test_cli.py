"""The commands as a user types them: what they print, what they refuse, what they leave behind."""

import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch
import typer.main
from commands import PLAIN, QUICK, finish, here, refused, run, start, system, world, write_lines, written  # noqa: F401  (fixtures)
from PIL import Image

import minigpt4
from minigpt4 import cli
from minigpt4.cli import app
from minigpt4.cli.options import System

# ask --------------------------------------------------------------------------------------------------------------------


def test_ask_prints_the_answer_as_it_is_in_python(run, here, system):
    expected = system.ask("0.png", "hm?")
    assert len(expected) > 20
    assert run("ask", "0.png", "hm?", *PLAIN) == (0, expected + "\n", "")
    status, out, _ = run("ask", "0.png", "hm?", "--json", *PLAIN)
    assert status == 0
    assert json.loads(out) == {"image": "0.png", "question": "hm?", "answer": expected}


def test_several_photos_go_before_one_question(run, here, system):
    expected = system.ask(["0.png", "1.png"], "hm?")
    assert expected != system.ask(["1.png", "0.png"], "hm?")
    assert run("ask", "0.png", "1.png", "hm?", *PLAIN)[1] == expected + "\n"
    row = json.loads(run("ask", "0.png", "1.png", "hm?", "--json", *PLAIN)[1])
    assert row == {"image": ["0.png", "1.png"], "question": "hm?", "answer": expected}


def test_decoding_options_do_what_they_do_in_transformers(run, here, system):
    def ask(*options):
        status, out, err = run("ask", "0.png", "hm?", *PLAIN, *options)
        assert (status, err) == (0, ""), err
        return out.rstrip("\n")

    greedy = ask()
    short = ask("--max-new-tokens", 7)
    assert greedy.startswith(short)
    assert 0 < len(short) <= 7
    assert ask("--num-beams", 3, "--max-new-tokens", 20) == system.ask("0.png", "hm?", num_beams=3, max_new_tokens=20)
    assert ask("--num-beams", 3, "--length-penalty", -5) == system.ask("0.png", "hm?", num_beams=3, length_penalty=-5.0)
    sampled = [ask("--do-sample", "--seed", seed, "--max-new-tokens", 30) for seed in (0, 0, 1, 1)]
    assert sampled[0] == sampled[1] != sampled[2] == sampled[3]
    assert ask("--temperature", "0.0001", "--max-new-tokens", 7) == short  # implies sampling, almost greedy
    assert ask("--temperature", "50", "--seed", 3, "--max-new-tokens", 7) != short
    assert ask("--top-k", 1, "--max-new-tokens", 7) == short
    assert ask("--top-p", 0.0, "--max-new-tokens", 7) == short
    distinct = ask("--no-repeat-ngram-size", 1, "--max-new-tokens", 30)
    assert len(set(distinct)) == len(distinct)
    assert not greedy.startswith(ask("--repetition-penalty", 1000.0))
    several = {"self_consistency": 4, "max_new_tokens": 20}
    assert ask("--self-consistency", 4, "--max-new-tokens", 20) == system.ask("0.png", "hm?", **several)
    assert ask("--self-consistency", 4, "--mirrored", "--max-new-tokens", 20) == system.ask(
        "0.png", "hm?", mirrored=True, **several
    )
    assert "mirrored goes with self_consistency of 4 or more" in refused(run("ask", "0.png", "hm?", "--mirrored", *PLAIN))
    longest = system.ask("0.png", "hm?", min_new_tokens=250, max_new_tokens=250)
    assert ask("--min-new-tokens", 250, "--max-new-tokens", 250) == longest
    assert len(longest) > len(greedy)


def test_what_ask_refuses(run, here):
    hint = 'ask needs a photo and then a question: minigpt4 ask photo.jpg "What is in this picture?"'
    assert refused(run("ask")) == hint
    assert refused(run("ask", "0.png")) == hint
    assert refused(run("ask", "0.png", "1.png")) == hint
    assert refused(run("ask", "0.png", " ")) == hint
    assert refused(run("ask", "nowhere.png", "hm?")) == "nowhere.png: no such file"
    assert "goes into quotes" in refused(run("ask", "0.png", "What", "is", "this?"))
    assert refused(run("ask", "0.png", "nowhere.png", "hm?")) == "nowhere.png: no such file"
    assert "go into quotes (see: minigpt4 refer --help)" in refused(run("refer", "0.png", "the", "cat"))
    wrong = refused(run("ask", "0.png", "hm?", "--backend", "onxx"))
    assert wrong.startswith("Invalid value for '--backend': 'onxx' is not one of")
    assert refused(run("ask", "0.png", "photos", "hm?")) == "photos: is a folder, not a picture"
    assert refused(run("ask", "letters/notes.txt", "hm?")) == "letters/notes.txt: not a picture in a format that can be read"
    assert refused(run("ask", "What is in this picture? " * 100, "0.png", "hm?")).endswith("File name too long)")
    assert "unknown task identifier [nope]" in refused(run("ask", "0.png", "[nope] x"))
    assert refused(run("ask", "--output", "x.jsonl", "0.png", "hm?")) == "--output goes with --input FILE"
    assert refused(run("ask", "--input", "x.jsonl")) == "--input needs --output FILE for the answers"
    assert "not both" in refused(run("ask", "--input", "x.jsonl", "0.png", "hm?"))
    assert "--draw goes with one photo" in refused(run("ask", "--input", "x.jsonl", "--output", "y", "--draw", "z.png"))
    assert "no such folder" in refused(run("ask", "0.png", "hm?", "--model", "nowhere"))
    assert refused(run("ask", "0.png", "hm?", "--device", "toaster")).startswith("toaster: no such device")
    assert refused(run("ask", "0.png", "hm?", "--device", "meta")).startswith("meta: this machine has no such device")
    if not torch.cuda.is_available():
        assert refused(run("ask", "0.png", "hm?", *PLAIN, "--device", "cuda")).startswith(
            "cuda: this machine has no such device"
        )


def test_command_lines_that_make_no_sense_are_one_line_too(run):
    cases = {
        ("ask", "--max-tokens", "3"): "No such option: --max-tokens",
        ("nope",): "No such command 'nope'",
        ("--nope",): "No such option: --nope",
        ("caption",): "Missing argument",
        ("ask", "--top-p", "2", "0.png", "hm?"): "Invalid value for '--top-p'",
        ("ask", "--max-new-tokens", "many", "0.png", "hm?"): "Invalid value for '--max-new-tokens'",
        ("ask", "--dtype", "int3", "0.png", "hm?"): "Invalid value for '--dtype'",
        ("caption", "--batch-size", "0", "0.png"): "Invalid value for '--batch-size'",
    }
    for arguments, said in cases.items():
        message = refused(run(*arguments))
        assert message.startswith(said)
        assert message.endswith("--help)")


def test_help_and_version(run):
    assert run("--version") == (0, minigpt4.__version__ + "\n", "")
    for arguments in (("--help",), ("ask", "-h"), ("chat", "--help")):
        status, out, err = run(*arguments)
        assert (status, err) == (0, "")
        assert "Usage: minigpt4" in out
    status, out, _ = run()
    assert status == 2
    assert "caption" in out


def test_square_brackets_of_help_texts_are_shown(run, monkeypatch):
    """Help is read as markup, where `[cpu]` is a colour: "pip install 'minigpt4[cpu]'" lost what it was about."""
    monkeypatch.setenv("COLUMNS", "200")
    assert "'minigpt4[cpu]'" in run("ask", "--help")[1]
    assert "like [vqa]." in run("evaluate", "run", "--help")[1]
    commands = [typer.main.get_command(app)]
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        texts = [command.help or "", *(getattr(param, "help", None) or "" for param in command.params)]
        assert not [text for text in texts if re.search(r"(?<!\\)\[[a-z/]", text)]


def test_a_question_that_is_too_long_says_how_much_too_long(run, here):
    message = refused(run("ask", "0.png", "why? " * 20_000, *PLAIN))
    assert "100,0" in message  # tokens of this system are characters
    assert message.endswith("context of 512")
    assert len(message) < 300


def test_names_that_are_no_text(here, run):
    """File names of other times and places: bytes that are not UTF-8."""
    name = os.fsdecode(b"caf\xe9.png")
    (here / name).write_bytes((here / "0.png").read_bytes())
    status, out, err = finish(start("caption", name, "0.png", "--max-new-tokens", "5", *QUICK, cwd=here))
    assert (status, err) == (0, "")
    assert out.count("\n") == 2
    status, out, _ = run("caption", name, "--json", "--max-new-tokens", 5, *PLAIN)
    assert json.loads(out)["image"] == name
    write_lines("in.jsonl", {"image": name, "question": "hm\ud800?"})
    assert run("ask", "--input", "in.jsonl", "--output", "out.jsonl", *PLAIN)[0] == 0
    assert written("out.jsonl")[0]["image"] == name


def test_a_system_that_is_broken_is_refused_in_a_line(run, here, world):
    names = sorted(path.name for path in (world / "base").iterdir())
    assert len(names) >= 5
    for name in names:
        for spoil in (None, b"", b"{", b"[]", b'{"a": 1}', b"\x80\xff" * 50):
            broken = here / "broken"
            broken.mkdir(exist_ok=True)
            for path in (world / "base").iterdir():
                (broken / path.name).write_bytes(path.read_bytes())
            if spoil is None:
                (broken / name).unlink()
            else:
                (broken / name).write_bytes(spoil)
            if name in ("generation_config.json", "tokenizer_config.json") and spoil in (None, b'{"a": 1}'):
                continue  # may be missing, and may say what this version does not know
            result = run("ask", "0.png", "hm?", "--model", "broken", "--dtype", "float32")
            assert result[0] == 2, (name, spoil, result)
            message = refused(result)
            assert message.startswith("broken"), (name, spoil, message)


# caption ----------------------------------------------------------------------------------------------------------------


def test_caption_one_several_and_a_folder(run, here, system):
    long, options = {"min_new_tokens": 5, "max_new_tokens": 12}, ("--min-new-tokens", 5, "--max-new-tokens", 12, *PLAIN)
    one = system.caption("0.png", **long)
    assert run("caption", "0.png", *options) == (0, one + "\n", "")
    names = ["photos/a.JPG", "photos/b.webp", "photos/c.png", "photos/more/d.gif"]
    expected = list(zip(names, system.caption(names, **long), strict=True))
    assert len({text for _, text in expected}) > 1
    assert run("caption", "photos", *options) == (
        0,
        "".join(f"{name}: {' '.join(text.split())}\n" for name, text in expected),
        "",
    )
    status, out, _ = run("caption", "photos", "--json", "--batch-size", 3, *options)
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == [{"image": n, "caption": t} for n, t in expected]
    assert run("caption", "photos", "--output", "new/captions.jsonl", *options) == (0, "", "")
    assert [(row["image"], row["caption"]) for row in written("new/captions.jsonl")] == expected


def test_what_is_left_out_of_a_folder_is_one_line(run, here):
    (here / "mixed").mkdir()
    Image.new("RGB", (8, 8)).save("mixed/a.png")
    Path("mixed/b\x1b.txt").write_text("no picture")
    status, out, err = run("caption", "mixed", *PLAIN)
    assert (status, out.count("\n")) == (0, 1)
    assert err == "mixed: 1 of 2 files are left out, they are no pictures (.txt 1)\n"


def test_a_bad_photo_does_not_keep_others_from_their_captions(run, here):
    Path("cut.jpg").write_bytes(b"")
    Image.new("RGB", (64, 64), "red").save("whole.jpg")
    Path("cut.jpg").write_bytes(Path("whole.jpg").read_bytes()[:-100])
    status, out, err = run("caption", "cut.jpg", "0.png", "nowhere.png", "1.png", *PLAIN)
    assert status == 1
    assert [line.split(":")[0] for line in out.splitlines()] == ["0.png", "1.png"]
    assert [line.split(":")[1].strip() for line in err.splitlines()] == ["cut.jpg", "nowhere.png"]
    assert "damaged or cut short" in err
    status, out, err = run("caption", "cut.jpg", "0.png", "--output", "out.jsonl", *PLAIN)
    assert (status, [row["image"] for row in written("out.jsonl")]) == (1, ["0.png"])
    assert refused(run("caption", "nowhere.png", *PLAIN)) == "nowhere.png: no such file"
    assert run("caption", "nowhere.png", "letters/notes.txt", *PLAIN)[0] == 2
    (here / "empty").mkdir()
    assert refused(run("caption", "empty", *PLAIN)) == "empty: no pictures in this folder"
    assert refused(run("caption", "photos", "--model", "nowhere")).startswith("nowhere: no such folder")


def test_captions_of_a_folder_go_on_where_they_stopped(run, here, system, monkeypatch):
    assert run("caption", "photos", "--output", "out.jsonl", *PLAIN)[0] == 0
    whole = Path("out.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    Path("out.jsonl").write_bytes(lines[1] + lines[3] + lines[0][:20])  # two done, a third cut short
    asked = []
    plain = minigpt4.Assistant.caption
    monkeypatch.setattr(minigpt4.Assistant, "caption", lambda self, p, **k: asked.extend(p) or plain(self, p, **k))
    assert run("caption", "photos", "--output", "out.jsonl", *PLAIN)[0] == 0
    assert Path("out.jsonl").read_bytes() == whole
    assert [str(p) for p in asked] == ["photos/a.JPG", "photos/c.png"]
    monkeypatch.setattr(System, "load", lambda _: pytest.fail("everything is done: nothing should be loaded"))
    assert run("caption", "photos", "--output", "out.jsonl", *PLAIN) == (0, "", "")


# leaving early ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", ["", "1"])
def test_a_reader_that_leaves_is_no_accident(here, at_once, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", at_once)
    process = start("caption", *["photos/a.JPG"] * 200, "--batch-size", 1, "--max-new-tokens", 30, *QUICK, cwd=here)
    assert process.stdout.readline().startswith(b"photos/a.JPG: ")
    process.stdout.close()
    assert process.wait(timeout=120) == 1
    assert process.stderr.read() == b""


def test_ctrl_c_leaves_quietly(here):
    process = start("ask", "0.png", "hm?", "--min-new-tokens", 400, "--max-new-tokens", 400, *QUICK, cwd=here)
    assert process.stdout.read(1)  # the answer arrives as it is made
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert (status, err) == (130, "")


def test_all_of_it_in_a_process_of_its_own(here, system):
    """What the quick start-up and the real standard output make of it."""
    expected = system.ask("0.png", "hm?")
    assert finish(start("ask", "0.png", "hm?", *PLAIN, cwd=here)) == (0, expected + "\n", "")
    assert refused(finish(start("ask", "nowhere.png", "hm?", cwd=here))) == "nowhere.png: no such file"


def test_a_defect_shows_its_traceback(run, here, monkeypatch):
    """What is not the user's mistake is not dressed up as one."""

    def defect(*_, **__):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(minigpt4.Assistant, "stream", defect)
    monkeypatch.setattr(sys, "argv", ["minigpt4", "ask", "0.png", "hm?", *PLAIN])
    with pytest.raises(ZeroDivisionError):
        cli.main()

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMany lines.")

    monkeypatch.setattr(minigpt4.Assistant, "stream", full)
    assert "not enough memory on the device" in refused(run("ask", "0.png", "hm?", *PLAIN))


def test_without_a_terminal_transformers_draws_no_bars():
    from transformers.utils import logging

    from minigpt4.cli.options import import_quickly

    before = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    try:
        import_quickly()  # as every command does that loads a model
        assert not logging.is_progress_bar_enabled()
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()
