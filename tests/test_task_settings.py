"""Decoding settings by task, in a file beside the weights."""

import json

import pytest

from minigpt4.checkpoints.folders import TASK_SETTINGS, read_task_settings
from minigpt4.checkpoints.pocket import FOLDERS
from minigpt4.engine.params import check_names
from minigpt4.errors import UserError
from minigpt4.inference.task_settings import OWN


@pytest.mark.parametrize("folder", FOLDERS.values(), ids=FOLDERS)
def test_what_ships_says_what_an_assistant_understands(folder):
    for settings in read_task_settings(folder).values():
        check_names(settings, OWN)


def test_the_pocket_model_points_with_several_answers():
    settings = read_task_settings(FOLDERS["pocket"])
    assert settings["refer"] == {"self_consistency": 16, "zoom_in": True, "mirrored": True}
    assert settings["caption"]["num_beams"] == 3


def test_a_folder_without_the_file_has_none(tmp_path):
    assert read_task_settings(tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        (json.dumps({"captoin": {}}), "there is no task 'captoin'; there are caption, "),
        (json.dumps({"caption": 3}), '"caption" must be an object of settings'),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, says):
    (tmp_path / TASK_SETTINGS).write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        read_task_settings(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / TASK_SETTINGS))
    assert "\n" not in str(caught.value)
