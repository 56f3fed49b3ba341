"""Chat completions over HTTP that are not answered, or not to the end: what is refused, who leaves, who waits."""

import threading

import httpx2
import openai
import pytest
from serving import as_bytes, assistant, picture, serving, slow, wait_until, with_image
from test_serve_chat import ask, ask_stream, at, client, system  # noqa: F401  (the last three are fixtures)

from minigpt4.serve.errors import path_of

# what is refused ---------------------------------------------------------------------------------------------------------


def refusal(at, change, path="chat/completions", **options):
    request = {"model": "tiny", "messages": [with_image("hm?")]} | change
    answer = httpx2.post(f"{at}/v1/{path}", json=request, **options)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    assert len(error["message"]) < 600
    return answer.status_code, error


UNSUPPORTED = {
    "tools": [],
    "tool_choice": "none",
    "functions": [],
    "logit_bias": {},
    "audio": {},
    "user": "me",
    "metadata": {},
    "reasoning_effort": "low",
    "service_tier": "auto",
    "parallel_tool_calls": True,
    "prediction": {},
    "nonsense": 1,
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_supported_is_refused_by_name(name, at):
    status, error = refusal(at, {name: UNSUPPORTED[name]})
    assert status == 400
    assert error["param"] == name
    assert error["message"].startswith(f"{name}: ")
    assert error["code"] == "unsupported_parameter"


def test_null_is_not_given_and_what_changes_nothing_is_taken(client):
    nothing = {"tools": None, "user": None, "stop": None, "frequency_penalty": 0, "presence_penalty": 0.0, "store": False}
    assert ask(client, extra_body=nothing, response_format={"type": "text"}).choices == ask(client).choices


WRONG = {
    "stream": (0, "stream"),
    "temperature": ("1", "temperature"),
    "top_p": (0, "top_p"),
    "n": (0, "n"),
    "seed": (1.5, "seed"),
    "max_tokens": (0, "max_tokens"),
    "max_completion_tokens": (True, "max_completion_tokens"),
    "stop": (["a", "b", "c", "d", "e"], "stop"),
    "logprobs": (1, "logprobs"),
    "top_logprobs": (3, None),
    "stream_options": ({"include_usage": True}, None),
    "response_format": ({"type": "json_object"}, "response_format.type"),
    "frequency_penalty": (0.5, "frequency_penalty"),
    "presence_penalty": (-1, "presence_penalty"),
    "model": (1, "model"),
    "messages": ([], "messages"),
    "num_beams": (0, "num_beams"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused_where_they_are(name, at):
    value, param = WRONG[name]
    status, error = refusal(at, {name: value})
    assert status == 400
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert name in error["message"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n": 2}, "temperature above 0"),
        ({"n": 2, "temperature": 1, "self_consistency": 4}, "self_consistency"),
        ({"stream": True, "num_beams": 2}, "cannot be streamed"),
        ({"stream": True, "self_consistency": 3}, "cannot be streamed"),
        ({"zoom_in": True}, "zoom_in goes with"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "give one of them"),
        ({"max_tokens": 5000}, "context"),
        ({"messages": [with_image("[nonsense] x")]}, "unknown task identifier"),
        ({"messages": [with_image("[refer]")]}, "needs a phrase"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "must be the user's"),
    ],
)
def test_what_does_not_go_together_is_refused(change, said, at):
    status, error = refusal(at, change)
    assert status == 400
    assert said in error["message"]


MESSAGES = {
    "messages[0].role": {"role": "system", "content": "x"},
    "messages[0].content": {"role": "user", "content": ""},
    "messages[0].content[0].image_url.url": {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "?"}}]},
    "messages[0].content[0].image_url.detail": {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": "data:,", "detail": "most"}}],
    },
    "messages[0].content[0].type": {"role": "user", "content": [{"type": "input_audio"}]},
    "messages[0].name": {"role": "user", "content": "x", "name": "me"},
}


@pytest.mark.parametrize("param", MESSAGES)
def test_a_wrong_message_is_refused_where_it_is(param, at):
    status, error = refusal(at, {"messages": [MESSAGES[param]]})
    assert status == 400
    assert error["param"] in (param, param.rpartition(".")[0])
    assert "messages[0]" in error["message"]


