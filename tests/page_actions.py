"""What a person does on the page, for its tests in a real browser."""

from contextlib import contextmanager

import pytest
from serving import as_bytes, assistant, picture, serving, slow

from minigpt4.engine.streaming import TextStream

ANSWER = "<p>a dog</p> {<10><20><50><80>} near <p>a cat</p> {<60><60><90><90>}"


@pytest.fixture
def page(chromium):
    context = chromium.new_context(viewport={"width": 1200, "height": 760}, accept_downloads=True)
    context.set_default_timeout(10_000)
    page = context.new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    assert not page.faults


@pytest.fixture(scope="module")
def system():
    return assistant()


@pytest.fixture(scope="module")
def at(system):
    with serving(system, page=True) as address:
        yield address


@contextmanager
def talking_slowly(monkeypatch, most=None):
    """A system whose answers go on until they are stopped or have `most` tokens, and the address of its page."""
    system = assistant(endless=True)
    if most is not None:
        system.model.generation_config.max_new_tokens = most
    slow(system, monkeypatch, 0.03)
    with serving(system, page=True) as at:
        yield system, at


@pytest.fixture
def pointing(monkeypatch):
    """Every answer points at a dog and a cat."""
    monkeypatch.setattr(TextStream, "_decode", lambda self, ids: ANSWER if ids else "")


def photo(color="red", size=(200, 100), name="photo.png", kind="PNG"):
    return {"name": name, "mimeType": "image/png", "buffer": as_bytes(picture(color, size), kind)}


def begin(page, at, *photos):
    page.goto(at)
    page.get_by_text("tiny", exact=True).wait_for()
    if photos:
        page.set_input_files("#files", list(photos))
        page.locator("#shown").wait_for()


def choose(page, task):
    page.locator(f'#tasks input[value="{task}"]').check(force=True)


def ask(page, text="hm?", answers=1):
    page.fill("#question", text)
    page.keyboard.press("Enter")
    page.locator(".assistant .time:not(:empty)").nth(answers - 1).wait_for()


def asked(page):
    """The bodies of all questions from now on."""
    bodies = []
    page.on("request", lambda r: bodies.append(r.post_data_json) if r.url.endswith("/chat/completions") else None)
    return bodies


def said(body):
    content = body["messages"][-1]["content"]
    return content[-1]["text"]
