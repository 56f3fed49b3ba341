"""The same question gets the same answer whoever asks, also where a system has settings of its own for plain questions."""

import json

import httpx2
import pytest
import torch
from conftest import tiny_model, tiny_processor
from serving import picture, serving, uri, with_image

from minigpt4.curate.recipe import Recipe
from minigpt4.curate.work import Work
from minigpt4.dialogue.agents import LocalAgent, Prompt, ask
from minigpt4.inference.assistant import Assistant
from minigpt4.jobs.resumable import ask_file
from minigpt4.prompt.tasks import NO_TASK

QUESTION = "What is this?"
WISHES = {
    "one reading": {"max_new_tokens": 9, "no_repeat_ngram_size": 1, "repetition_penalty": 1.3},
    "several answers": {"max_new_tokens": 5, "temperature": 0.9, "self_consistency": 4, "mirrored": True},
}


@pytest.fixture(params=WISHES)
def wish(request):
    return WISHES[request.param]


@pytest.fixture
def system(wish):
    torch.manual_seed(12)
    model = tiny_model()
    made = Assistant(model, tiny_processor(model.config), task_settings={NO_TASK: wish})
    yield made
    made.engine.close()


@pytest.fixture
def photo(tmp_path):
    picture().save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def by_agent(system, photo, **settings):
    said = [{"role": "user", "content": QUESTION}]
    return ask(LocalAgent(system, **settings), Prompt(messages=said, images=[photo]))


def by_file(system, photo, tmp_path):
    source, output = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    source.write_text(json.dumps({"image": "photo.png", "question": QUESTION}) + "\n")
    ask_file(lambda: system, source, output, "somebody", 4, {})
    return json.loads(output.read_text())["answer"]


def test_every_caller_decodes_a_plain_question_as_the_system_wishes(system, wish, photo, tmp_path):
    answer = str(system.ask(photo, QUESTION))
    plain = Assistant(system.model, system.processor)
    assert answer == str(plain.ask(photo, QUESTION, **wish)) != str(plain.ask(photo, QUESTION))
    plain.engine.close()
    assert system.ask_many([(photo, QUESTION)] * 3) == [answer] * 3
    assert system.chat(photo).ask(QUESTION) == answer
    assert by_file(system, photo, tmp_path) == answer
    reply = by_agent(system, photo)
    assert (reply.text, reply.generated_tokens > 0) == (answer, True)
    if "self_consistency" not in wish:  # which gives way to streaming
        assert "".join(system.chat(photo).stream(QUESTION)).rstrip() == answer


def test_what_is_served_is_the_same(system, photo):
    answer = str(system.ask(photo, QUESTION))
    parts = [{"type": "input_image", "image_url": uri(picture())}, {"type": "input_text", "text": QUESTION}]
    with serving(system) as at:
        body = {"model": "tiny", "messages": [with_image(QUESTION)]}
        (choice,) = httpx2.post(f"{at}/v1/chat/completions", json=body, timeout=60).json()["choices"]
        assert choice["message"]["content"] == answer
        shorter = httpx2.post(f"{at}/v1/chat/completions", json=body | {"max_tokens": 2}, timeout=60).json()["choices"]
        assert shorter[0]["message"]["content"] == str(system.ask(photo, QUESTION, max_new_tokens=2)) != answer
        body = {"model": "tiny", "input": [{"role": "user", "content": parts}]}
        output = httpx2.post(f"{at}/v1/responses", json=body, timeout=60).json()["output"]
        assert output[0]["content"][0]["text"] == answer


def test_given_settings_go_first(system, photo):
    for given in ({"max_new_tokens": 3}, {"self_consistency": 1, "temperature": 0.0}):
        assert by_agent(system, photo, **given).text == str(system.ask(photo, QUESTION, **given))


def test_curation_describes_as_ask_does(system, photo, tmp_path):
    wanted = Recipe.model_validate(
        {
            "output": str(tmp_path / "out"),
            "draw": {"folder": str(tmp_path), "count": 1},
            "describe": {"agent": {"model": "ours"}, "prompt": QUESTION, "max_new_tokens": 6},
        }
    )
    (row,) = Work(wanted, load=lambda _: system).on("describe", [{"image": str(photo)}])
    assert row["raw"] == str(system.ask(photo, QUESTION, max_new_tokens=6))
