"""Replicas that end in the middle of an answer, without Ray: applications of our own that break off where a test says so."""

import asyncio
import json

import httpx2
import pytest
from serving import assistant, with_image
from starlette.applications import Starlette
from starlette.routing import Mount

from minigpt4.serve import bodies, relay
from minigpt4.serve.app import create_app
from minigpt4.serve.errors import ApiError
from minigpt4.serve.relay import Relay

LONG = {"model": "tiny", "messages": [with_image("hm?")], "max_tokens": 12, "min_new_tokens": 12, "temperature": 0}


class Lost(Exception):
    """As Ray says that a replica has ended."""


class Replicas:
    """One application, asked as replicas are; of each request the first attempts end after so many messages."""

    def __init__(self, app, *ends):
        self.app, self.ends, self.asked, self.cancelled = app, list(ends), 0, 0

    def ask(self, scope, body):
        self.asked += 1
        return Said(self, scope, body, self.ends.pop(0) if self.ends else None)


class Said:
    def __init__(self, replicas, scope, body, end):
        self.replicas, self.scope, self.body, self.end, self.queue = replicas, scope, body, end, asyncio.Queue()
        self.gone = asyncio.Event()

    async def __aiter__(self):
        given = iter([{"type": "http.request", "body": self.body, "more_body": False}])

        async def receive():
            if (message := next(given, None)) is not None:
                return message
            await self.gone.wait()
            return {"type": "http.disconnect"}

        task = asyncio.ensure_future(self.replicas.app(self.scope, receive, self.queue.put))
        try:
            number = 0
            while True:
                if number == self.end:
                    raise Lost
                yield await self.queue.get()
                number += 1
        finally:
            task.cancel()

    def cancel(self):
        self.replicas.cancelled += 1
        self.gone.set()


@pytest.fixture(scope="module")
def system():
    return assistant()


@pytest.fixture
def replicas(system, monkeypatch):
    monkeypatch.setattr(relay, "_PAUSE", 0.0)
    return lambda *ends, app=None: Replicas(app or create_app("tiny", lambda: system), *ends)


async def answering(replicas, body, path="/v1/chat/completions", life=True):
    """What a client gets by the relay, as (status, headers, body, messages)."""
    app = Starlette(routes=[Mount("/", Relay(replicas.ask, Lost))])
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client:
        if not life:
            return await client.post(path, json=body)
        async with replicas.app.router.lifespan_context(replicas.app):
            while replicas.app.state.served.answering is None:
                await asyncio.sleep(0.01)
            replicas.app.state.served.answering.assistant.engine.close = lambda: None  # shared with the other tests
            return await client.post(path, json=body)


def words(text):
    """The words of a stream, and the names that its events bear."""
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert "error" not in events[-1], events[-1]
    assert text.rstrip().endswith("data: [DONE]")
    return "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"]), {e["id"] for e in events}


@pytest.mark.parametrize("ends", [(), (0,), (1,), (3,), (5, 7), (9, 2, 11)])
def test_a_stream_goes_on_where_it_stopped(ends, replicas):
    whole, _ = words(asyncio.run(answering(replicas(), LONG | {"stream": True})).text)
    some = replicas(*ends)
    text, names = words(asyncio.run(answering(some, LONG | {"stream": True})).text)
    assert some.asked == 1 + len(ends)
    assert text == whole, "no word is lost, and none said twice"
    assert len(names) == 1, "and it is still the same answer"


@pytest.mark.parametrize("ends", [(0,), (1,), (1, 0)])
def test_an_answer_that_comes_at_once_comes_once(ends, replicas):
    some = replicas(*ends)
    got = asyncio.run(answering(some, LONG))
    whole = asyncio.run(answering(replicas(), LONG)).json()
    assert got.status_code == 200
    assert got.json()["choices"] == whole["choices"]
    assert int(got.headers["content-length"]) == len(got.content)
    assert some.asked == 1 + len(ends)


def test_what_another_says_otherwise_is_not_mixed(replicas):
    said = [{"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}]
    attempts = iter([["data: a\n\n", "data: b\n\n"], ["data: a\n\n", "data: c\n\n", "data: d\n\n"]])

    async def app(scope, receive, send):
        for message in [
            *said,
            *({"type": "http.response.body", "body": p.encode(), "more_body": True} for p in next(attempts)),
        ]:
            await send(message)
        await asyncio.sleep(60)

    got = asyncio.run(answering(replicas(3, app=app), LONG | {"stream": True}, life=False))
    *before, last = got.text.strip().split("\n\n")
    assert before == ["data: a", "data: b"]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "replica_lost"


def test_when_all_end_it_is_said_so(replicas):
    some = replicas(0, 0, 0, 0, 0)
    got = asyncio.run(answering(some, LONG, life=False))
    assert (got.status_code, got.json()["error"]["code"]) == (503, "replica_lost")
    assert some.asked == 4


def test_what_else_fails_is_no_traceback(replicas):
    class Broken(Replicas):
        def ask(self, scope, body):
            raise ZeroDivisionError("private")

    got = asyncio.run(answering(Broken(None), LONG, life=False))
    assert got.status_code == 500
    assert "private" not in got.text


def test_a_client_that_leaves_is_told_to_the_replica(replicas):
    async def app(scope, receive, send):
        await asyncio.sleep(60)

    async def work():
        some, messages = replicas(app=app), iter([{"type": "http.request", "body": b"{}"}, {"type": "http.disconnect"}])

        async def receive():
            return next(messages)

        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
        await asyncio.wait_for(Relay(some.ask, Lost)(scope, receive, lambda message: pytest.fail("nobody is there")), 10)
        return some.cancelled

    assert asyncio.run(work()) == 1


def test_a_body_that_is_refused_reaches_nobody(replicas):
    async def receive():
        raise ApiError(413, "too large")

    async def work():
        some, sent = replicas(), []

        async def send(message):
            sent.append(message)

        await Relay(some.ask, Lost)({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send)
        return some.asked, sent[0]["status"]

    assert asyncio.run(work()) == (0, 413)


@pytest.mark.parametrize(("then", "status", "code"), [("wait", 408, "slow_request"), ("leave", 499, None)])
def test_a_body_that_does_not_come_whole_is_passed_on_to_nobody(then, status, code, replicas, monkeypatch):
    """It was waited for without end; half of one was given to four replicas when its sender had left."""
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.2)
    messages, sent, some = [{"type": "http.request", "body": b'{"mo', "more_body": True}], [], replicas()

    async def receive():
        if not messages and then == "wait":
            await asyncio.sleep(30)
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": "/v1/chat/completions", "method": "POST", "headers": []}
    asyncio.run(Relay(some.ask, Lost)(scope, receive, send))
    assert some.asked == 0
    assert sent[0]["status"] == status
    assert json.loads(sent[1]["body"])["error"]["code"] == code
