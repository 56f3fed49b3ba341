"""Decoding settings by task, in a file beside the weights."""

import json

import pytest
import torch
from conftest import tiny_config, tiny_folder, tiny_model, tiny_processor
from PIL import Image

from minigpt4.checkpoints.export import export
from minigpt4.checkpoints.folders import TASK_SETTINGS, read_task_settings
from minigpt4.checkpoints.loading import save_trained
from minigpt4.checkpoints.pocket import FOLDERS
from minigpt4.engine.params import SamplingParams
from minigpt4.errors import UserError
from minigpt4.inference.assistant import Assistant, load
from minigpt4.inference.task_settings import check_task_settings, plan_for, plan_of
from minigpt4.jobs.made_by import signature
from minigpt4.model.configuration import MiniGPT4Config
from minigpt4.prompt.tasks import NO_TASK
from minigpt4.train.average import average

OWN = {"caption": {"max_new_tokens": 5, "num_beams": 2}, NO_TASK: {"max_new_tokens": 7, "no_repeat_ngram_size": 3}}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    tiny_folder(tmp_path / "base")
    return tmp_path / "base"


def said(system, question, **settings):
    params = system.plan(question, settings).params
    return params.max_new_tokens, params.num_beams, params.no_repeat_ngram_size


def write(folder, settings):
    (folder / TASK_SETTINGS).write_text(json.dumps(settings))


def test_a_loaded_system_decodes_as_its_file_says(folder):
    write(folder, OWN)
    system = load(folder)
    usual = said(Assistant(system.model, system.processor), "Why?")
    assert said(system, "[caption] hm?") == (5, 2, 0)
    assert said(system, "Why?") == (7, 1, 3)
    assert said(system, "Why?", max_new_tokens=4, no_repeat_ngram_size=0) == (4, 1, 0)
    assert said(system, "[vqa] why?") == usual  # a task of which nothing is said
    photo = Image.new("RGB", (64, 64), (200, 30, 30))
    plain = Assistant(system.model, system.processor)
    assert system.ask(photo, "Why?") == plain.ask(photo, "Why?", **OWN[NO_TASK])
    assert system.caption(photo) == plain.caption(photo, **OWN["caption"])
    assert "".join(system.chat(photo).stream("Why?")).strip() == system.ask(photo, "Why?")


def test_who_samples_where_the_system_wishes_greedy_answers_samples():
    greedy = {"temperature": 0, "max_new_tokens": 5}
    assert SamplingParams.from_settings(greedy) == SamplingParams(max_new_tokens=5)
    for given in ({"do_sample": True}, {"top_p": 0.9}, {"top_k": 3}, {"temperature": 0.5}):
        wanted = SamplingParams(**{"max_new_tokens": 5, "temperature": 1.0} | {k: v for k, v in given.items() if v is not True})
        assert SamplingParams.from_settings(greedy, given) == wanted
    wished = {"refer": {"temperature": 0}}
    plan = plan_of("[refer] it", wished, {"self_consistency": 4}, SamplingParams.from_settings)
    assert plan.sampled(4).samples


def test_what_lets_every_token_through_does_not_ask_for_sampling():
    """OpenAI's clients send ``top_p: 1`` when they mean nothing by it."""
    for given in ({"top_p": 1.0}, {"top_k": 0}, {"top_p": 1, "top_k": 0}):
        assert not SamplingParams.from_settings(given).samples
        assert SamplingParams.from_settings({"num_beams": 3, "length_penalty": 2.0}, given).num_beams == 3
        assert SamplingParams.from_settings({"temperature": 0.7, "top_p": 0.9, "top_k": 5}, given | {"seed": 1}).samples
    assert SamplingParams.from_settings({"top_p": 0.9, "temperature": 0.7}, {"top_p": 1.0}).top_p == 1.0


def planned(question, **given):
    return plan_of(question, read_task_settings(FOLDERS["pocket"]), given, SamplingParams.from_settings)


def test_a_wished_length_gives_way_to_a_shortest_one():
    """`caption --min-new-tokens 50` was refused by the system's own max_new_tokens=40, which nobody had given."""
    wished = {"max_new_tokens": 40}
    assert plan_for(None, wished, {"min_new_tokens": 50}, SamplingParams.from_settings).params.max_new_tokens is None
    assert plan_for(None, wished, {"min_new_tokens": 40}, SamplingParams.from_settings).params.max_new_tokens == 40
    with pytest.raises(UserError, match="min_new_tokens=50 is more than max_new_tokens=45"):
        plan_for(None, wished, {"min_new_tokens": 50, "max_new_tokens": 45}, SamplingParams.from_settings)


