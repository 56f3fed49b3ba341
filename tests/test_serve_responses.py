"""The Responses API: what the official client gets."""

import httpx2
import openai
import pytest
from openai.types.responses import Response
from serving import assistant, picture, serving, uri


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


def shown(text, *colors):
    images = [{"type": "input_image", "image_url": uri(picture(color))} for color in colors or ("red",)]
    return {"role": "user", "content": [*images, {"type": "input_text", "text": text}]}


def test_an_answer_is_that_of_the_assistant(client, system):
    done = client.responses.create(model="tiny", input=[shown("hm?")])
    Response.model_validate(done.model_dump(warnings=False))
    assert done.output_text == system.ask(picture(), "hm?")
    assert (done.status, done.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert done.usage.output_tokens == 12
    assert done.usage.total_tokens == done.usage.input_tokens + 12
    assert done.tools == []
    assert done.store is False
    assert client.responses.create(model="tiny", input="hm?").output_text == system.ask([], "hm?")
    two = client.responses.create(model="tiny", input=[shown("hm?", "red", "blue")], max_output_tokens=5)
    assert two.output_text == system.ask([picture("red"), picture("blue")], "hm?", max_new_tokens=5)


def test_a_conversation_goes_on_with_what_was_given(client, system):
    chat = system.chat(picture())
    first, second = chat.ask("hm?"), chat.ask("and?")
    done = client.responses.create(model="tiny", input=[shown("hm?")])
    assert done.output_text == first
    said = [shown("hm?"), *done.output, {"role": "user", "content": "and?"}]
    assert client.responses.create(model="tiny", input=said).output_text == second


def test_events_are_numbered_and_tell_the_same(client):
    whole = client.responses.create(model="tiny", input=[shown("hm?")])
    events = list(client.responses.create(model="tiny", input=[shown("hm?")], stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert "".join(event.delta for event in events[4:-4]) == whole.output_text == events[-1].response.output_text
    assert len(events) > 12


def test_an_answer_that_ends_by_itself_is_complete(client):
    def asked(seed):
        return {"model": "tiny", "input": [shown("hm?")], "temperature": 1.5, "extra_body": {"seed": seed}}

    seed, whole = next(
        (seed, done)
        for seed in range(200)
        if (done := client.responses.create(**asked(seed))).status == "completed" and done.output_text
    )
    assert whole.incomplete_details is None
    with client.responses.stream(**asked(seed)) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == whole.output_text


@pytest.mark.parametrize(
    "name",
    ["previous_response_id", "background", "instructions", "tools", "conversation", "include", "reasoning", "truncation"],
)
def test_what_is_not_supported_is_refused_by_name(name, at):
    answer = httpx2.post(f"{at}/v1/responses", json={"model": "tiny", "input": "hm?", name: "x"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == name


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"stream": 1}, "stream"),
        ({"store": True}, "store"),
        ({"input": []}, "input"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "/etc/passwd"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.type"),
        ({"model": "other"}, "model"),
    ],
)
def test_what_is_wrong_is_said_where_it_is(change, param, at):
    answer = httpx2.post(f"{at}/v1/responses", json={"model": "tiny", "input": "hm?"} | change)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param
