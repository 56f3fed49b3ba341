"""Which picture a row of LLaVA's format has, and where it stands."""

import json
import random

import pytest
from conftest import tiny_config, tiny_processor
from PIL import Image

from minigpt4.data.check import check
from minigpt4.data.collate import Formatter
from minigpt4.data.formats import build_source
from minigpt4.errors import UserError
from minigpt4.prompt.templates import IMAGE


@pytest.fixture
def place(tmp_path):
    """Options of a dataset with rows: COCO's folder comes before the rows' own."""
    for name in ("coco/COCO_train2014_000000000042.jpg", "own/vg/42.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)

    def write(*rows, **options):
        (tmp_path / "rows.json").write_text(json.dumps(rows))
        folders = [str(tmp_path / "coco"), str(tmp_path / "own")]
        return {"name": "d", "annotations": str(tmp_path / "rows.json"), "images": folders} | options

    return write


def row(*texts, **others):
    return (
        {"id": "42"}
        | others
        | {"conversations": [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]}
    )


def test_what_a_row_names_is_its_picture_or_is_missing(place):
    own = build_source("llava_conversation", **place(row("<image>\nWhat?", "Blue.", image="vg/42.jpg")))
    assert own.images(0)[0].parts[-3:] == ("own", "vg", "42.jpg")
    gone = [row("<image>\nWhat?", "Blue.", image=f"vg/{number}.jpg") for number in (43, 42)]
    assert len(build_source("llava_conversation", **place(*gone, missing="skip"))) == 1
    with pytest.raises(UserError, match="no picture vg/43.jpg in"):
        build_source("llava_conversation", **place(*gone)).images(0)
    named_by_coco = place(row("<image>\nWhat?", "Blue.", image="000000000042.jpg"))
    assert build_source("llava_conversation", **named_by_coco).images(0)[0].name == "COCO_train2014_000000000042.jpg"


def test_a_row_that_names_nothing_is_text_unless_it_has_the_marker(place):
    for options in (place(row("Name a colour.", "Red.", id=7)), place(row("Name a colour.", "Red.", id=7), missing="skip")):
        source = build_source("llava_conversation", **options)
        assert len(source) == 1
        assert source.images(0) == ()
    marked = build_source("llava_conversation", **place(row("<image>\nWhat?", "Red.")))
    assert marked.images(0)[0].name == "COCO_train2014_000000000042.jpg"


def test_a_marker_in_a_later_turn_is_where_the_picture_stands(place):
    texts = ("Hello <ImageHere>.", "Hi.", "What colour is this?\n<image>", "Blue.")
    source = build_source("llava_conversation", **place(row(*texts, image="vg/42.jpg")))
    sample = source.sample(0, random.Random(0))
    assert sample.placed
    assert [turn.question for turn in sample.turns] == ["Hello < ImageHere>.", f"{IMAGE} What colour is this?"]
    formatter = Formatter(tiny_processor(tiny_config()))
    example, place_id = formatter(sample), formatter.processor.image_token_id
    assert place_id not in example.prefix_ids
    assert example.branches[0].ids.count(place_id) == formatter.processor.num_image_tokens
    single = build_source("llava_detail", **place(row(*texts, image="vg/42.jpg"))).sample(0, random.Random(0))
    assert not single.placed
    assert len(single.images) == 1


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (("<image> <image> What?", "Blue."), "2 <image>, but 1 picture"),
        (("<image> What?", "Blue.", "And <image>?", "Red."), "2 <image>, but 1 picture"),
        (("What?", "An <image>."), "an answer has <image> in it"),
    ],
)
def test_markers_are_counted_row_by_row_and_data_check_says_so(place, texts, said):
    options = place(row("<image>", "Blue.", image="vg/42.jpg"), row(*texts, image="vg/42.jpg"))
    with pytest.raises(UserError, match=said):
        build_source("llava_conversation", **options)
    (problem,) = check([("llava_conversation", options)]).problems
    assert problem.kind == "malformed row"
    assert "rows.json[1]" in problem.where
    assert said in problem.message


@pytest.mark.parametrize(
    "content",
    [
        {"question": "<image>\nWhat?", "answer": "a"},
        {"question": "What?", "answer": "<image>"},
        {"conversation": [{"role": "user", "content": "<image> a"}, {"role": "assistant", "content": "b"}]},
    ],
)
def test_another_formats_marker_in_our_own_rows_is_named(place, tmp_path, content):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "own/vg/42.jpg"} | content))
    with pytest.raises(UserError, match="<image> marks pictures in LLaVA's format"):
        build_source("jsonl", name="d", annotations=str(tmp_path / "rows.jsonl"), images=str(tmp_path))
