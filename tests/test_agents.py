"""Agents: our engine and endpoints, and every nasty thing an endpoint can do."""

import httpx2
import pytest
from conftest import tiny_config, tiny_model, tiny_processor
from PIL import Image
from scripted import Server, completion

from minigpt4.dialogue.agents import AgentError, AgentGone, CostCeiling, LocalAgent, Prompt, ask, for_templates
from minigpt4.dialogue.endpoint import Endpoint, Limits
from minigpt4.errors import UserError
from minigpt4.inference.assistant import Assistant
from minigpt4.prompt.templates import IMAGE, PLACEHOLDER

HELLO = Prompt(messages=[{"role": "user", "content": "Hello"}], max_new_tokens=10)
PICTURE = Image.new("RGB", (40, 30), "red")


def endpoint(server, waits=None, **options):
    limits = Limits(**{"retries": 2, "timeout": 5.0} | options.pop("limits", {}))
    sleep = (lambda s: None) if waits is None else waits.append
    return Endpoint("http://example.org/v1/", "m", limits=limits, transport=server.transport, sleep=sleep, **options)


def test_an_endpoint_is_asked_as_the_api_says(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret-key")
    server = Server(completion(" Hi. "))
    agent = endpoint(server, key_env="MY_KEY", prices=(1.0, 2.0), settings={"top_p": 0.5})
    prompt = Prompt(messages=HELLO.messages, images=[PICTURE], max_new_tokens=7, temperature=0.5)
    reply = ask(agent, prompt)
    assert (reply.text, reply.prompt_tokens, reply.generated_tokens) == ("Hi.", 100, 10)
    assert reply.cost == agent.spent.cost == pytest.approx((100 + 2 * 10) / 1e6)
    request, body = server.requests[0], server.bodies()[0]
    assert str(request.url) == "http://example.org/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer secret-key"
    assert (body["max_tokens"], body["temperature"], body["top_p"], body["model"]) == (7, 0.5, 0.5, "m")
    image, text = body["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert text == {"type": "text", "text": "Hello"}
    assert "secret-key" not in repr(vars(agent))


def test_without_a_key_none_is_sent(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = Server(completion("Hi."))
    ask(endpoint(server), HELLO)
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("nasty", "says"),
    [
        (httpx2.Response(429), "HTTP 429"),
        (httpx2.Response(500, text="<html>"), "HTTP 500"),
        (httpx2.Response(200, text="garbage"), "no chat completion"),
        (httpx2.Response(200, json=[1]), "no chat completion"),
        (httpx2.Response(200, json={"choices": []}), "no chat completion"),
        (httpx2.Response(200, content=b"[" * 100_000), "no chat completion"),
        (httpx2.Response(200, json={"choices": [{"message": {"content": {"a": 1}}}]}), "no chat completion"),
        (httpx2.ReadTimeout("slow"), "no reply within"),
        (httpx2.ReadError("gone"), "cannot be reached"),
    ],
)
def test_what_may_pass_is_tried_again_so_often_and_no_more(nasty, says):
    server = Server(nasty)
    with pytest.raises(AgentError, match=says):
        ask(agent := endpoint(server), HELLO)
    assert len(server.requests) == agent.spent.requests == agent.spent.failed == 3
    server = Server(nasty, completion("Hi."))
    assert ask(endpoint(server), HELLO).text == "Hi."


def test_where_nobody_ever_was_one_waits_less_long_than_for_somebody_who_is_away():
    server = Server(httpx2.ConnectError("refused"))
    with pytest.raises(AgentGone, match="is the server running"):
        ask(endpoint(server, limits={"retries": 4}), HELLO)
    assert len(server.requests) == 2
    server = Server(completion("Hi."), httpx2.ConnectError("refused"))
    agent = endpoint(server, limits={"retries": 4})
    ask(agent, HELLO)
    with pytest.raises(AgentGone, match="5 attempts"):
        ask(agent, HELLO)
    assert len(server.requests) == 6


@pytest.mark.parametrize(("status", "says"), [(400, "HTTP 400 .bad model."), (401, "OPENAI_API_KEY"), (302, "HTTP 302")])
def test_what_will_not_pass_is_not_tried_again(status, says):
    server = Server(httpx2.Response(status, json={"error": {"message": "bad\nmodel"}}, headers={"location": "http://other/"}))
    with pytest.raises(AgentError, match=says):
        ask(endpoint(server), HELLO)
    assert len(server.requests) == 1


def test_waits_grow_and_are_as_long_as_the_endpoint_asks_but_not_endless():
    waits = []
    server = Server(httpx2.Response(429, headers={"retry-after": "7"}), httpx2.Response(500), httpx2.Response(503),
                    httpx2.Response(429, headers={"retry-after": "86400"}), completion("Hi."))  # fmt: skip
    ask(endpoint(server, waits, limits={"retries": 4, "longest_wait": 20}), HELLO)
    assert (waits[0], waits[3]) == (7, 20)
    assert 1 <= waits[1] <= 2 <= waits[2] <= 4


def test_a_model_without_a_system_role_is_told_by_the_user():
    def handle(request):
        if b'"system"' in request.content:
            return httpx2.Response(400, json={"error": {"message": "messages[0]: Input tag 'system' found using 'role'"}})
        return completion("Hi.")

    server = Server(handle)
    prompt = Prompt(messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}])
    agent = endpoint(server)
    assert [reply.text for reply in agent.answer([prompt])] == ["Hi."]
    assert ask(agent, prompt).text == "Hi."
    assert [[m["role"] for m in body["messages"]] for body in server.bodies()] == [["system", "user"], ["user"], ["user"]]
    assert server.bodies()[1]["messages"][0]["content"] == "Be brief.\nHello"
    many = endpoint(Server(handle), limits={"concurrency": 8}).answer([prompt] * 16)  # all find out at the same time
    assert [reply.text for reply in many] == ["Hi."] * 16
    never = Server(httpx2.Response(400, json={"error": {"message": "the system is down"}}))
    with pytest.raises(AgentError, match="the system is down"):
        ask(endpoint(never), prompt)
    assert len(never.requests) == 2
    with pytest.raises(AgentError, match="the system is down"):
        ask(endpoint(Server(never.replies[0])), HELLO)


