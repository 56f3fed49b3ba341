"""Decisions: what the official client gets, and that probabilities are those of the language model."""

import httpx2
import openai
import pytest
import torch
from openai.types import Decision
from serving import assistant, picture, serving, uri

from minigpt4.errors import UserError
from minigpt4.metrics.calibration import bins, brier, calibration_error
from minigpt4.serve.decisions import Predicate
from minigpt4.serve.settings import Allowed


@pytest.fixture(scope="module")
def system():
    return assistant()


@pytest.fixture(scope="module")
def at(system):
    with serving(system, allowed=Allowed(text_characters=5000)) as address:
        yield address


@pytest.fixture(scope="module")
def client(at):
    return openai.OpenAI(base_url=f"{at}/v1", api_key="none", max_retries=0)


def shown(text=None, color="red"):
    words = [] if text is None else [{"type": "input_text", "text": text}]
    return {"role": "user", "content": [{"type": "input_image", "image_url": uri(picture(color))}, *words]}


CHOICES = {"type": "choice", "instructions": "Which?", "choices": [{"value": v} for v in ("a dog", "cat", "x")]}
LEVELS = {"type": "score", "instructions": "How much?", "levels": [{"label": v} for v in ("none", "some", "all of it")]}


def by_hand(system, prompt, answers, color="red"):
    """Shares of some answers, from one whole pass for each."""
    processor, model = system.processor, system.model
    pixels = processor.image_processor(picture(color))["pixel_values"]
    logps = []
    for answer in answers:
        before = processor.prompt_ids([{"role": "user", "content": prompt}])
        own = processor.tokenizer(answer + processor.chat.end, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([before + own]), pixel_values=pixels).logits[0]
        logp = logits.log_softmax(-1)[len(before) - 1 : -1]
        logps.append(sum(logp[place, token].item() for place, token in enumerate(own)))
    return torch.tensor(logps).softmax(0).tolist()


IMAGE = "<Img><ImageHere></Img>"
STATEMENT = "Based on the image, is this statement true or false? "


def test_probabilities_are_those_of_whole_answers(client, system):
    questions = [
        {"type": "predicate", "instructions": "Is it red?", "name": "red"},
        {"type": "predicate", "instructions": "It is red."},
        CHOICES | {"name": "which"},
        LEVELS,
        {
            "type": "choice",
            "instructions": [{"type": "input_text", "text": "Red?"}],
            "choices": [{"value": True}, {"value": False}],
        },
    ]
    done = client.decisions.create(model="tiny", input=[shown()], questions=questions)
    Decision.model_validate(done.model_dump())
    red, told, which, scale, both = done.answers
    expected = by_hand(system, f"{IMAGE} Is it red?", ["yes", "no"])
    assert red.probability == pytest.approx(expected[0], abs=1e-5)
    assert 0.001 < expected[0] < 0.999, "a case that could be told from a constant"
    assert told.probability == pytest.approx(by_hand(system, f"{IMAGE} {STATEMENT}It is red.", ["true", "false"])[0], abs=1e-5)
    expected = by_hand(system, f"{IMAGE} Which?", ["a dog", "cat", "x"])
    assert [(one.value, one.probability) for one in which.probabilities] == [
        (value, pytest.approx(share, abs=1e-5)) for value, share in zip(("a dog", "cat", "x"), expected, strict=True)
    ]
    assert (which.choice, which.confidence) == (
        ("a dog", "cat", "x")[expected.index(max(expected))],
        pytest.approx(max(expected)),
    )
    expected = by_hand(system, f"{IMAGE} How much?", ["none", "some", "all of it"])
    assert [one.value for one in scale.probabilities] == [0, 1, 2]
    assert scale.score == pytest.approx(expected[1] + 2 * expected[2], abs=1e-5)
    assert scale.confidence == pytest.approx(max(expected), abs=1e-5)
    assert [one.value for one in both.probabilities] == [True, False]
    assert both.probabilities[0].probability == pytest.approx(by_hand(system, f"{IMAGE} Red?", ["yes", "no"])[0], abs=1e-5)
    assert [answer.name for answer in done.answers] == ["red", None, "which", None, None]