def test_what_is_wrong_is_said_in_plain_words(at):
    status, error = refusal(at, {"messages": [MESSAGES["messages[0].role"]]})
    assert (status, error["param"]) == (400, "messages[0].role")
    assert error["message"].startswith(
        "messages[0].role: 'system' is not one of 'user', 'assistant'; the models know no such role"
    )
    status, error = refusal(at, {"messages": [MESSAGES["messages[0].content[0].type"]]})
    assert error["param"] == "messages[0].content[0].type"
    assert error["message"] == "messages[0].content[0].type: 'input_audio' is not one of 'text', 'image_url'"
    status, error = refusal(at, {"top_logprobs": 2})
    assert error["message"] == "top_logprobs goes with logprobs: true"


def test_paths_name_fields_and_not_pydantics_unions():
    assert path_of(("messages", 0, "user", "content", "list[tagged-union[...]]", 2, "image_url", "image_url", "url")) == (
        "messages[0].content[2].image_url.url"
    )
    assert path_of(("stop", "list[str]", 1)) == "stop[1]"


def test_an_image_that_is_cut_short_is_the_clients_fault(at):
    whole = as_bytes(picture(size=(400, 300)), "JPEG")
    import base64

    for data in (whole[: len(whole) // 2], b"", b"GIF89a", whole[:3]):
        url = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
        message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
        status, error = refusal(at, {"messages": [message]})
        assert status == 400
        assert error["code"] == "invalid_image"


def test_every_class_of_error_has_the_clients_own(at, client):
    def create(**change):
        return client.chat.completions.create(**{"model": "tiny", "messages": [with_image("hm?")]} | change)

    with pytest.raises(openai.NotFoundError) as missing:
        create(model="other")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        create(temperature=3)
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="tiny", input="x")
    assert httpx2.get(f"{at}/v1/chat/completions").status_code == 405
    assert httpx2.get(f"{at}/nowhere").json()["error"]["message"] == "there is nothing at /nowhere"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}', b"[" * 100_000],
)
def test_bodies_that_are_no_requests(body, at):
    answer = httpx2.post(f"{at}/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


# who leaves, who waits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place(stream, monkeypatch):
    system = assistant(endless=True)
    slow(system, monkeypatch)
    with serving(system) as at:
        request = {"model": "tiny", "messages": [with_image("hm?")], "max_tokens": 400, "stream": stream}
        with httpx2.Client() as session:
            if stream:
                with session.stream("POST", f"{at}/v1/chat/completions", json=request) as answer:
                    next(answer.iter_lines())
            else:
                with pytest.raises(httpx2.TimeoutException):
                    session.post(f"{at}/v1/chat/completions", json=request, timeout=0.3)
        stats = system.engine.stats
        wait_until(lambda: (stats.cancelled, stats.running) == (1, 0), stats)
        assert stats.generated_tokens < 400


def test_answers_chosen_among_several_are_cancelled_too(monkeypatch):
    system = assistant(endless=True)
    slow(system, monkeypatch)
    with serving(system) as at:
        request = {"model": "tiny", "messages": [with_image("[refer] it")], "max_tokens": 400, "self_consistency": 3}
        with pytest.raises(httpx2.TimeoutException):
            httpx2.post(f"{at}/v1/chat/completions", json=request, timeout=0.3)
        stats = system.engine.stats
        wait_until(lambda: (stats.cancelled, stats.running) == (3, 0), stats)


def test_a_full_queue_says_when_to_come_again(monkeypatch):
    system = assistant({"rows": 1, "waiting": 1})
    slow(system, monkeypatch, 0.05)
    with serving(system) as at:
        request = {"model": "tiny", "messages": [with_image("hm?")]}
        answers = []

        def post():
            answers.append(httpx2.post(f"{at}/v1/chat/completions", json=request, timeout=60))

        threads = [threading.Thread(target=post) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert {answer.status_code for answer in answers} == {200, 429}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert refused[0].json()["error"]["code"] == "queue_full"


def test_time_is_limited(monkeypatch):
    from minigpt4.serve.settings import Allowed

    system = assistant(endless=True)
    slow(system, monkeypatch)
    with serving(system, allowed=Allowed(seconds=0.3)) as at:
        request = {"model": "tiny", "messages": [with_image("hm?")], "max_tokens": 400}
        answer = httpx2.post(f"{at}/v1/chat/completions", json=request, timeout=60)
        assert answer.status_code == 503
        assert answer.headers["x-should-retry"] == "false"
        assert answer.json()["error"]["code"] == "time_limit"
        client = openai.OpenAI(base_url=f"{at}/v1", api_key="none")
        with pytest.raises(openai.APIError, match="no answer within"):
            list(ask_stream(client, max_tokens=400))
        wait_until(lambda: system.engine.stats.running == 0)
