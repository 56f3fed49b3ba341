"""A tiny system behind a real server on this machine, for the tests of serving."""

import base64
import io
import threading
import time
from contextlib import contextmanager

import httpx2
import torch
import uvicorn
from conftest import tiny_model, tiny_processor
from PIL import Image

from minigpt4.engine.scheduler import Limits
from minigpt4.inference.assistant import Assistant
from minigpt4.serve.app import create_app


def assistant(limits=None, endless=False, **changes):
    """A random system that answers in milliseconds; an endless one writes up to the limit."""
    torch.manual_seed(12)  # fixtures of a module are made before every test's own seed
    model = tiny_model(**changes)
    if endless:
        model.generation_config.eos_token_id = None
    model.generation_config.max_new_tokens = 12
    made = Assistant(model, tiny_processor(model.config))
    if limits:
        made.engine.limits = made.engine._scheduler.limits = Limits(**limits)
    return made


@contextmanager
def serving(system=None, load=None, **options):
    """A running server; gives its address, with the application as `.app` and uvicorn's server as `.server`."""
    app = create_app("tiny", load or (lambda: system), **options)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none", timeout_graceful_shutdown=20))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    address = Address(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
    address.app, address.server, address.thread = app, server, thread
    try:
        if load is None:
            while app.state.served.answering is None:
                time.sleep(0.005)
        yield address
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


class Address(str):
    """An address with what serves there."""


def picture(color="red", size=(40, 30)):
    return Image.new("RGB", size, color)


def as_bytes(image, kind="PNG"):
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def uri(image=None, kind="PNG"):
    data = as_bytes(picture() if image is None else image, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"


def with_image(text, *images):
    """A user's message."""
    shown = [{"type": "image_url", "image_url": {"url": uri(image)}} for image in images or (None,)]
    return {"role": "user", "content": [*shown, {"type": "text", "text": text}]}


def post(at, request=None, **options):
    request = request or {"model": "tiny", "messages": [with_image("hm?")]}
    return httpx2.post(f"{at}/v1/chat/completions", json=request, timeout=60, **options)


def post_url(at, url):
    return post(
        at, {"model": "tiny", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}
    )


def slow(system, monkeypatch, seconds=0.02):
    """Tokens that take their time."""
    step = system.engine._scheduler._cache.__class__.step

    def slowly(self, ids):
        time.sleep(seconds)
        return step(self, ids)

    monkeypatch.setattr(system.engine._scheduler._cache.__class__, "step", slowly)


def wait_until(true, shown=None, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, shown
        time.sleep(0.01)
