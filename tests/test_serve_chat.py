"""Chat completions over HTTP: what the official client gets."""

import json
import math
import threading
import time

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from serving import as_bytes, assistant, picture, serving, uri, with_image

from minigpt4.serve.errors import path_of


@pytest.fixture(scope="module")
def system():
    return assistant()


@pytest.fixture(scope="module")
def at(system):
    with serving(system) as address:
        yield address


@pytest.fixture(scope="module")
def client(at):
    return openai.OpenAI(base_url=f"{at}/v1", api_key="none", max_retries=0)


def ask(client, *messages, **settings):
    done = client.chat.completions.create(model="tiny", messages=list(messages) or [with_image("hm?")], **settings)
    ChatCompletion.model_validate(done.model_dump(), strict=False)
    return done


def streamed(client, *messages, **settings):
    chunks = list(ask_stream(client, *messages, **settings))
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.model_dump())
    return chunks


def ask_stream(client, *messages, **settings):
    return client.chat.completions.create(model="tiny", messages=list(messages) or [with_image("hm?")], stream=True, **settings)


def test_an_answer_is_that_of_the_assistant(client, system):
    done = ask(client)
    (choice,) = done.choices
    assert choice.message.content == system.ask(picture(), "hm?") != ""
    assert (choice.index, choice.message.role, choice.finish_reason) == (0, "assistant", "length")
    assert (done.object, done.model) == ("chat.completion", "tiny")
    assert abs(done.created - time.time()) < 600
    usage = done.usage
    assert usage.completion_tokens == 12
    assert usage.total_tokens == usage.prompt_tokens + 12
    assert usage.prompt_tokens_details.image_tokens == system.processor.num_image_tokens
    assert {"queue_ms", "image_ms", "prompt_ms", "first_token_ms", "decode_ms", "total_ms", "tokens_per_second"} == set(
        done.model_extra["timings"]
    )


def test_text_before_the_image_asks_the_same(client):
    message = with_image("hm?")
    assert ask(client, {"role": "user", "content": message["content"][::-1]}).choices == ask(client, message).choices


def test_a_question_without_an_image(client, system):
    assert ask(client, {"role": "user", "content": "hm?"}).choices[0].message.content == system.ask([], "hm?")


def test_several_images_in_order(client, system):
    two = ask(client, with_image("hm?", picture("red"), picture("blue")))
    other = ask(client, with_image("hm?", picture("blue"), picture("red")))
    assert two.choices[0].message.content == system.ask([picture("red"), picture("blue")], "hm?")
    assert other.choices[0].message.content == system.ask([picture("blue"), picture("red")], "hm?")
    assert two.choices != other.choices


def test_images_between_texts_stay_where_they_are(client, system):
    red, blue = ({"type": "image_url", "image_url": {"url": uri(picture(c)), "detail": "auto"}} for c in ("red", "blue"))
    words = [{"type": "text", "text": text} for text in ("first", "then")]
    done = ask(client, {"role": "user", "content": [words[0], red, words[1], blue]})
    engine = system.engine
    from minigpt4.engine.completion import Request
    from minigpt4.prompt.templates import IMAGE

    messages = [{"role": "user", "content": f"first {IMAGE} then {IMAGE}"}]
    ((alone,),) = engine.generate(
        [Request(messages=messages, images=[picture("red"), picture("blue")], params=engine.params())]
    )
    assert done.choices[0].message.content == alone.text


def test_a_conversation_goes_on_as_a_chat_does(client, system):
    chat = system.chat(picture())
    first, second = chat.ask("hm?"), chat.ask("and?")
    said = [with_image("hm?")]
    answer = ask(client, *said).choices[0].message
    assert answer.content == first
    said += [answer.model_dump(), {"role": "user", "content": "and?"}]  # as the client gave it, nulls and all
    assert ask(client, *said).choices[0].message.content == second


