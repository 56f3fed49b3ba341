"""Files of questions: answers in order, bad lines named, nothing lost when the disk is full or the process killed."""

import errno
import json
import os
import resource
import shutil
import time
from pathlib import Path

import pytest
from commands import PLAIN, QUICK, asked, finish, here, refused, run, start, system, world, write_lines, written  # noqa: F401  (fixtures)
from PIL import Image
from safetensors.torch import load_file, save_file

import minigpt4
from minigpt4.io.jsonl import Output, read_rows
from minigpt4.io.lock import hold

QUESTIONS = [
    {"image": "0.png", "question": "what?", "id": 7},
    {"image": ["1.png", "2.png"], "question": "which?", "extra": {"nested": [1, None, "é"]}},
    {"image": "3.png", "question": "where?"},
    {"image": "0.png", "question": "what?", "id": 7},
    {"image": "4.png", "question": "why?"},
]


def test_answers_are_the_rows_with_answers_in_order(run, here, system):
    write_lines("in.jsonl", *QUESTIONS)
    assert run("ask", "--input", "in.jsonl", "--output", "out.jsonl", "--batch-size", 2, *PLAIN) == (0, "", "")
    rows = written("out.jsonl")
    assert asked("out.jsonl") == QUESTIONS
    for row in rows:
        assert row["answer"] == system.ask(row["image"], row["question"])
    assert "é" in Path("out.jsonl").read_text()


def test_bad_lines_are_named_and_the_others_are_answered(run, here):
    write_lines(
        "in.jsonl",
        QUESTIONS[0],
        "{'single': 'quotes'}",
        "",
        "[1, 2]",
        {"image": "0.png"},
        {"image": 7, "question": "?"},
        {"image": [], "question": "?"},
        {"image": "0.png", "question": 7},
        {"image": "nowhere.png", "question": "?"},
        {"image": "letters/notes.txt", "question": "?"},
        {"image": "0.png", "question": "why? " * 20_000},
        {"image": "0.png", "question": "[nope] where?"},
        "[" * 100_000,
        QUESTIONS[2],
    )
    with open("in.jsonl", "ab") as file:
        file.write(b'{"image": "0.png", "question": "caf\xe9"}\n')
        file.write(json.dumps(QUESTIONS[4]).encode())  # the last line need not end
    status, out, err = run("ask", "--input", "in.jsonl", "--output", "out.jsonl", *PLAIN)
    assert (status, out) == (1, "")
    assert [row["question"] for row in written("out.jsonl")] == ["what?", "where?", "why?"]
    said = {int(line.split(":")[2]): line.split(":", 3)[3].strip() for line in err.splitlines()}
    assert all(line.startswith("error: in.jsonl:") for line in err.splitlines())
    assert sorted(said) == [2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15]
    expected = {
        2: "not JSON (",
        4: "expected a JSON object, found list",
        5: 'no "question" (a line is {"image": FILE, "question": TEXT})',
        6: '"image" must be a file name, or a list of them',
        7: '"image" must be a file name, or a list of them',
        8: '"question" must be text',
        9: "nowhere.png: no such file",
        10: "letters/notes.txt: not a picture",
        11: "the question is too long",
        12: "unknown task identifier [nope]",
        13: "not JSON that can be read (nested too deeply)",
        15: "not UTF-8 text",
    }
    for line, beginning in expected.items():
        assert said[line].startswith(beginning), said[line]


def test_a_line_mended_later_takes_its_place(run, here):
    write_lines("in.jsonl", QUESTIONS[0], {"image": "5.png", "question": 5}, QUESTIONS[2])
    assert run("ask", "--input", "in.jsonl", "--output", "out.jsonl", *PLAIN)[0] == 1
    Path("out.jsonl").chmod(0o640)
    mended = {"image": "5.png", "question": "five?"}
    write_lines("in.jsonl", QUESTIONS[0], mended, QUESTIONS[2])
    assert run("ask", "--input", "in.jsonl", "--output", "out.jsonl", *PLAIN) == (0, "", "")
    assert [row["question"] for row in written("out.jsonl")] == ["what?", "five?", "where?"]
    assert {p.name for p in here.iterdir() if p.is_file()} >= {"in.jsonl", "out.jsonl"}
    assert not [p for p in here.iterdir() if "partial" in p.name or p.name.startswith("tmp")]


