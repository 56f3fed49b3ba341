"""Samples in the mirror."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt4.data.mirror import mirror, mirror_text
from minigpt4.data.records import Sample, Turn, ask
from minigpt4.prompt.boxes import Box, parse_boxes

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