def test_a_reply_of_ten_megabytes_is_not_read_to_its_end():
    read = []

    def pieces():
        for _ in range(160):
            read.append(1)
            yield b"x" * 65536

    server = Server(lambda request: httpx2.Response(200, content=pieces()))
    agent = endpoint(server, prices=(1.0, 1.0))
    with pytest.raises(AgentError, match="longer than 1,000,000 bytes"):
        ask(agent, HELLO)
    assert len(read) < 20
    assert len(server.requests) == 1
    assert agent.spent.cost > 0


def test_a_reply_that_drips_for_ever_is_given_up(monkeypatch):
    clock = iter(range(0, 10_000, 2))
    monkeypatch.setattr("minigpt4.dialogue.endpoint.time.monotonic", lambda: next(clock))

    def drip():
        while True:
            yield b" "

    server = Server(lambda request: httpx2.Response(200, content=drip()))
    with pytest.raises(AgentError, match="no whole reply within 5 s"):
        ask(endpoint(server), HELLO)
    assert len(server.requests) == 3


def test_money_ends_at_the_ceiling_and_failures_that_may_be_billed_count():
    server = Server(completion("Hi.", 0, 10))
    agent = endpoint(server, prices=(0.0, 1e6), limits={"cost": 35.0})
    replies = agent.answer([HELLO] * 6)  # each takes 10 at most, and takes 10
    assert sum(isinstance(reply, CostCeiling) for reply in replies) == 3
    assert agent.spent.cost == 30.0
    assert len(server.requests) == 3
    agent = endpoint(Server(httpx2.Response(200, text="garbage")), prices=(0.0, 1e6), limits={"cost": 25.0})
    with pytest.raises(CostCeiling, match="ceiling of 25"):
        ask(agent, HELLO)
    assert agent.spent.cost == 20.0


