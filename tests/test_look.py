"""Samples seen otherwise: in the mirror, or a part of their pictures."""

import random

import numpy as np
import pytest
import torch
from conftest import tiny_config, tiny_processor
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minigpt4.data.cache import pixels_of
from minigpt4.data.look import crop, mirror
from minigpt4.data.records import Sample, Turn, ask
from minigpt4.errors import UserError
from minigpt4.prompt.boxes import Box, parse_boxes
from minigpt4.prompt.mirror import mirror_text

SPELT = (
    "left Left LEFT lEft right Right RIGHT r\u0131ght leftmost leftmo\u017ft Rightmost all now away bright upright the - . 's"
)
WORDS = st.sampled_from([*SPELT.split(" "), " ", "\n", "<p>", "</p>", "<delim>", "{", "}", "<12>", "<100>", "<007>", "<106>"])
BOXES = st.builds(lambda *v: "{" + "".join(f"<{x}>" for x in v) + "}", *[st.integers(0, 120)] * 4)
TEXTS = st.one_of(st.text(), st.lists(st.one_of(WORDS, BOXES)).map("".join), st.lists(st.one_of(WORDS, BOXES)).map(" ".join))


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3), st.booleans())
def test_twice_is_the_sample_itself(texts, mirrored):
    turns = tuple(Turn(question=q, answers=(a,)) for q, a in texts)
    sample = Sample(turns=turns, images=("a.jpg",), task="refer", id="x", mirrored=mirrored)
    assert mirror(sample).mirrored is not mirrored
    assert mirror(mirror(sample)) == sample


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("the man on the left of the red car", "the man on the right of the red car"),
        ("Left of it; RIGHT hand, the rightmost one", "Right of it; LEFT hand, the leftmost one"),
        ("a bright, upright sign", "a bright, upright sign"),
        ("the left-hand side, left/right", "the right-hand side, right/left"),
        ("It is all right, she leaves right now.", "It is all right, she leaves right now."),
        ("{<10><20><40><90>}<delim>{<0><0><100><100>}", "{<60><20><90><90>}<delim>{<0><0><100><100>}"),
        ("<p>a left shoe</p> {<1><2><3><4>}.", "<p>a right shoe</p> {<97><2><99><4>}."),
        ("{<10><20><106><90>} {<1><2>}", "{<10><20><106><90>} {<1><2>}"),
    ],
)
def test_words_and_boxes_change_sides(text, mirrored):
    assert mirror_text(text) == mirrored


def test_ground_truth_moves_with_the_text():
    box = Box(0.25, 0.5, 0.5, 0.75)
    sample = Sample(turns=ask("[refer] the left dog", box.render()), images=("a.jpg",), extra={"boxes": (box,), "note": 1})
    seen = mirror(sample)
    assert seen.turns == ask("[refer] the right dog", "{<50><50><75><75>}")
    assert seen.extra == {"boxes": (Box(0.5, 0.5, 0.75, 0.75),), "note": 1}
    assert parse_boxes(seen.turns[0].answers[0])[0].grid() == seen.extra["boxes"][0].grid()
    assert sample.extra["boxes"] == (box,)


@given(st.floats(0.01, 1), st.integers(0, 2**32))
def test_a_part_is_in_the_picture_and_large_enough(least, seed):
    sample = Sample(turns=ask("what is it?", "a dog"), images=("a.jpg",))
    left, top, right, bottom = crop(sample, least, random.Random(seed)).crop
    assert 0 <= left < right <= 1 + 1e-9
    assert 0 <= top < bottom <= 1 + 1e-9
    assert (right - left) * (bottom - top) >= least - 1e-9


def test_parts_are_anywhere_and_of_all_sizes():
    sample, rng = Sample(turns=ask("what is it?", "a dog"), images=("a.jpg",)), random.Random(0)
    parts = torch.tensor([crop(sample, 0.25, rng).crop for _ in range(500)])
    sizes = parts[:, 2:] - parts[:, :2]
    free = 1 - sizes
    place = (parts[:, :2] / free)[free > 0.05]
    assert 0.45 < place.mean() < 0.55
    assert place.min() < 0.02
    assert place.max() > 0.98
    area = sizes.prod(1)
    assert 0.25 <= area.min() + 1e-6 < 0.3
    assert area.max() > 0.95
    assert (sizes[:, 0] / sizes[:, 1]).log().abs().max() > 0.15


def test_boxes_are_not_cropped_away():
    sample = Sample(turns=ask("[refer] the dog", Box(0, 0, 0.5, 0.5).render()), images=("a.jpg",), id="refs/3")
    with pytest.raises(UserError, match="refs/3.*boxes"):
        crop(sample, 0.5, random.Random(0))


def test_a_part_of_the_picture_is_what_is_seen():
    picture = Image.fromarray(np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((40, 60), np.uint8))).convert("RGB")
    image_processor = tiny_processor(tiny_config()).image_processor
    for part, grey in [((0, 0, 0.5, 0.5), 0), ((0.5, 0, 1, 0.5), 80), ((0, 0.5, 0.5, 1), 160)]:
        expected = pixels_of(image_processor, Image.new("RGB", (9, 9), (grey,) * 3), False)
        torch.testing.assert_close(pixels_of(image_processor, picture, False, part), expected)
    thin = picture.crop((119, 0, 120, 80))  # of a picture one pixel wide, every part is
    for part in [(0, 0, 0.4, 0.4), (0.6, 0.6, 1, 1)]:
        assert pixels_of(image_processor, thin, False, part).unique().numel() == 3  # one value a channel
    right = pixels_of(image_processor, picture, False, (0.5, 0, 1, 1))
    torch.testing.assert_close(pixels_of(image_processor, picture, True, (0.5, 0, 1, 1)), right)  # cropped, then mirrored
