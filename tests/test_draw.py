"""Drawn pictures: nothing overlaps, nothing leaves the picture, everything can be read."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minigpt4.errors import UserError
from minigpt4.inference.answer import Answer
from minigpt4.media.draw_boxes import PALETTE, against, draw_boxes, layout, luminance
from minigpt4.prompt.boxes import Box

SCENE = [
    ("a man in a blue shirt", [Box(0.1, 0.2, 0.4, 0.95)]),
    ("a brown dog", [Box(0.45, 0.5, 0.7, 0.9), Box(0.72, 0.55, 0.9, 0.88)]),
    ("the frisbee", [Box(0.5, 0.3, 0.56, 0.36)]),
    ("the green grass of a very wide meadow that goes on and on behind the white house", [Box(0, 0.6, 1, 1)]),
    ("the sky", [Box(0, 0, 1, 0.3)]),
    ("a person", [Box(0.1, 0.2, 0.4, 0.95)]),
]


@st.composite
def scenes(draw):
    def box():
        x1, x2 = sorted(draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
        y1, y2 = sorted(draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
        return Box(x1, y1, x2, y2)

    names = st.sampled_from(["a dog", "two men who sit on a bench in the park", "x", "Donaudampfschifffahrtsgesellschaft" * 3])
    return [(draw(names), [box() for _ in range(draw(st.integers(1, 3)))]) for _ in range(draw(st.integers(0, 6)))]


sizes = st.tuples(st.integers(1, 1500), st.integers(1, 1500))


@settings(max_examples=60)
@given(sizes, scenes())
def test_labels_keep_apart_and_inside(size, phrases):
    plan = layout(size, phrases)
    width, height = plan.size
    for label in plan.labels:
        x1, y1, x2, y2 = label.rect
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
    for a, b in itertools.combinations([label.rect for label in plan.labels], 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
    for (x1, y1, x2, y2), _ in plan.outlines:
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height


@pytest.mark.parametrize("size", [(640, 480), (64, 64), (6000, 4000), (480, 640), (300, 900)])
def test_every_phrase_gets_a_label_that_can_be_read(size):
    plan = layout(size, SCENE)
    said = [" ".join(label.lines) for label in plan.labels]
    for phrase, _ in SCENE:
        assert any(text.startswith(phrase[:20]) for text in said), (phrase, said)
    for label in plan.labels:
        # At a height of 600 pixels on a screen, letters of at least 10.
        assert label.font_size >= 10 * max(plan.size) / 900
        text, ground = luminance(against(label.colour)), luminance(label.colour)
        assert (max(text, ground) + 0.05) / (min(text, ground) + 0.05) >= 4.5


def test_a_phrase_has_one_colour_and_neighbours_have_others():
    plan = layout((640, 480), SCENE)
    assert len({colour for _, colour in plan.outlines}) == len(SCENE)
    dogs = [label for label in plan.labels if label.lines == ("a brown dog",)]
    assert len(dogs) == 2
    assert len({label.colour for label in dogs}) == 1


def test_two_phrases_for_one_place_do_not_hide_each_other():
    plan = layout((640, 480), [("a", [Box(0.1, 0.1, 0.9, 0.9)]), ("b", [Box(0.1, 0.1, 0.9, 0.9)])])
    (first, _), (second, _) = plan.outlines
    assert first != second


@pytest.mark.parametrize("tone", [0, 128, 255])
@pytest.mark.parametrize("size", [(640, 480), (64, 48)])
def test_an_outline_stands_out_from_any_ground(size, tone):
    """Across the outline's edge, some step has a contrast of at least 3 : 1 (WCAG's demand on graphics)."""
    for i, _ in enumerate(PALETTE):
        boxes = [("", [Box(2, 2, 3, 3)])] * i + [("", [Box(0.25, 0.25, 0.75, 0.75)])]
        drawn = np.asarray(draw_boxes(Image.new("RGB", size, (tone,) * 3), boxes))
        row = [luminance(tuple(int(v) for v in pixel)) for pixel in drawn[drawn.shape[0] // 2, : drawn.shape[1] // 2]]
        steps = [(max(a, b) + 0.05) / (min(a, b) + 0.05) for a, b in itertools.pairwise(row)]
        assert max(steps) >= 3


def test_the_colours_can_be_told_apart_with_any_visions():
    """Distances in OKLab, for normal sight and three simulated deficiencies (Machado et al. 2009, severity 1)."""
    sights = [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
    lms = [[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]]
    lab = [[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]]
    values = np.array(PALETTE) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    for sight in sights:
        seen = np.cbrt((linear @ np.array(sight).T).clip(0, 1) @ np.array(lms).T) @ np.array(lab).T
        for a, b in itertools.combinations(seen, 2):
            assert np.linalg.norm(a - b) > 0.17


def test_a_box_is_drawn_where_it_is():
    drawn = np.asarray(draw_boxes(Image.new("RGB", (1000, 500)), [("", [Box(0.2, 0.4, 0.6, 0.8)])]))
    rows, columns = np.flatnonzero(drawn.any((1, 2))), np.flatnonzero(drawn.any((0, 2)))
    assert abs(columns[0] - 200) <= 2
    assert abs(columns[-1] + 1 - 600) <= 2
    assert abs(rows[0] - 200) <= 2
    assert abs(rows[-1] + 1 - 400) <= 2
    assert not drawn[250:350, 250:550].any()  # the inside is left free


def test_images_keep_their_size_unless_they_are_too_small():
    grey = Image.new("L", (640, 480), 90)
    drawn = draw_boxes(grey, SCENE)
    assert drawn.size == (640, 480)
    assert drawn.mode == "RGB"
    assert grey.getextrema() == (90, 90)
    assert draw_boxes(Image.new("RGB", (64, 48)), SCENE).size == (512, 384)
    assert draw_boxes(Image.new("RGB", (1, 1)), SCENE).size == (480, 480)


def test_what_is_outside_is_not_drawn():
    black = Image.new("RGB", (500, 500))
    for box in (Box(1.1, 0.1, 1.5, 0.5), Box(-0.5, 0.2, -0.1, 0.4), Box(0.1, 1.2, 0.2, 1.2)):
        assert draw_boxes(black, [("x", [box])]).tobytes() == black.tobytes()
    assert draw_boxes(black, [("x", [Box(-0.5, -0.5, 1.5, 1.5)])]).getbbox() is not None
    assert draw_boxes(black, [("x", [Box(0.5, 0.5, 0.5, 0.5)])]).getbbox() is not None  # a thin thing is still a thing


def test_an_answer_draws_itself(tmp_path):
    Image.new("RGB", (500, 400)).save(tmp_path / "photo.png")
    answer = Answer("<p>a dog</p> {<10><10><60><60>}", image=tmp_path / "photo.png")
    drawn = answer.draw(tmp_path / "out.png")
    assert drawn.getbbox() is not None
    assert Image.open(tmp_path / "out.png").tobytes() == drawn.tobytes()
    answer.draw(tmp_path / "out.jpg")
    assert {path.name for path in tmp_path.iterdir()} == {"photo.png", "out.png", "out.jpg"}
    # a question about a box draws that box; an answer without any leaves the picture as it is
    asked = Answer("a dog", image=Image.new("RGB", (500, 400)), question="[identify] what is this {<10><10><60><60>}")
    assert asked.draw().getbbox() is not None
    assert Answer("no", image=Image.new("RGB", (500, 400)), question="[refer] x").draw().getbbox() is None


def test_what_cannot_be_drawn_is_said(tmp_path):
    with pytest.raises(UserError, match="nothing to draw on"):
        Answer("{<1><2><3><4>}").draw()
    answer = Answer("{<1><2><3><4>}", image=Image.new("RGB", (50, 50)))
    with pytest.raises(UserError, match=r"out\.png"):
        answer.draw(tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        answer.draw(tmp_path / "file" / "out.png")
