"""Boxes: every form they take, and what is made of what models write."""

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from recorded import recorded

from minigpt4.errors import UserError
from minigpt4.evaluate.demo_format import escape_markdown, official_phrases, phrase_groups, unescape_markdown
from minigpt4.model.processing import MiniGPT4ImageProcessor
from minigpt4.prompt.boxes import (
    Box,
    parse_boxes,
    parse_phrases,
    render_boxes,
    render_phrases,
    without_boxes,
)


@st.composite
def grid_boxes(draw) -> Box:
    x1, x2 = sorted(draw(st.tuples(st.integers(0, 100), st.integers(0, 100))))
    y1, y2 = sorted(draw(st.tuples(st.integers(0, 100), st.integers(0, 100))))
    return Box.from_grid(x1, y1, x2, y2)


words = st.text("abc xyz'-", min_size=1).map(lambda t: " ".join(t.split())).filter(bool)

# the published system --------------------------------------------------------------------------------------------------


def test_training_strings_are_the_official_ones():
    for case in recorded("common/boxes.json"):
        box = Box.from_xywh(*case["bbox_xywh"], case["width"], case["height"])
        assert box.render() == case["encoded"], case


def test_drawn_masks_become_the_official_boxes():
    for case in recorded("common/demo_v2.json")["mask_to_box"]:
        mask = Image.new("L", (case["width"], case["height"]))
        if case["filled_rows_inclusive"]:
            (top, bottom), (left, right) = case["filled_rows_inclusive"], case["filled_cols_inclusive"]
            mask.paste(1, (left, top, right + 1, bottom + 1))
        if case["extra_pixel_0_0"]:
            mask.putpixel((0, 0), 255)
        box = Box.from_mask(mask)
        assert (box.render() if box else "") == case["box"], case


def test_phrases_are_grouped_and_escaped_as_official():
    facts = recorded("common/demo_v2.json")
    for case in facts["phrase_groups"]:
        assert phrase_groups(case["in"]) == case["out"]
    for case in facts["escape"]:
        assert escape_markdown(case["in"]) == case["escaped"]
        assert unescape_markdown(case["escaped"]) == case["back"]


def test_the_official_reading_and_ours_agree_on_well_formed_answers():
    text = "<p>a dog</p> {<1><2><30><40>}<delim>{<5><6><70><80>}, <p>a car</p> {<9><9><20><20>} and <p>a dog</p> {<0><0><1><1>}"
    assert official_phrases(text) == parse_phrases(text)
    assert [phrase for phrase, _ in official_phrases(text)] == ["a dog", "a car"]
    assert official_phrases("<p>a</p> <p>b</p> {<1><2><3><4>}")[0][0] == "a"  # theirs ties the box to the wrong phrase
    assert parse_phrases("<p>a</p> <p>b</p> {<1><2><3><4>}")[0][0] == "b"


# the grid ----------------------------------------------------------------------------------------------------------------


@given(st.lists(grid_boxes(), max_size=5), st.sampled_from(["truncate", "nearest"]))
def test_what_is_rendered_is_read_back(boxes, rounding):
    assert parse_boxes(render_boxes(boxes, rounding)) == boxes


@given(st.lists(st.tuples(words, st.lists(grid_boxes(), min_size=1, max_size=3)), max_size=4, unique_by=lambda p: p[0]))
def test_phrases_that_are_rendered_are_read_back(phrases):
    text = render_phrases([piece for phrase in phrases for piece in (phrase, " and ")])
    assert parse_phrases(text) == phrases


def test_every_grid_line_survives_truncation():
    for value in range(101):
        box = Box.from_grid(0, 0, value, value)
        assert box.grid("truncate") == box.grid("nearest") == (0, 0, value, value)
        assert math.isclose(box.x2, value / 100, abs_tol=1e-15)


@given(st.tuples(*[st.floats(0, 1)] * 4), st.integers(1, 5000), st.integers(1, 5000))
def test_other_forms_lead_back(numbers, width, height):
    x1, x2, y1, y2 = *sorted(numbers[:2]), *sorted(numbers[2:])
    box = Box(x1, y1, x2, y2)
    assert np.allclose(list(Box.from_pixels(*box.pixels(width, height), width, height)), list(box), atol=1e-12)
    assert np.allclose(list(Box.from_xywh(*box.xywh(width, height), width, height)), list(box), atol=1e-12)
    nearest, truncated = box.grid("nearest"), box.grid("truncate")
    assert all(abs(a - 100 * v) <= 0.5 + 1e-9 for a, v in zip(nearest, box, strict=True))
    assert all(-1e-9 <= 100 * v - a < 1 for a, v in zip(truncated, box, strict=True))


