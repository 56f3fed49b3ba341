"""Conversations: in Python, through a pipe, and in a terminal as a person has them."""

import io
import json
import os
import pty
import random
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
import shapes
import torch
from conftest import quick_folder

import minigpt4
from minigpt4 import UserError, cli
from minigpt4.engine.completion import Request
from minigpt4.prompt.templates import IMAGE

PLAIN = ("--model", "base", "--dtype", "float32")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny system with a long memory, and two pictures."""
    folder = tmp_path_factory.mktemp("world")
    torch.manual_seed(0)
    quick_folder(folder / "base", text_config=long_llama())
    for i, (colour, shape, place) in enumerate(shapes.things(2)):
        shapes.draw(colour, shape, place, random.Random(i)).save(folder / f"{i}.png")
    return folder


def long_llama():
    from conftest import tiny_llama

    return tiny_llama(max_position_embeddings=8192)


@pytest.fixture
def system(world, monkeypatch):
    monkeypatch.chdir(world)
    return minigpt4.load("base", dtype="float32")


@pytest.fixture
def seen(system, monkeypatch):
    """Pictures that were encoded, and conversations that the language model was given."""
    images, conversations = [], []
    plain_resize, plain_ids = system.processor.image_processor.resize, system.processor.prompt_ids
    monkeypatch.setattr(system.processor.image_processor, "resize", lambda p: images.append(p) or plain_resize(p))
    monkeypatch.setattr(system.processor, "prompt_ids", lambda m, **k: conversations.append(m) or plain_ids(m, **k))
    return images, conversations


# in Python --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
def test_history_is_kept_and_each_image_encoded_once(system, seen, streamed):
    images, conversations = seen
    chat = system.chat("0.png")
    say = (lambda q: "".join(chat.stream(q, max_new_tokens=20))) if streamed else (lambda q: chat.ask(q, max_new_tokens=20))
    first = say("one?")
    second = say("two?")
    chat.show("1.png")
    third = say("three?")
    assert images == ["0.png", "1.png"]
    assert [m["content"] for m in conversations[-1]] == [
        f"{IMAGE} one?",
        first,
        "two?",
        second,
        f"{IMAGE} three?",
    ]
    assert [m["role"] for m in chat.messages] == ["user", "assistant"] * 3
    assert chat.messages[-1]["content"] == third
    # What is said draws on it: the same question without the first turn is answered otherwise.
    assert second != system.ask("0.png", "two?", max_new_tokens=20)
    chat.forget()
    assert say("three?") == system.ask([], "three?", max_new_tokens=20)


def test_a_image_may_come_before_any_question_and_several_at_once(system, seen):
    images, conversations = seen
    chat = system.chat()
    chat.show("0.png")
    chat.show("1.png")
    assert chat.ask("which?", max_new_tokens=10) == system.ask(["0.png", "1.png"], "which?", max_new_tokens=10)
    assert conversations[0] == [{"role": "user", "content": f"{IMAGE} {IMAGE} which?"}]
    assert images == ["0.png", "1.png"]  # asked about by itself, what was shown in the conversation is known


def test_a_image_that_cannot_be_shown_leaves_the_conversation_as_it_was(system):
    chat = system.chat("0.png")
    with pytest.raises(UserError, match="no such file"):
        chat.show("nowhere.png")
    assert chat.images == ["0.png"]
    assert chat.ask("hm?", max_new_tokens=10) == system.ask("0.png", "hm?", max_new_tokens=10)


def test_an_error_while_streaming_reaches_the_reader_and_nothing_is_remembered(system, monkeypatch):
    chat = system.chat("0.png")

    def fail(*_, **__):
        raise RuntimeError("the language model is lost")

    with monkeypatch.context() as broken:
        broken.setattr(system.model.language_model, "forward", fail)
        with pytest.raises(RuntimeError, match="the language model is lost"):
            list(chat.stream("hm?"))
    assert chat.messages == []
    assert chat.ask("hm?", max_new_tokens=10) == system.ask("0.png", "hm?", max_new_tokens=10)


def test_pieces_arrive_while_the_llm_is_still_at_work_and_it_stops_when_nobody_listens(system):
    steps = []
    handle = system.model.language_model.register_forward_hook(lambda *_: steps.append(time.monotonic()))
    chat = system.chat("0.png")
    stream = chat.stream("hm?", min_new_tokens=4000, max_new_tokens=4000)
    first = next(stream)
    at_first_piece = len(steps)
    stream.close()
    done = len(steps)
    handle.remove()
    assert 1 <= at_first_piece < 1000
    assert done < 1000
    time.sleep(0.1)
    assert len(steps) <= done + 2  # nobody works on
    assert chat.messages[-1]["content"].startswith(first.rstrip())
    assert chat.ask("and?", max_new_tokens=5) is not None


def test_a_long_conversation_forgets_its_oldest_words_and_no_image(world, monkeypatch):
    monkeypatch.chdir(world)
    system = minigpt4.load("base", dtype="float32")
    system.model.config.text_config.max_position_embeddings = 300
    chat = system.chat("0.png")
    for i in range(12):
        chat.ask(f"question number {i}, which is long enough?", max_new_tokens=40)
    prompt = system.engine.prompt_ids([*chat.messages, {"role": "user", "content": "and?"}], 40)
    text = system.processor.tokenizer.decode([i for i in prompt if i < 128])
    assert "number 0" not in text
    assert "number 11" in text
    assert sum(i == system.processor.image_token_id for i in prompt) == system.processor.num_image_tokens
    assert len(prompt) + 40 <= 300


# through a pipe ---------------------------------------------------------------------------------------------------------


def talk(monkeypatch, capsys, text, *arguments):
    data = text if isinstance(text, bytes) else text.encode()
    monkeypatch.setattr(sys, "argv", ["minigpt4", "chat", *map(str, arguments), *PLAIN])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code or 0, *capsys.readouterr()


def test_piped_questions_get_their_answers_and_nothing_else(system, monkeypatch, capsys):
    chat = system.chat("0.png")
    expected = [chat.ask(q, max_new_tokens=20) for q in ("one?", "two?")]
    chat.show("1.png")
    expected.append(chat.ask("three?", max_new_tokens=20))
    said = "one?\n\n  two?  \n/image 1.png\nthree?"
    assert talk(monkeypatch, capsys, said, "0.png", "--max-new-tokens", 20) == (0, "".join(f"{e}\n" for e in expected), "")
    status, out, err = talk(monkeypatch, capsys, said, "0.png", "--json", "--max-new-tokens", 20)
    assert (status, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows == [{"question": q, "answer": a} for q, a in zip(("one?", "two?", "three?"), expected, strict=True)]


def test_mistakes_in_a_pipe_are_said_and_the_status_tells(system, monkeypatch, capsys):
    said = "/image nowhere.png\n/image\n/nonsense\n/draw x.png\n[nope] x\nhm?\n/quit\nnever asked\n"
    status, out, err = talk(monkeypatch, capsys, said, "0.png", "--max-new-tokens", 10)
    assert status == 1
    assert out == system.ask("0.png", "hm?", max_new_tokens=10) + "\n"
    assert [line.removeprefix("error: ")[:32] for line in err.splitlines()] == [
        "nowhere.png: no such file",
        "/image needs a file: /image FILE",
        "unknown command /nonsense; there",
        "there is no answer yet to draw",
        "unknown task identifier [nope]; ",
    ]


def test_that_nothing_was_drawn_is_said(system, monkeypatch, capsys):
    said = "hm?\n/draw drawn.png\n"
    expected = system.ask("0.png", "hm?", max_new_tokens=10)
    assert not expected.boxes
    remark = "no box in the answer: drawn.png is the photo alone\n"
    assert talk(monkeypatch, capsys, said, "0.png", "--max-new-tokens", 10) == (0, expected + "\n", remark)
    assert Path("drawn.png").exists()


def test_names_as_terminals_write_them(system, world, monkeypatch, capsys):
    (world / "my photo.png").write_bytes((world / "1.png").read_bytes())
    expected = system.ask("1.png", "hm?", max_new_tokens=10) + "\n"
    monkeypatch.setenv("HOME", str(world))
    for name in ("my photo.png", "'my photo.png'", '"my photo.png"', "my\\ photo.png", "~/my photo.png"):
        result = talk(monkeypatch, capsys, f"/image {name}\nhm?\n", "--max-new-tokens", 10)
        assert result == (0, expected, ""), name


def test_bytes_that_are_no_text_are_survived(system, monkeypatch, capsys):
    status, out, err = talk(monkeypatch, capsys, b"caf\xe9?\nhm?\n", "0.png", "--max-new-tokens", 5)
    assert (status, err) == (0, "")
    assert len(out.splitlines()) >= 2


# in a terminal ----------------------------------------------------------------------------------------------------------


class Terminal:
    """A pseudo-terminal with the command in it."""

    def __init__(self, folder, *arguments):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "minigpt4", "chat", *map(str, arguments), *PLAIN],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env={**os.environ, "TERM": "dumb", "OMP_NUM_THREADS": "1", "COLUMNS": "10000", "INPUTRC": os.devnull},
            start_new_session=True,  # with the terminal as its own, so that Ctrl-C there reaches it
            preexec_fn=lambda: _own_terminal(slave),
        )
        os.close(slave)

    def read(self, until, timeout=120):
        """What appears up to a text."""
        text, deadline = b"", time.monotonic() + timeout
        while until not in text:
            if not select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"{until!r} did not come; what came: {text!r}")
            try:
                chunk = os.read(self.master, 65536)
            except OSError:  # the other side has closed
                chunk = b""
            if not chunk:
                raise EOFError(f"{until!r} did not come; what came: {text!r}")
            text += chunk
        return text.decode()

    def type(self, text):
        os.write(self.master, text.encode())

    def ask(self, line):
        """Type a line; what is answered, without the echo of what was typed."""
        self.type(line + "\n")
        text = re.sub(r"\x1b\[\?2004[hl]", "", self.read(b"\n> "))
        return text.replace("\r\n", "\n").partition("\n")[2].removesuffix("> ").removesuffix("\n")

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


def _own_terminal(slave):
    import fcntl
    import termios

    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(world):
    opened = []

    def open_terminal(*arguments):
        opened.append(Terminal(world, *arguments))
        opened[-1].read(b"> ")
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.close()


def test_a_person_talks_about_photos(terminal, system):
    person = terminal("0.png", "--max-new-tokens", 30)
    chat = system.chat("0.png")

    def expected(question):
        return chat.ask(question, max_new_tokens=30)

    assert person.ask("one?") == expected("one?")
    assert person.ask("/image nowhere.png") == "error: nowhere.png: no such file"
    assert person.ask("two?") == expected("two?")
    assert person.ask("/image 1.png") == ""
    chat.show("1.png")
    assert person.ask("three?") == expected("three?")
    assert person.ask("/help").startswith("error: unknown command /help; there are /image FILE")
    assert person.ask("/reset") == ""
    chat.forget()
    assert person.ask("two?") == expected("two?")
    person.type("\x04")  # Ctrl-D
    assert person.process.wait(timeout=60) == 0


def test_ctrl_c_stops_the_answer_and_not_the_conversation(terminal, system):
    person = terminal("0.png", "--min-new-tokens", 4000, "--max-new-tokens", 4000)
    person.type("hm?\n")
    seen = person.read(b"hm?\r\n").partition("hm?\r\n")[2]  # the answer may have come with the echo
    while len(seen) < 20:  # the answer has begun
        seen += os.read(person.master, 10).decode()
    person.type("\x03")
    rest = person.read(b"\n> ", timeout=60)
    shown = (seen + rest).replace("\r\n", "\n").replace("^C", "").removesuffix("> ").rstrip()
    whole = system.ask("0.png", "hm?", min_new_tokens=4000, max_new_tokens=4000)
    assert 20 <= len(shown) < len(whole) / 2
    assert whole.startswith(shown[:20])
    assert person.process.poll() is None
    person.type("and?\n")  # it listens still, and what it said is part of the conversation
    more = person.read(b"and?\r\n").partition("and?\r\n")[2]
    while len(more) < 20:
        more += os.read(person.master, 10).decode()
    assert not whole.startswith(more[:20])
    person.type("\x03")
    person.read(b"\n> ", timeout=60)
    time.sleep(0.5)  # Python does not hear a signal that comes between its prompt and its reading
    person.type("\x03")  # at the prompt it leaves
    assert person.process.wait(timeout=60) == 0


@pytest.mark.parametrize("message", [{"role": "user"}, {"role": "user", "content": None}, "hm?", {"content": "hm?"}])
def test_what_is_no_message_is_said(system, message):
    with pytest.raises(UserError, match=r"a message is|unknown role None"):
        system.engine.generate([Request(messages=[message])])