def test_streaming_gives_the_same_word_by_word(client):
    whole = ask(client)
    chunks = streamed(client)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert len(chunks) > 5
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert chunks[-1].model_extra["timings"]["total_ms"] > 0
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_comes_last_and_is_null_before(at, client):
    request = {"model": "tiny", "messages": [with_image("hm?")], "stream": True, "stream_options": {"include_usage": True}}
    answer = httpx2.post(f"{at}/v1/chat/completions", json=request)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    *before, last = (json.loads(event) for event in events[:-1])
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 12
    assert all(event["usage"] is None for event in before)
    del request["stream_options"]
    plain = httpx2.post(f"{at}/v1/chat/completions", json=request).text
    assert '"usage"' not in plain


def test_several_answers(client):
    done = ask(client, n=3, temperature=1.5, seed=5)
    assert [choice.index for choice in done.choices] == [0, 1, 2]
    texts = [choice.message.content for choice in done.choices]
    assert len(set(texts)) > 1
    assert done.usage.completion_tokens > 12
    chunks = streamed(client, n=3, temperature=1.5, seed=5)
    grown = ["".join(c.delta.content or "" for k in chunks for c in k.choices if c.index == i) for i in range(3)]
    assert grown == texts
    assert sorted(c.index for k in chunks for c in k.choices if c.finish_reason) == [0, 1, 2]


def test_a_seed_says_what_is_sampled(client):
    said = [ask(client, temperature=1.2, seed=seed).choices[0].message.content for seed in (1, 1, 2)]
    assert said[0] == said[1] != said[2]
    assert ask(client, temperature=1.2, top_p=1e-6).choices == ask(client, temperature=0).choices
    assert ask(client, temperature=0, top_p=0.5).choices == ask(client).choices, "the likeliest token is always let through"


def test_stop_ends_an_answer_and_is_not_in_it(client):
    whole = ask(client).choices[0].message.content
    mark = whole[4:6]
    for stop in (mark, [mark], ["nowhere", mark]):
        done = ask(client, stop=stop)
        assert done.choices[0].message.content == whole[: whole.index(mark)].rstrip()
        assert done.choices[0].finish_reason == "stop"
        text = "".join(k.choices[0].delta.content or "" for k in streamed(client, stop=stop))
        assert text == done.choices[0].message.content


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_length_is_limited(name, client):
    done = ask(client, **{name: 3})
    assert done.usage.completion_tokens == 3
    assert done.choices[0].finish_reason == "length"


def test_logprobs_are_those_of_the_tokens(client):
    (choice,) = ask(client, logprobs=True, top_logprobs=3, max_tokens=4).choices
    assert len(choice.logprobs.content) == 4
    assert "".join(token.token for token in choice.logprobs.content).strip() == choice.message.content
    for token in choice.logprobs.content:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token, "greedy"
        assert token.logprob == token.top_logprobs[0].logprob < 0
        assert bytes(token.bytes).decode() == token.token
        assert sum(math.exp(top.logprob) for top in token.top_logprobs) < 1
    chunks = streamed(client, logprobs=True, top_logprobs=3, max_tokens=4)
    pieces = [t for k in chunks if k.choices[0].logprobs for t in k.choices[0].logprobs.content]
    assert pieces == choice.logprobs.content
    assert not ask(client, logprobs=True).choices[0].logprobs.content[0].top_logprobs


def test_a_task_is_answered_as_the_assistant_does(client, system):
    settings = {"self_consistency": 4, "seed": 3, "temperature": 1.0}
    done = ask(client, with_image("[refer] the dog"), seed=3, temperature=1.0, extra_body={"self_consistency": 4})
    assert done.choices[0].message.content == system.ask(picture(), "[refer] the dog", **settings)
    assert done.usage.completion_tokens > 12, "all samples count"


