"""Chat completions over HTTP: what the official client gets, and what it learns of the model and the server."""

import json
import math
import threading
import time

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from serving import assistant, picture, serving, uri, wait_until, with_image

from minigpt4.engine.completion import TokenLogprob
from minigpt4.serve.chat import logprobs


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


def test_what_changes_nothing_is_taken_and_changes_nothing(client):
    plain = ask(client).choices[0].message.content
    assert [ask(client, **same).choices[0].message.content for same in ({"top_p": 1}, {"extra_body": {"top_k": 0}})] == [
        plain
    ] * 2


def test_beams_that_the_system_wishes_give_way():
    system = assistant()
    system.task_settings = {"caption": {"num_beams": 2}}
    with serving(system) as at:
        client = openai.OpenAI(base_url=f"{at}/v1", api_key="none", max_retries=0)
        caption = with_image("[caption] describe")
        assert ask(client, caption, logprobs=True).choices[0].logprobs.content
        assert len(ask(client, caption, n=2).choices) == 2
        with pytest.raises(openai.BadRequestError, match="n=3 answers would all be the same: set a temperature above 0"):
            ask(client, caption, n=3)
        with pytest.raises(openai.BadRequestError, match="n=3 answers cannot come from num_beams=2"):
            ask(client, caption, n=3, extra_body={"num_beams": 2})


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


def test_the_end_of_an_answer_is_none_of_its_tokens():
    """Clients that join their texts had "<|im_end|>" behind it."""
    content = logprobs([TokenLogprob(5, " cat", -0.5, ((5, " cat", -0.5), (2, "</s>", -1.5))), TokenLogprob(2, "", -0.1)])[
        "content"
    ]
    assert [one["token"] for one in content] == [" cat"]
    assert [one["token"] for one in content[0]["top_logprobs"]] == [" cat", "</s>"]


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
    twice = ask(client, with_image("[refer] the dog"), max_tokens=3, extra_body={"self_consistency": 4, "mirrored": True})
    assert twice.usage.prompt_tokens_details.image_tokens == 2 * system.processor.num_image_tokens, "and both prompts"
    assert twice.usage.prompt_tokens == 2 * done.usage.prompt_tokens


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


def test_words_that_mean_an_image_are_words(client, system):
    places = system.processor.num_image_tokens
    done = ask(client, with_image("what is <ImageHere> here?"))
    assert done.usage.prompt_tokens_details.image_tokens == places


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
