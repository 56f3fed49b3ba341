"""Samples seen otherwise: in the mirror, or a part of their pictures."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny_config, tiny_processor
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minigpt4.data.augment import crop, mirror, on_lines, zoomed
from minigpt4.data.sample import Sample, Turn, ask
from minigpt4.errors import UserError
from minigpt4.model.feature_cache import pixels_of
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
def test_a_part_is_in_the_image_and_large_enough(least, seed):
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


BIRDS = "{<0><0><9><9>}<delim>{<30><60><40><70>}<delim>{<55><90><80><99>}"


def test_boxes_move_with_the_part(monkeypatch):
    monkeypatch.setattr("minigpt4.data.augment.some_part", lambda least, rng: (0.2, 0.5, 0.7, 1.0))
    turns = (
        Turn(question="[refer] the dog", answers=("{<20><50><45><75>}",)),
        Turn(question="[refer] the cat", answers=("{<0><0><30><40>}",)),  # outside
        Turn(question="[refer] the man", answers=("{<60><0><90><100>}",)),  # one sixth is left of him
        Turn(
            question="[detection] birds",
            answers=("<p>birds</p> {<0><0><9><9>}<delim>{<30><60><40><70>}<delim>{<55><90><80><99>}",),
        ),
        Turn(question="[identify] {<45><75><70><100>}", answers=("a hat",)),
        Turn(question="Is it day?", answers=("yes",)),
    )
    sample = Sample(turns=turns, images=("a.jpg",), apart=True, extra={"boxes": (), "width": 9})
    seen = crop(sample, 0.25, random.Random(0))
    assert {turn.question: turn.answers[0] for turn in seen.turns} == {
        "[refer] the dog": "{<0><0><50><50>}",
        "[detection] birds": "<p>birds</p> {<20><20><40><40>}<delim>{<70><80><100><98>}",
        "[identify] {<50><50><100><100>}": "a hat",
        "Is it day?": "yes",
    }
    assert seen.crop == (0.2, 0.5, 0.7, 1.0)
    assert seen.extra == {"width": 9}
    for unseen in (replace(sample, turns=turns[:3]), replace(sample, turns=turns[1:], apart=False)):
        assert crop(unseen, 0.25, random.Random(0)) == unseen  # too little is left: the whole picture


def test_a_box_is_around_the_same_pixels_in_the_part():
    rng = random.Random(1)
    for _ in range(200):
        x1, y1 = rng.uniform(0, 0.8), rng.uniform(0, 0.8)
        box = Box(x1, y1, rng.uniform(x1 + 0.1, 1), rng.uniform(y1 + 0.1, 1))
        sample = Sample(turns=ask("[refer] it", box.render("nearest")), images=("a.jpg",))
        seen = crop(sample, 0.3, rng)
        (moved,) = parse_boxes(seen.turns[0].answers[0])
        left, top, right, bottom = seen.crop or (0, 0, 1, 1)
        back = Box(*(o + v * s for v, o, s in zip(moved, (left, top) * 2, (right - left, bottom - top) * 2, strict=True)))
        cut = Box(max(box.x1, left), max(box.y1, top), min(box.x2, right), min(box.y2, bottom))
        assert max(abs(a - b) for a, b in zip(back, cut, strict=True)) < 0.011
        assert cut.area > 0.45 * box.area


def test_looking_closer_shows_what_surrounds_a_box_and_all_of_it():
    rng, sizes, middles = random.Random(2), [], []
    for _ in range(300):
        x1, y1 = rng.uniform(0, 0.7), rng.uniform(0, 0.7)
        box = parse_boxes(Box(x1, y1, rng.uniform(x1 + 0.05, 1), rng.uniform(y1 + 0.05, 1)).render("nearest"))[0]
        seen = zoomed(Sample(turns=ask("[refer] it", box.render("nearest")), images=("a.jpg",)), rng)
        left, top, right, bottom = seen.crop
        assert -1e-9 <= left <= box.x1 + 1e-9 < box.x2 - 1e-9 <= right <= 1 + 1e-9
        assert -1e-9 <= top <= box.y1 + 1e-9 < box.y2 - 1e-9 <= bottom <= 1 + 1e-9
        width = right - left
        assert 0.2 - 1e-9 <= width <= max(4 * (box.x2 - box.x1), 0.2) + 1e-9
        sizes.append(width / (box.x2 - box.x1))
        (moved,) = parse_boxes(seen.turns[0].answers[0])
        back = Box(*(o + v * s for v, o, s in zip(moved, (left, top) * 2, (width, bottom - top) * 2, strict=True)))
        assert max(abs(a - b) for a, b in zip(back, box, strict=True)) < 0.011
        middles.append((moved.x1 + moved.x2) / 2)
    assert min(sizes) < 1.2
    assert max(sizes) > 3
    assert min(middles) < 0.25  # not always in the middle, which would need no look
    assert max(middles) > 0.75


def test_looking_closer_leaves_out_questions_about_what_is_elsewhere():
    turns = (*ask("[refer] the dog", "{<10><10><20><20>}"), *ask("[refer] the cat", "{<80><80><90><95>}"))
    sample, rng = Sample(turns=turns, images=("a.jpg",), apart=True), random.Random(0)
    kept = [zoomed(sample, rng).turns for _ in range(40)]
    assert {len(seen) for seen in kept} == {1}  # no part around either of them reaches the other
    assert {turn.question for seen in kept for turn in seen} == {"[refer] the dog", "[refer] the cat"}
    together = replace(sample, apart=False)  # a conversation keeps all its turns, so it is about the whole picture
    assert all(zoomed(together, rng) == together for _ in range(20))


def test_looking_closer_needs_a_box():
    with pytest.raises(UserError, match="no box in its text"):
        zoomed(Sample(turns=ask("what is it?", "a dog"), images=("a.jpg",)), random.Random(0))


def test_text_with_phrases_in_their_places_is_not_cropped():
    sample = Sample(turns=ask("[grounding] tell", "<p>a dog</p> {<0><0><50><50>} runs"), images=("a.jpg",), id="refs/3")
    with pytest.raises(UserError, match="refs/3.*no part can be shown"):
        crop(sample, 0.5, random.Random(0))
    with pytest.raises(UserError, match="leave crop and zoomed out"):
        zoomed(sample, random.Random(0))


def test_boxes_on_the_lines_of_a_grid():
    answer = "{<10><20><52><100>}<delim>{<71><32><73><34>}<delim>{<9><18><53><99>}"
    sample = Sample(turns=ask("[detection] {<1><2><3>} of 9", answer, "{<99><0><100><4>}"), images=("a.jpg",))
    (turn,) = on_lines(sample, 10).turns
    assert turn.question == "[detection] {<1><2><3>} of 9"
    assert turn.answers == ("{<10><20><50><100>}<delim>{<70><30><80><40>}", "{<90><0><100><10>}")  # never thin, nor twice
    assert on_lines(sample, 100).turns[0].answers[0] == answer


def test_a_part_of_the_image_is_what_is_seen():
    image = Image.fromarray(np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((40, 60), np.uint8))).convert("RGB")
    image_processor = tiny_processor(tiny_config()).image_processor
    for part, grey in [((0, 0, 0.5, 0.5), 0), ((0.5, 0, 1, 0.5), 80), ((0, 0.5, 0.5, 1), 160)]:
        expected = pixels_of(image_processor, Image.new("RGB", (9, 9), (grey,) * 3), False)
        torch.testing.assert_close(pixels_of(image_processor, image, False, part), expected)
    thin = image.crop((119, 0, 120, 80))  # of a picture one pixel wide, every part is
    for part in [(0, 0, 0.4, 0.4), (0.6, 0.6, 1, 1)]:
        assert pixels_of(image_processor, thin, False, part).unique().numel() == 3  # one value a channel
    right = pixels_of(image_processor, image, False, (0.5, 0, 1, 1))
    torch.testing.assert_close(pixels_of(image_processor, image, True, (0.5, 0, 1, 1)), right)  # cropped, then mirrored