def test_what_the_system_wishes_gives_way_to_what_is_given():
    one = planned("[refer] the cat", temperature=0)
    assert (one.samples, one.zoom_in, one.mirrored, one.params.temperature) == (1, False, False, 0)
    assert planned("[detection] cats", temperature=0).samples == 1
    assert planned("[refer] the cat", temperature=0.5).samples == 16
    assert not planned("[grounding] describe", logprobs=0).zoom_in  # they would be another text's
    caption = planned("[caption] describe", logprobs=0)
    assert (caption.params.num_beams, caption.params.no_repeat_ngram_size) == (1, 4)
    assert planned("[caption] describe").params.num_beams == 3
    weighed = plan_of(
        "hm?", {"question": {"num_beams": 2, "length_penalty": 2.0}}, {}, SamplingParams.from_settings, streamed=True
    )
    assert weighed.params.num_beams == weighed.params.length_penalty == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"self_consistency": 4, "temperature": 0}, "self_consistency samples its answers: leave out temperature=0"),
        ({"self_consistency": 4, "do_sample": False}, "leave out do_sample=False, or self_consistency"),
        ({"self_consistency": 4, "num_beams": 2}, "leave out num_beams=2, or self_consistency"),
        ({"self_consistency": 4, "logprobs": 2}, "self_consistency does not go with logprobs"),
        ({"self_consistency": 3, "mirrored": True}, "mirrored goes with self_consistency of 4 or more"),
        ({"zoom_in": True, "logprobs": 0, "self_consistency": 1}, "zoom_in goes with .grounding."),
    ],
)
def test_given_settings_that_do_not_go_together_are_named(given, says):
    with pytest.raises(UserError, match=says):
        planned("[refer] the cat", **given)
    with pytest.raises(UserError, match="zoom_in does not go with logprobs"):
        planned("[grounding] describe", zoom_in=True, logprobs=0)


@pytest.mark.parametrize("name", FOLDERS)
def test_what_ships_can_be_followed(name):
    check_task_settings(read_task_settings(FOLDERS[name]), SamplingParams.from_settings)
    assert "task_generation" not in json.loads((FOLDERS[name] / "config.json").read_text())


def test_the_pocket_model_points_with_several_answers():
    settings = read_task_settings(FOLDERS["pocket"])
    assert settings["refer"] == {"self_consistency": 16, "zoom_in": True, "mirrored": True}
    assert settings["caption"]["num_beams"] == 3


def old(folder, settings):
    """A folder as earlier versions wrote it: the settings are part of the configuration."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"task_generation": settings}))


def test_older_folders_are_read_and_written_anew(folder, tmp_path):
    assert read_task_settings(folder) == {}
    old(folder, None)
    assert read_task_settings(folder) == {}
    old(folder, OWN)
    system = load(folder)
    assert said(system, "[caption] hm?") == (5, 2, 0)
    assert not hasattr(system.model.config, "task_generation")
    export(folder, tmp_path / "out")
    assert json.loads((tmp_path / "out" / TASK_SETTINGS).read_text()) == OWN
    assert "task_generation" not in (tmp_path / "out" / "config.json").read_text()
    assert load(tmp_path / "out").task_settings == OWN
    write(folder, {"caption": {"num_beams": 4}})  # the file is newer
    assert load(folder).task_settings == {"caption": {"num_beams": 4}}


def test_trained_folders_have_them_too(folder, tmp_path):
    model = tiny_model(base_source=str(folder))
    for name, own in (("one", {}), ("two", OWN)):
        save_trained(model, tiny_processor(model.config), tmp_path / name, task_settings=own)
    assert not (tmp_path / "one" / TASK_SETTINGS).exists()
    assert load(tmp_path / "two").task_settings == OWN
    assert signature(str(tmp_path / "one"), {}).split("@")[1] != signature(str(tmp_path / "two"), {}).split("@")[1]
    average({str(tmp_path / "one"): 0.5, str(tmp_path / "two"): 0.5}, tmp_path / "mean")
    assert read_task_settings(tmp_path / "mean") == OWN


def test_the_configuration_does_not_keep_them():
    config = MiniGPT4Config(**tiny_config().to_dict() | {"task_generation": OWN})
    assert "task_generation" not in config.to_dict()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        (json.dumps({"captoin": {}}), "there is no task 'captoin'; there are caption, .*question"),
        (json.dumps({"caption": 3}), '"caption" must be an object of settings'),
        (json.dumps({"caption": {"num_beam": 3}}), r"caption: unknown setting num_beam \(did you mean num_beams\?\)"),
        (json.dumps({"question": {"top_p": 2}}), "question: top_p must be from 0 to 1"),
        (
            json.dumps({"question": {"num_beams": 2, "length_penalty": -2000}}),
            "question: length_penalty must be from -10 to 10",
        ),
        (json.dumps({"vqa": {"num_beams": 2, "temperature": 0.5}}), "vqa: temperature does not go with num_beams"),
        (json.dumps({"vqa": {"zoom_in": True}}), r"vqa: zoom_in goes with \[grounding\]"),
        (json.dumps({"refer": {"mirrored": True}}), "refer: mirrored goes with self_consistency"),
        (json.dumps({"refer": {"self_consistency": "4"}}), "refer: self_consistency is a number"),
        (json.dumps({"refer": {"self_consistency": 500}}), "refer: self_consistency is a number of answers, from 1 to 128"),
        (json.dumps({"refer": {"self_consistency": 8, "mirrored": "false"}}), "refer: mirrored must be true or false"),
    ],
)
def test_what_cannot_be_followed_is_named(folder, text, says):
    (folder / TASK_SETTINGS).write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        load(folder)
    assert str(caught.value).startswith(str(folder / TASK_SETTINGS))
    assert "\n" not in str(caught.value)


def test_settings_for_everything_are_named_by_their_own_file(folder):
    (folder / TASK_SETTINGS).write_text(json.dumps({"caption": {"num_beams": 3}}))
    (folder / "generation_config.json").write_text(json.dumps({"repetition_penalty": -3.0}))
    with pytest.raises(UserError, match="repetition_penalty must be above 0") as caught:
        load(folder)
    assert str(caught.value).startswith(str(folder / "generation_config.json"))


def test_an_older_file_is_named_as_well(folder):
    old(folder, {"caption": {"num_beam": 3}})
    with pytest.raises(UserError, match=r"config\.json: caption: unknown setting num_beam "):
        load(folder)