def test_windows_files_and_images_beside_the_file(run, here, tmp_path):
    (here / "elsewhere").mkdir()
    Image.new("RGB", (8, 8), "red").save("elsewhere/there.png")
    row = json.dumps({"image": "there.png", "question": "hm?"})
    Path("elsewhere/in.jsonl").write_bytes(b"\xef\xbb\xbf" + row.encode() + b"\r\n" + row.encode() + b"\r\n")
    assert run("ask", "--input", "elsewhere/in.jsonl", "--output", "out.jsonl", *PLAIN) == (0, "", "")
    assert [row["image"] for row in written("out.jsonl")] == ["there.png"] * 2


def test_outputs_that_are_something_else_are_left_alone(run, here):
    write_lines("in.jsonl", *QUESTIONS)
    others = {
        "letter.txt": b"Dear Sir,\nthe last line has no end",
        "one-line": b"no end",
        "pretty.json": b'{\n "a": 1\n}',
        "questions.jsonl": json.dumps(QUESTIONS[0]).encode(),
        "picture.png": Path("0.png").read_bytes(),
    }
    for name, content in others.items():
        Path(name).write_bytes(content)
        message = refused(run("ask", "--input", "in.jsonl", "--output", name, *PLAIN))
        assert message == f"{name}: is no output of an earlier run; name another file or remove it"
        assert Path(name).read_bytes() == content
    assert refused(run("ask", "--input", "in.jsonl", "--output", "in.jsonl", *PLAIN)).startswith(
        "in.jsonl: is the input as well"
    )
    assert refused(run("ask", "--input", "in.jsonl", "--output", "photos", *PLAIN)).startswith("photos: is no output")
    assert refused(run("ask", "--input", "in.jsonl", "--output", "letter.txt/x.jsonl", *PLAIN)).startswith(
        "letter.txt/x.jsonl: "
    )
    assert refused(run("ask", "--input", "in.jsonl", "--output", os.devnull, *PLAIN)).startswith(os.devnull)
    assert refused(run("ask", "--input", "nowhere.jsonl", "--output", "o.jsonl")) == "nowhere.jsonl: No such file or directory"
    assert refused(run("ask", "--input", "photos", "--output", "o.jsonl")) == "photos: Is a directory"
    assert len(written("in.jsonl")) == len(QUESTIONS)


def test_a_whole_last_line_without_its_end_is_kept(run, here):
    write_lines("in.jsonl", *QUESTIONS[:2])
    assert run("ask", "--input", "in.jsonl", "--output", "out.jsonl", *PLAIN)[0] == 0
    done = json.dumps(written("out.jsonl")[0] | {"answer": "done by an earlier run"})
    Path("out.jsonl").write_text(done)
    assert run("ask", "--input", "in.jsonl", "--output", "out.jsonl", *PLAIN)[0] == 0
    assert written("out.jsonl")[0]["answer"] == "done by an earlier run"
    assert len(written("out.jsonl")) == 2


def test_doubled_rows_are_taken_out_and_no_more(run, here):
    """Two commands on one output, before there was a lock, left rows twice; a question that is there twice stays twice."""
    write_lines("in.jsonl", *QUESTIONS)
    command = ("ask", "--input", "in.jsonl", "--output", "out.jsonl", *PLAIN)
    assert run(*command)[0] == 0
    whole, rows = Path("out.jsonl").read_bytes(), written("out.jsonl")
    of_others = rows[0] | {"question": "who?"}
    write_lines("out.jsonl", *rows[:3], *rows[:2], *rows, *rows[2:], of_others)
    assert run(*command) == (0, "", "")
    assert Path("out.jsonl").read_bytes() == whole + (json.dumps(of_others) + "\n").encode()


def test_one_command_at_a_time(run, here):
    write_lines("in.jsonl", *QUESTIONS)
    held = hold("out.jsonl", "a test")
    try:
        message = refused(run("ask", "--input", "in.jsonl", "--output", "out.jsonl", *PLAIN))
        assert message.startswith("out.jsonl: another command is writing there already")
        assert refused(run("caption", "photos", "--output", "out.jsonl", *PLAIN)) == message
    finally:
        held.release()
    assert run("ask", "--input", "in.jsonl", "--output", "out.jsonl", *PLAIN)[0] == 0