@settings(max_examples=30)
@given(st.integers(20, 300), st.integers(20, 300), st.sampled_from([64, 224, 320]), st.data())
def test_boxes_survive_the_processor(width, height, size, data):
    """A white rectangle lies at the same relative place before and after the processor's squashing resize."""
    x1 = data.draw(st.integers(0, width // 2))
    y1 = data.draw(st.integers(0, height // 2))
    x2 = data.draw(st.integers(x1 + width // 4, width))
    y2 = data.draw(st.integers(y1 + height // 4, height))
    image = Image.new("RGB", (width, height))
    image.paste((255, 255, 255), (x1, y1, x2, y2))
    seen = MiniGPT4ImageProcessor(size).resize(image)[..., 0] > 127
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    found = Box(columns[0] / size, rows[0] / size, (columns[-1] + 1) / size, (rows[-1] + 1) / size)
    # Half a pixel on either side: of the picture where it is enlarged, of the result where it is reduced.
    slack = 0.75 * max(1 / size, 1 / width, 1 / height)
    box = Box.from_pixels(x1, y1, x2, y2, width, height)
    assert np.allclose(list(found), list(box), atol=slack), (found, box)


# what models write -------------------------------------------------------------------------------------------------------

ONE = [Box.from_grid(12, 30, 45, 60)]


@pytest.mark.parametrize(
    "text",
    [
        "{<12><30><45><60>}",
        " the dog is {<12><30><45><60>}.",
        "{ <12> <30> <45> <60> }",
        "{<12>, <30>, <45>, <60>}",
        "<12><30><45><60>",
        "<p>dog</p><12><30><45><60>",
        "{<12><30><45><60> and so on",
        "<12><30><45><60>}",
        "{{<12><30><45><60>}}",
        "<unk>{<12><30><45><60>}</s>",
        "{<12><30><45><60>}<delim>{<12><30>",
        "{<12><30><45><60>}<delim><delim>",
    ],
)
def test_one_box_is_found(text):
    assert parse_boxes(text) == ONE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no box at all",
        "{<12><30><45><60>",  # broken off
        "{<12><30><45><60",
        "{<12><30><45>}",
        "{<12><30><45><60><70>}",
        "<12><30><45><60><70>",
        "<12><30><45><60><70",
        "{<45><30><12><60>}",  # right before left
        "{<12><60><45><30>}",
        "{<12><30><45><101>}",
        "{<0><0><1000><100>}",
        "{<-12><30><45><60>}",
        "{<12.0><30><45><60>}",
        "{<a><b><c><d>}",
        "{12,30,45,60}",
        "}{",
        "<<<<>>>>",
        "{<12><30><p><45><60>}",
    ],
)
def test_what_is_no_box_is_left_out(text):
    assert parse_boxes(text) == []
    assert parse_phrases(f"<p>a dog</p> {text}") == []


def test_several_boxes_with_and_without_delimiters():
    first, second = "{<1><2><3><4>}", "{<5><6><7><8>}"
    for between in ("<delim>", "", " ", " <delim> ", ", ", "<delim><delim>"):
        assert render_boxes(parse_boxes(first + between + second)) == f"{first}<delim>{second}"
    assert len(parse_boxes("<1><2><3><4><delim><5><6><7><8>")) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>a dog</p> {<1><2><3><4>}", [("a dog", 1)]),
        ("<p>a dog</p>{<1><2><3><4>}{<1><2><3><4>}<p>x</p>{<1><2><3><4>}", [("a dog", 2), ("x", 1)]),
        ("<p>dog</p> {<1><2><3><4>} and <p>dog</p> {<5><6><7><8>}", [("dog", 2)]),
        ("<p>a</p> <p>b</p> {<1><2><3><4>}", [("b", 1)]),
        ("<p>two\n words </p> {<1><2><3><4>}", [("two words", 1)]),
        ("<p>open phrase {<1><2><3><4>} more", [("open phrase", 1)]),
        ("<p>x</p> {<1><2><3><4>} tail <p>y</p> {<5><6>", [("x", 1)]),
        ("<p>x</p> {<5><6><3><4>}", []),
        ("{<1><2><3><4>}", []),
        ("<p></p> {<1><2><3><4>}", [("", 1)]),
    ],
)
def test_phrases_with_their_boxes(text, expected):
    assert [(phrase, len(boxes)) for phrase, boxes in parse_phrases(text)] == expected


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<p>A dog</p> {<1><2><3><4>}<delim>{<1><2><3><4>} near <p>a car</p> {<9><9><20><20>}.", "A dog near a car."),
        ("{<1><2><3><4>}", ""),
        ("a dog {<1><2>", "a dog"),
        ("a dog {<1><2><3><4", "a dog"),
        ("<p>a dog</p> {", "a dog"),
        ("<p>a dog</p> {<50><2><3><400>} runs", "a dog runs"),
        ("<p>a dog</p> {<1><2><3><4>} and <p>a c", "a dog and a c"),
        ("<p>a dog</p> and <", "a dog and"),
        ("no markup,  two blanks\n\n  kept", "no markup,  two blanks\n\n  kept"),
        ("1 < 2 and {x} and [3, 4]", "1 < 2 and {x} and [3, 4]"),
        ("if (x) {", "if (x) {"),
    ],
)
def test_text_without_boxes(text, plain):
    assert without_boxes(text) == plain


@given(st.text("<>{}/p0129 d,\n", max_size=40))
def test_nothing_written_makes_the_readers_fail(text):
    assert all(box.inside for box in parse_boxes(text))
    assert all(boxes for _, boxes in parse_phrases(text))
    assert len(without_boxes(text)) <= len(text)
    official_phrases(text)


# what people give ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given_box",
    ["64,48,320,240", "64 48 320 240", "0.1,0.1,0.5,0.5", "{<10><10><50><50>}", (64, 48, 320, 240), Box(0.1, 0.1, 0.5, 0.5)],
)
def test_a_box_given_in_any_form(given_box):
    assert np.allclose(list(Box.from_user(given_box, 640, 480)), [0.1, 0.1, 0.5, 0.5])


def test_a_box_may_miss_the_edge_by_a_pixel():
    assert Box.from_user("-0.4,0,640.3,480", 640, 480) == Box(0, 0, 1, 1)


@pytest.mark.parametrize(
    ("given_box", "says"),
    [
        ("64,48,900,240", "not inside the picture, which is 640 x 480"),
        ("-64,48,100,240", "not inside"),
        (Box(0.5, 0.5, 1.5, 0.9), "not inside"),
        ("700,500,900,600", "not inside"),
        ("64,48,64,240", "is empty"),
        ("320,48,64,240", "right edge lies left"),
        ("64,240,320,48", "bottom edge lies above"),
        ("64,48,320", "is not a box"),
        ("a dog", "is not a box"),
        ("", "is not a box"),
        ("{<10><10><50>}", "is not one box"),
        ("{<10><10><50><50>}{<10><10><50><50>}", "is not one box"),
        ("nan,0,1,1", "finite"),
        ((1, 2), "is not a box"),
    ],
)
def test_a_meaningless_box_is_refused_in_one_line(given_box, says):
    with pytest.raises(UserError, match=says) as caught:
        Box.from_user(given_box, 640, 480)
    assert "\n" not in str(caught.value)


def test_a_box_cannot_be_changed_or_made_wrong():
    box = Box(0.1, 0.2, 0.3, 0.4)
    with pytest.raises(AttributeError):
        box.x1 = 0.5
    assert len({box, Box(0.1, 0.2, 0.3, 0.4)}) == 1
    for wrong in ((0.5, 0, 0.4, 1), (0, 0.5, 1, 0.4), (0, 0, math.inf, 1), (math.nan, 0, 1, 1)):
        with pytest.raises(UserError):
            Box(*wrong)
    with pytest.raises(UserError, match="from 0 to 100"):
        Box.from_grid(0, 0, 101, 50)
    assert Box(-0.1, 0.5, 1.2, 0.8).clipped() == Box(0, 0.5, 1, 0.8)
    assert not Box(-0.1, 0.5, 1.2, 0.8).inside


def test_a_mask_may_be_drawn_in_any_colour_on_a_transparent_sheet():
    sheet = Image.new("RGBA", (200, 100))
    sheet.paste((0, 0, 0, 255), (20, 10, 120, 60))
    assert Box.from_mask(sheet).render() == "{<10><10><59><59>}"
    opaque = Image.new("RGBA", (200, 100), (0, 0, 0, 255))
    opaque.paste((255, 255, 255, 255), (20, 10, 120, 60))
    assert Box.from_mask(opaque) == Box.from_mask(sheet)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_mask_may_have_a_transparent_colour_among_others(kind):
    sheet = Image.new("RGBA", (200, 100))
    sheet.paste((90, 0, 200, 255), (20, 10, 120, 60))
    file = io.BytesIO()
    sheet.quantize(16).save(file, kind)
    assert Image.open(file).mode == "P"
    assert Box.from_mask(Image.open(file)) == Box.from_mask(sheet)


def test_a_number_of_any_length_is_no_place():
    assert parse_boxes("{<" + "1" * 5000 + "><1><1><1>} {<1><2><3><4>}") == [Box.from_grid(1, 2, 3, 4)]