def test_boxes_come_with_shares_and_pixels(monkeypatch):
    from minigpt4.engine.streaming import TextStream

    system = assistant()

    monkeypatch.setattr(TextStream, "_decode", lambda self, ids: "<p>a dog</p> {<10><20><50><80>}" if ids else "")
    with serving(system) as at:
        client = openai.OpenAI(base_url=f"{at}/v1", api_key="none")
        done = ask(client, with_image("[grounding] describe", picture(size=(10, 10)), picture(size=(200, 100))))
        (box,) = done.choices[0].model_extra["boxes"]
        assert box == {"phrase": "a dog", "image": 1, "relative": [0.1, 0.2, 0.5, 0.8], "pixels": [20.0, 20.0, 100.0, 80.0]}
        last = streamed(client, with_image("hm?", picture(size=(200, 100))))[-1]
        assert last.choices[0].model_extra["boxes"][0]["pixels"] == [20.0, 20.0, 100.0, 80.0]
        done = ask(client, {"role": "user", "content": "no image"})
        assert done.choices[0].model_extra["boxes"] == []


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


def test_words_that_mean_an_image_are_words(client, system):
    places = system.processor.num_image_tokens
    done = ask(client, with_image("what is <ImageHere> here?"))
    assert done.usage.prompt_tokens_details.image_tokens == places


# who leaves, who waits ---------------------------------------------------------------------------------------------------


def slow(system, monkeypatch, seconds=0.02):
    """Tokens that take their time."""
    step = system.engine._scheduler._cache.__class__.step

    def slowly(self, ids):
        time.sleep(seconds)
        return step(self, ids)

    monkeypatch.setattr(system.engine._scheduler._cache.__class__, "step", slowly)


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


def wait_until(true, shown=None, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, shown
        time.sleep(0.01)


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


# other addresses ---------------------------------------------------------------------------------------------------------


def test_the_model_says_what_it_takes(client):
    (model,) = client.models.list().data
    assert model.id == client.models.retrieve("tiny").id == "tiny"
    assert model.model_extra["input_modalities"] == ["text", "image"]
    assert model.model_extra["context_length"] == 512
    assert model.model_extra["max_new_tokens"] == 12
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    own = assistant()
    own.task_settings = {"question": {"max_new_tokens": 9}, "caption": {"max_new_tokens": 5}}
    with serving(own) as at:
        assert httpx2.get(f"{at}/v1/models").json()["data"][0]["max_new_tokens"] == 9  # what a plain question gets


def test_ready_when_it_is_loaded():
    gate = threading.Event()

    def load():
        gate.wait()
        return assistant()

    with serving(load=load) as at:
        try:
            assert httpx2.get(f"{at}/health").json() == {"status": "ok"}
            waiting = httpx2.get(f"{at}/ready")
            assert waiting.status_code == 503
            assert waiting.headers["retry-after"]
            request = {"model": "tiny", "messages": [with_image("hm?")]}
            assert httpx2.post(f"{at}/v1/chat/completions", json=request).status_code == 503
        finally:
            gate.set()
        wait_until(lambda: httpx2.get(f"{at}/ready").status_code == 200)
        assert httpx2.post(f"{at}/v1/chat/completions", json=request).status_code == 200


def test_metrics_count_what_was_done():
    system = assistant()
    with serving(system) as at:
        client = openai.OpenAI(base_url=f"{at}/v1", api_key="none")
        done = ask(client)
        streamed(client)
        text = httpx2.get(f"{at}/metrics").text
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert values["minigpt4_requests_total"] == "2.0"
        assert float(values["minigpt4_generated_tokens_total"]) == 2 * done.usage.completion_tokens
        assert values["minigpt4_images_encoded_total"] == values["minigpt4_images_known_total"] == "1.0"
        assert float(values["minigpt4_cached_tokens_total"]) > 10
        assert values["minigpt4_time_to_first_token_seconds_count"] == "2.0"
        assert values["minigpt4_running"] == values["minigpt4_waiting"] == "0.0"
        assert values['minigpt4_http_responses_total{path="/v1/chat/completions",status="200"}'] == "2.0"
        httpx2.get(f"{at}/anything/at/all")
        assert 'path="other",status="404"' in httpx2.get(f"{at}/metrics").text


def test_openapi_describes_the_body(at):
    schema = httpx2.get(f"{at}/openapi.json").json()
    body = schema["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    kind = schema["components"]["schemas"][body["$ref"].rpartition("/")[2]]
    assert {"model", "messages", "stream"} <= set(kind["properties"])
    assert kind["additionalProperties"] is False