def test_one_failure_takes_nothing_else_with_it():
    def handle(request):
        return httpx2.Response(400) if b"bad" in request.content else completion("Hi.")

    bad = Prompt(messages=[{"role": "user", "content": "bad"}])
    replies = endpoint(Server(handle)).answer([HELLO, bad, HELLO])
    assert [isinstance(reply, AgentError) for reply in replies] == [False, True, False]


def test_a_cache_answers_the_same_request_and_only_that(tmp_path):
    server = Server(completion("one"), completion("two"), completion(""))
    first = endpoint(server, cache=tmp_path / "cache")
    assert ask(first, HELLO).text == "one"
    again = endpoint(server, cache=tmp_path / "cache")
    known = ask(again, HELLO)
    assert (known.text, known.cached, known.cost) == ("one", True, 0.0)
    assert (len(server.requests), again.spent.cached, again.spent.requests) == (1, 1, 0)
    assert ask(again, Prompt(messages=HELLO.messages, max_new_tokens=10, attempt=1)).text == "two"
    for _ in range(2):  # an empty reply is not worth keeping
        ask(again, Prompt(messages=HELLO.messages, max_new_tokens=11))
    assert len(server.requests) == 4
    for file in (tmp_path / "cache").iterdir():
        file.write_text("{")  # a damaged one is asked for anew
    assert ask(again, HELLO).text == ""


def test_what_cannot_go_together_is_refused():
    with pytest.raises(UserError, match="http"):
        Endpoint("example.org", "m")
    with pytest.raises(UserError, match="prices"):
        Endpoint("http://example.org", "m", limits=Limits(cost=1.0))
    with pytest.raises(UserError, match="retries"):
        Limits(retries=-1)
    blind = endpoint(Server(completion("Hi.")), images=False)
    with pytest.raises(AgentError, match="takes no images"):
        ask(blind, Prompt(messages=HELLO.messages, images=[PICTURE]))


# our engine ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def local():
    model = tiny_model()
    assistant = Assistant(model, tiny_processor(model.config))
    yield LocalAgent(assistant, max_new_tokens=6)
    assistant.engine.close()


def test_a_local_agent_says_what_the_engine_says(local):
    from minigpt4.engine.completion import Request

    prompt = Prompt(messages=[{"role": "system", "content": "Be kind."}, *HELLO.messages], images=[PICTURE], max_new_tokens=5)
    reply = ask(local, prompt)
    messages = [{"role": "user", "content": f"{IMAGE} Be kind.\nHello"}]
    params = local.engine.params({"max_new_tokens": 5})
    [[expected]] = local.engine.generate([Request(messages=messages, images=[PICTURE], params=params)])
    assert (reply.text, reply.generated_tokens) == (expected.text, expected.generated_tokens)


def test_a_local_agent_answers_the_others_when_one_cannot_be_answered(local, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    good = Prompt(messages=HELLO.messages, images=[PICTURE])
    replies = local.answer([good, Prompt(messages=HELLO.messages, images=[tmp_path / "bad.jpg"]), good])
    assert isinstance(replies[1], AgentError)
    assert "bad.jpg" in str(replies[1])
    assert replies[0].text == replies[2].text


def test_messages_take_turns_and_no_text_becomes_an_image():
    nested = PLACEHOLDER[:4] + PLACEHOLDER + PLACEHOLDER[4:]
    messages = [
        {"role": "system", "content": "S"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": nested + "U"},
        {"role": "system", "content": "T"},
    ]
    processor = tiny_processor(tiny_config())
    first, answer, last = for_templates(messages, 1, processor.plain)
    assert (first, answer) == ({"role": "user", "content": f"{IMAGE} S"}, {"role": "assistant", "content": "A"})
    assert last["content"].endswith("U\nT")
    assert PLACEHOLDER not in last["content"]