def test_the_input_is_a_conversation_and_is_read_once(client, system):
    said = [shown("It is a garden."), {"role": "assistant", "content": "Yes."}]
    encoded = system.engine.stats.images_encoded
    done = client.decisions.create(model="tiny", input=[shown("A garden.", "lime")], questions=[CHOICES, LEVELS, CHOICES])
    assert system.engine.stats.images_encoded == encoded + 1
    assert done.usage.input_tokens_details.cached_tokens > 0
    assert (done.usage.output_tokens, done.usage.total_tokens) == (0, done.usage.input_tokens)
    expected = by_hand(system, f"{IMAGE} A garden. Which?", ["a dog", "cat", "x"], "lime")
    assert done.answers[0].confidence == pytest.approx(max(expected), abs=1e-5)
    assert done.answers[2].confidence == pytest.approx(done.answers[0].confidence), "whatever was asked between"
    after = client.decisions.create(model="tiny", input=said, questions=[CHOICES])
    assert after.answers[0].confidence != done.answers[0].confidence
    assert client.decisions.create(model="tiny", input="No image.", questions=[CHOICES]).answers[0].choice


def test_many_questions(client):
    questions = [CHOICES | {"instructions": f"Number {i}?"} for i in range(60)]
    assert len(client.decisions.create(model="tiny", input=[shown()], questions=questions).answers) == 60


def test_words_that_mean_an_image_are_words(client, system):
    asked = CHOICES | {"instructions": "an <ImageHere>?", "choices": [{"value": "<ImageHere>"}, {"value": "b"}]}
    done = client.decisions.create(model="tiny", input=[shown()], questions=[asked])
    assert {one.value for one in done.answers[0].probabilities} == {"<ImageHere>", "b"}


def test_how_a_predicate_is_asked():
    def asked(text):
        return Predicate(type="predicate", instructions=text).asked()

    assert asked("[vqa] Is it red? ") == ("[vqa] Is it red?", ["yes", "no"])
    assert asked("[vqa] It is red.") == (f"[vqa] {STATEMENT}It is red.", ["true", "false"])


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"questions": []}, "questions"),
        ({"questions": [CHOICES] * 401}, "questions"),
        ({"questions": [CHOICES | {"instructions": " "}]}, "questions[0].instructions"),
        ({"questions": [CHOICES | {"choices": [{"value": "a"}]}]}, "questions[0].choices"),
        ({"questions": [CHOICES | {"choices": [{"value": "yes"}, {"value": True}]}]}, "questions[0].choices"),
        ({"questions": [CHOICES | {"choices": [{"value": "a"}, {"value": 1}]}]}, "questions[0].choices[1].value"),
        ({"questions": [CHOICES | {"choices": [{"value": "a", "description": "d"}, {"value": "b"}]}]}, "description"),
        ({"questions": [LEVELS | {"levels": [{"label": " "}, {"label": "b"}]}]}, "questions[0].levels"),
        ({"questions": [{"type": "range", "instructions": "x"}]}, "questions[0]"),
        ({"questions": [CHOICES | {"name": "a"}, LEVELS | {"name": "a"}]}, None),
        ({"questions": [CHOICES | {"instructions": "x" * 5001}]}, "questions"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,aGk="}]}]},
            "input",
        ),
        ({"prompt_cache_key": "x"}, "prompt_cache_key"),
        ({"stream": True}, "stream"),
        ({"model": "other"}, "model"),
    ],
)
def test_what_is_wrong_is_said_where_it_is(change, param, at):
    body = {"model": "tiny", "input": "hm", "questions": [CHOICES]} | change
    answer = httpx2.post(f"{at}/v1/decisions", json=body)
    assert answer.status_code == (404 if param == "model" else 400), answer.text
    said = answer.json()["error"]
    assert (said["param"] is None) == (param is None)
    assert (param or "") in (said["param"] or ""), said


def test_a_context_that_is_too_small_is_said(client):
    with pytest.raises(openai.BadRequestError, match="too long"):
        client.decisions.create(model="tiny", input=[shown("x" * 600)], questions=[CHOICES, LEVELS])


def test_calibration_by_hand():
    said, true = [0.1, 0.15, 0.9, 1.0, 0.5], [False, True, True, True, False]
    assert [(one.cases, round(one.said, 3), one.true) for one in bins(said, true, 4)] == [
        (2, 0.125, 0.5),
        (1, 0.5, 0.0),
        (2, 0.95, 1.0),
    ]
    assert calibration_error(said, true, 4) == pytest.approx((2 * 0.375 + 1 * 0.5 + 2 * 0.05) / 5)
    assert brier(said, true) == pytest.approx((0.01 + 0.7225 + 0.01 + 0 + 0.25) / 5)
    for wrong in ([], [0.5]), ([1.5], [True]), ([0.5], []):
        with pytest.raises(UserError, match="as many probabilities"):
            brier(*wrong)