@pytest.mark.parametrize("command", [("ask", "--input", "in.jsonl"), ("caption", "photos")], ids=lambda c: c[0])
def test_an_output_is_continued_by_who_began_it_alone(run, here, tmp_path, command):
    write_lines("in.jsonl", *QUESTIONS)
    assert run(*command, "--output", "out.jsonl", *PLAIN)[0] == 0
    done = written("out.jsonl")
    assert len({row["by"] for row in done}) == 1
    assert done[0]["by"].startswith("base@")
    before = Path("out.jsonl").read_bytes()
    for other in (("--num-beams", 2), ("--dtype", "bfloat16")):
        message = refused(run(*command, "--output", "out.jsonl", *PLAIN, *other))
        assert message == (
            f"out.jsonl: holds answers by {done[0]['by']}, not by {message.split('not by ')[1].split(';')[0]}; "
            "name another file, or remove it"
        )
        assert other[1] == 2 or "dtype=bfloat16" in message
        assert Path("out.jsonl").read_bytes() == before
    shutil.copytree(here / "base", here / "copy", symlinks=False)
    (here / "base").unlink()
    weights = load_file(here / "copy" / "model.safetensors")
    save_file({k: v + 1 for k, v in weights.items()}, here / "copy" / "model.safetensors", {"format": "pt"})
    (here / "copy").rename(here / "base")  # trained further
    assert "not by base@" in refused(run(*command, "--output", "out.jsonl", *PLAIN))
    unsigned = [{k: v for k, v in row.items() if k != "by"} for row in done]
    write_lines("out.jsonl", *unsigned)
    assert "do not say what made them" in refused(run(*command, "--output", "out.jsonl", *PLAIN))


def test_another_image_under_the_same_name_is_noticed(run, here):
    write_lines("in.jsonl", QUESTIONS[0], QUESTIONS[1])
    for name in ("1.png", "2.png"):
        (here / name).unlink()
        Image.new("RGB", (8, 8), "red").save(name)
    command = ("ask", "--input", "in.jsonl", "--output", "out.jsonl", *PLAIN)
    assert run(*command)[0] == 0
    Image.new("RGB", (8, 8), "blue").save("2.png")
    message = refused(run(*command))
    assert message == "1.png, 2.png: has changed since out.jsonl was written; remove its row there, or name another file"
    write_lines("out.jsonl", *written("out.jsonl")[:1])
    assert run(*command)[0] == 0
    (here / "2.png").unlink()
    assert run(*command)[0] == 0  # what is answered needs no image


def test_a_full_disk_keeps_what_was_written_and_nothing_half(run, here):
    write_lines("in.jsonl", *QUESTIONS)
    assert run("ask", "--input", "in.jsonl", "--output", "whole.jsonl", *PLAIN)[0] == 0
    lines = Path("whole.jsonl").read_bytes().splitlines(keepends=True)
    room = len(b"".join(lines[:3])) + 10
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        result = run("ask", "--input", "in.jsonl", "--output", "out.jsonl", "--batch-size", 1, *PLAIN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused(result) == "out.jsonl: cannot write (File too large); what was written before is kept"
    assert Path("out.jsonl").read_bytes() == b"".join(lines[:3])
    assert run("ask", "--input", "in.jsonl", "--output", "out.jsonl", *PLAIN)[0] == 0
    assert Path("out.jsonl").read_bytes() == b"".join(lines)


def test_sorting_on_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "out.jsonl"
    write_lines(path, {"q": 2, "answer": "b"}, {"q": 1, "answer": "a"})
    before = path.read_bytes()
    output = Output(path, "answer")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(minigpt4.UserError, match="No space left"):
        output.sort([{"q": 1}, {"q": 2}])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]
    monkeypatch.undo()
    output.sort([{"q": 1}, {"q": 2}])
    assert [row["q"] for _, row in read_rows(path)] == [1, 2]


def test_killed_in_the_middle_and_started_again(run, here):
    rows = [{"image": f"{i % 6}.png", "question": f"number {i // 2}?"} for i in range(200)]
    write_lines("in.jsonl", *rows)
    command = ("ask", "--input", "in.jsonl", "--output", "out.jsonl", "--batch-size", 1, "--max-new-tokens", 20, *QUICK)
    process = start(*command, cwd=here)
    out, deadline = here / "out.jsonl", time.monotonic() + 60
    while not (out.exists() and out.read_bytes().count(b"\n") >= 5) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    finish(process)
    before = out.read_bytes()
    done = before.count(b"\n")
    assert 5 <= done < 200
    assert run(*command) == (0, "", "")
    assert out.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert asked(out) == rows
