"""Conversations without torch, in Python and in the terminal: what the whole system says, in a fraction of the time."""

import io
import os
import subprocess
import sys

import pytest
from quick_systems import IMAGES, NO_TORCH, QUESTIONS, systems  # noqa: F401  (a fixture)

from minigpt4 import cli
from minigpt4.cli.options import System
from minigpt4.inference.quick import quick

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


def conversations(system):
    """A system without torch and the whole one, and a conversation about the same image with each."""
    folder, plain = system
    found = quick(folder, "", {}, dtype="float32")
    assert found is not None
    return found, plain, found.chat(IMAGES[:1]), plain.chat(IMAGES[:1])


@pytest.mark.parametrize("template", ["chatml", "vicuna-v0"])
def test_a_conversation_is_the_same_and_only_what_is_new_is_read(template, systems, monkeypatch):
    found, plain, ours, theirs = conversations(systems[template])
    settings = {"max_new_tokens": 12, "min_new_tokens": 6}
    positions: list[int] = []
    run = found.engine._language_model.run
    monkeypatch.setattr(
        found.engine._language_model, "run", lambda block, new, *rest: positions.append(new.shape[1]) or run(block, new, *rest)
    )
    for number, question in enumerate([*QUESTIONS, "and now? " * 8, "so?"]):
        if number == 2:
            for chat in (ours, theirs):
                chat.show(IMAGES[1])
        positions.clear()
        if number % 2:
            assert ours.ask(question, **settings) == theirs.ask(question, **settings)
        else:
            assert list(ours.stream(question, **settings)) == list(theirs.stream(question, **settings))
        assert ours.messages == theirs.messages
        new = len(plain.processor.prompt_ids(ours.messages[-2:-1])) + 16  # an answer may be other ids when it is read again
        assert positions[0] <= new
    for chat in (ours, theirs):
        chat.forget()
    assert ours.ask("so?", **settings) == theirs.ask("so?", **settings) == plain.ask([], "so?", **settings)


def test_a_reader_who_stops_leaves_the_conversation_whole(systems):
    _, _, ours, theirs = conversations(systems["chatml"])
    settings = {"max_new_tokens": 30, "min_new_tokens": 30}
    for chat in (ours, theirs):
        stream = chat.stream("what?", **settings)
        next(stream), next(stream)
        stream.close()
    assert ours.messages == theirs.messages
    assert ours.ask("and?", **settings) == theirs.ask("and?", **settings)


def test_a_conversation_that_grows_too_long_forgets_the_same(systems):
    _, plain, ours, theirs = conversations(systems["chatml"])
    settings = {"max_new_tokens": 40, "min_new_tokens": 40}
    for _ in range(8):
        assert ours.ask("another one? " * 3, **settings) == theirs.ask("another one? " * 3, **settings)
    assert len(plain.processor.prompt_ids(ours.messages)) > plain.engine.context


def test_a_conversation_needs_no_torch_for_it(systems, tmp_path):
    folder, plain = systems["chatml"]
    for number, image in enumerate(IMAGES[:2]):
        image.save(tmp_path / f"{number}.png")
    command = [
        sys.executable,
        "-c",
        NO_TORCH,
        "chat",
        "0.png",
        "--model",
        str(folder),
        "--dtype",
        "float32",
        "--max-new-tokens",
        "9",
    ]
    said = "what?\n[caption] so\n/image 1.png\nwhich?\n/draw drawn.png\n/reset\nso?\n"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, input=said)
    assert done.returncode == 0, done.stderr
    chat = plain.chat(tmp_path / "0.png")
    wanted = [chat.ask(question, max_new_tokens=9) for question in ("what?", "[caption] so")]
    chat.show(tmp_path / "1.png")
    wanted += [chat.ask("which?", max_new_tokens=9), plain.ask([], "so?", max_new_tokens=9)]
    assert done.stdout == "".join(f"{answer}\n" for answer in wanted)
    assert (tmp_path / "drawn.png").exists()


def test_a_conversation_goes_on_with_the_whole_system_when_it_must(systems, tmp_path, monkeypatch, capsys):
    """At the first question that the system wishes to be answered in another way, which is answered as `ask` answers it."""
    folder, plain = systems["chatml"]
    IMAGES[0].save(tmp_path / "0.png")
    monkeypatch.chdir(tmp_path)
    loaded: list[int] = []
    monkeypatch.setattr(System, "load", lambda _: loaded.append(1) or plain)
    monkeypatch.setattr(sys, "stdin", io.StringIO("what?\n[nope] it\n[refer] it\nwhy?\n[caption] so\n"))
    monkeypatch.setattr(sys, "argv", f"minigpt4 chat 0.png --max-new-tokens 9 --model {folder} --dtype float32".split())
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1  # for the task that there is not
    assert loaded == [1]
    chat = plain.chat("0.png")
    wanted = [chat.ask(question, max_new_tokens=9) for question in ("what?", "[refer] it", "why?", "[caption] so")]
    told = capsys.readouterr()
    assert told.out == "".join(f"{answer}\n" for answer in wanted)
    assert "[nope]" in told.err
    assert told.err.count("the whole system") == 1
