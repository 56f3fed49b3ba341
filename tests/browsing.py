"""A real browser for the tests of pages, and pages to look at."""

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("the tests of pages need Chromium (apt-get install chromium), or its path in CHROMIUM")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        camera = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *camera])
        yield browser
        browser.close()


@contextmanager
def listening(app) -> Iterator[str]:
    """The address of an application, served until the end of the block."""
    uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join(20)


def opened(chromium, address):
    """A page with what its console has said of errors in `complaints`."""
    page = chromium.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.complaints = []
    page.on("console", lambda message: message.type == "error" and page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(address)
    return page


def intercepted(page, url, handler):
    """Load the page anew, with a handler for requests: Chromium may let one through that comes right after it was told."""
    page.route(url, lambda route: handler(route))
    page.reload()


def sees(page, place, text):
    from playwright.sync_api import expect

    expect(page.locator(place)).to_contain_text(text)
