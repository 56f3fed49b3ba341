"""Whatever a file holds, it is read or refused in one line."""

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minigpt4.data.formats import build_source
from minigpt4.data.schema import FORMS, KEYS, Style, parse_row
from minigpt4.errors import UserError

SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 200) | st.floats() | st.text(max_size=5) | st.sampled_from(["a.jpg", "user"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*KEYS, "role", "content", "start"]), inner, max_size=4)
    ),
    max_leaves=12,
)
BOX = st.tuples(*[st.floats(0, 1)] * 4).map(list)
LIKELY = {
    "image": st.just("a.jpg"),
    "task": st.sampled_from(["caption", "vqa", "refer", "identify", "grounding", "detection"]),
    "answer": st.text(max_size=5),
    "answers": st.lists(st.text(max_size=5), max_size=3),
    "question": st.text(max_size=5),
    "phrase": st.sampled_from(["a dog", "dog"]),
    "boxes": st.lists(BOX, max_size=2),
    "text": st.just("a dog and a dog"),
    "phrases": st.lists(
        st.fixed_dictionaries({"phrase": st.sampled_from(["a dog", "dog"]), "boxes": st.lists(BOX)}), max_size=3
    ),
}
ROWS = VALUES | st.fixed_dictionaries({}, optional={key: values | SCALARS for key, values in LIKELY.items()})


def tried(function, *args, **kwargs):
    """What a function returns, and what it refuses to do so with; anything but a UserError is a defect."""
    try:
        return function(*args, **kwargs), ""
    except UserError as error:
        return None, str(error)


@given(ROWS)
@settings(max_examples=400)
def test_any_row_of_our_schema_is_understood_or_refused(row):
    parsed, refused = tried(parse_row, row, "rows.jsonl:1")
    if refused:
        assert refused.startswith("rows.jsonl:1: ")
        return
    for task in {parsed.as_task(None), *parsed.serves}:
        if parsed.can(task) and not (task is None and parsed.needs_task):
            turns = parsed.turns(task, random.Random(0), Style())
            assert all(turn.answers for turn in turns)
            parsed.sample(turns, parsed.images, task, "x")


def test_every_form_can_come_out_of_it():
    assert {form.__name__ for form, *_ in FORMS.values()} == {
        "Description",
        "Question",
        "Phrase",
        "GroundedText",
        "Conversation",
    }


OFFICIAL = {
    "cc_sbu_align": ["annotations", "image_id", "caption"],
    "coco_caption": ["image", "caption"],
    "textcaps_caption": ["data", "image_id", "caption_str"],
    "coco_vqa": ["image", "question", "answer"],
    "aok_vqa": ["image", "image_id", "question", "direct_answers"],
    "gqa": ["image", "imageId", "question", "answer"],
    "ocrvqa": ["imageURL", "questions", "answers", "split"],
    "flickr_ObjectToPhrase": ["image_id", "phrase", "bbox"],
    "llava_conversation": ["id", "image", "conversations", "from", "value"],
    "unnatural_instruction": ["instances", "instruction_with_input", "output"],
    "coco_instances": ["images", "annotations", "categories", "id", "bbox", "image_id", "file_name", "width", "height"],
}


@pytest.mark.parametrize("format", OFFICIAL)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_annotation_file_is_understood_or_refused(tmp_path, format, data):
    keys = st.sampled_from(OFFICIAL[format])
    values = st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=15
    )
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(data.draw(values | st.lists(st.dictionaries(keys, values), max_size=3))))
    for malformed in ("error", "skip"):
        source, refused = tried(build_source, format, annotations=str(path), malformed=malformed)
        if refused:
            assert "\n" not in refused
            continue
        for index in range(len(source)):
            source.outline(index)
        assert all(problem.message for problem in source.problems())
