"""Rules that find what is wrong with a long answer, on answers whose failings are plain to see."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt4 import cli
from minigpt4.errors import UserError
from minigpt4.evaluate.annotations import Problems
from minigpt4.evaluate.benchmarks.base import Against, Choice
from minigpt4.evaluate.benchmarks.failures import agreement, failings
from minigpt4.evaluate.benchmarks.registry import BENCHMARKS
from minigpt4.metrics.fluency import flaws

GOOD = (
    "A brown dog runs along the beach. Behind it, two children in red coats are throwing a ball to each other. "
    "The sky is grey, and the sea looks cold."
)
POEM = "Upon the shore a brown dog runs,\nhis paws are quick, his heart is free,\nhe chases after setting suns\nbeside the sea"


@pytest.mark.parametrize(
    ("text", "verse", "found"),
    [
        (GOOD, False, []),
        (POEM, True, []),
        (POEM, False, ["unfinished"]),
        (GOOD[:-30], False, ["unfinished"]),
        (GOOD + " A brown dog runs along the beach.", False, ["repeats"]),
        (GOOD + '"', False, []),
        ("A dog.", False, ["fragment"]),
        ("", False, ["fragment"]),
        ("A man in a blue shirt is very very very tall and wears a hat.", False, ["repeats"]),
        ("There is a dog and a cat and a cat and a cat and a cat", False, ["repeats", "unfinished"]),
        ("A woman smiles at a dog. The woman smiles at a dog by the sea.", False, ["repeats"]),
        ("A woman smiles at a dog. The dog smiles at a woman by the sea.", False, []),
        ("Un chien brun court sur la plage, et deux enfants jouent avec un ballon.", False, ["off language"]),
        ("犬が砂浜を走り子供たちが遊ぶ", False, ["unfinished", "fragment", "off language"]),
        ("<p>A dog</p> {<1><1><9><9>} runs along the beach with two children.", False, ["off language"]),
        ("He had had enough, and she had had enough of it too, that day.", False, []),
        (f"The sea is wide.\n{POEM}\nThe sea is wide.", True, []),  # a refrain
        (f"The sea is wide.\n{POEM}\nThe sea is wide.\nThe sea is wide.", True, ["repeats"]),
    ],
)
def test_flaws(text, verse, found):
    assert [flaw.kind for flaw in flaws(text, verse=verse)] == found
    assert all(flaw.why for flaw in flaws(text, verse=verse))


@given(st.text("ab .!\n", max_size=60), st.booleans())
def test_any_text_can_be_judged_and_saying_it_three_times_repeats(text, verse):
    kinds = [flaw.kind for flaw in flaws(text, verse=verse)]
    assert set(kinds) <= {"repeats", "unfinished", "fragment", "off language"}
    assert len(set(kinds)) == len(kinds)
    if len(text.split()) > 3 and any(char in "ab" for char in text):
        assert "repeats" in [flaw.kind for flaw in flaws("\n".join([text] * 3), verse=verse)]


PAGE = """<!DOCTYPE html>
<html>
<head><title>Jokes</title><style>li { margin: 0 0 0 0; padding: 0 0 0 0; }</style></head>
<body>
<h1>My Joke Website</h1>
<ul><li><a href="#">Home</a></li><li><a href="#">About</a></li><li><a href="#">Contact</a></li></ul>
<button onclick="tell()">Tell a joke</button>
<script>
function tell() { document.getElementById("joke").style.display = "block"; }
function hide() { document.getElementById("joke").style.display = "none"; }
function once() { document.getElementById("joke").style.display = "inline"; }
</script>
</body>
</html>"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (PAGE, []),
        (f"Here is the page:\n```html\n{PAGE}\n```", []),
        ('<h1>Jokes</h1>\n<p id="joke"></p>\n<button onclick="tell()">Tell me</button>', []),
        (PAGE[: PAGE.index("</script>")], ["unfinished"]),
        (PAGE[:-3], ["unfinished"]),
        (PAGE.replace("Tell a joke", "a joke a joke a joke a joke"), ["repeats"]),
        (PAGE.replace("Tell a joke", "{<10><20><30><40>}"), ["off language"]),
        (PAGE.replace("</html>", "</html> ###"), ["off language"]),
        ("<h1>Jokes</h1>", ["fragment"]),
        (GOOD, []),
        ("A man in a blue shirt is very very very tall and wears a hat.", ["repeats"]),
    ],
)
def test_tags_are_no_fault_of_a_website(text, found):
    assert [flaw.kind for flaw in flaws(text, verse=True, code=True)] == found


def test_a_website_is_counted_as_one():
    row = {"benchmark": "advanced", "image": "a.png", "asked": "website", "answer": PAGE}
    (line,) = BENCHMARKS["advanced"].report([row], Against()).lines
    assert line.scores["flawed"].value == 0
    (line,) = BENCHMARKS["advanced"].report([row | {"asked": "poem"}], Against()).lines
    assert line.scores["flawed"].value == 1


def test_a_description_is_about_what_people_saw():
    row = {"asked": "description", "captions": ["A dog on a beach", "a puppy near the sea"], "answer": GOOD}
    assert failings(row) == []
    other = "The kitchen has white cupboards and a large oven, and a kettle stands on a table."
    off = [("off the subject", "none of the 5 content words of people's captions")]
    assert failings(row | {"answer": other}) == failings(row | {"answer": other, "asked": "poem"}) == off


def test_both_questions_are_asked_of_each_image_and_counted_apart(tmp_path):
    file = tmp_path / "captions.jsonl"
    file.write_text("".join(json.dumps({"image": f"{i}.jpg", "captions": ["A dog runs."]}) + "\n" for i in range(4)))
    benchmark = BENCHMARKS["failures"]
    rows = benchmark.read(file, Choice(), Problems())
    assert [benchmark.question(row) for row in rows[:2]] == [
        "Describe the image in detail.",
        "Can you write a beautiful poem about this image?",
    ]
    descriptions = [GOOD, GOOD, "A dog runs.", "A dog runs. A dog runs. A dog runs"]
    for i, row in enumerate(rows):
        row["answer"] = descriptions[i // 2] if row["asked"] == "description" else POEM
    description, poem = benchmark.report(rows, Against()).lines
    shares = {name: score.value for name, score in description.scores.items()}
    assert shares == {
        "failed": 0.5,
        "repeats": 0.25,
        "unfinished": 0.25,
        "fragment": 0.25,
        "off language": 0.0,
        "off the subject": 0.0,
    }
    assert poem.scores["failed"].value == 0


LABELLED = Path(__file__).with_name("data") / "failures.jsonl"


def test_rules_agree_with_labels_by_hand_as_the_guide_says():
    rows = [json.loads(line) for line in LABELLED.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 100
    guide = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for one in agreement(rows):
        assert f"| `{one.kind}` | {one.rule} | {one.hand} | {one.same} | {one.kappa:.2f} |" in guide
    assert agreement(rows)[0].same > 90


def test_agreement_by_hand_counted():
    row = {"asked": "description", "captions": ["A dog on a beach"], "answer": GOOD}
    labelled = [row | {"label": []}, row | {"label": ["repeats"]}, row | {"label": ["repeats"], "answer": f"{GOOD} {GOOD}"}]
    failed, repeats, *others = agreement(labelled)
    assert (failed.rule, failed.hand, failed.same) == (repeats.rule, repeats.hand, repeats.same) == (1, 2, 2)
    assert repeats.kappa == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))
    assert all(one.same == 3 and math.isnan(one.kappa) for one in others)
    with pytest.raises(UserError, match='row 1: "label" must be a list of these: repeats'):
        agreement([row | {"label": ["dull"]}])


def test_each_flaw_is_printed_with_its_rule(capsys):
    cli.evaluate(["flaws", str(LABELLED)], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[28].startswith('29 COCO_val2014_000000003786.jpg, description: repeats: "sandalwood') or "sandalwood" in lines[28]
    )
    assert "nothing wrong" in lines[81]
    assert [line.split()[0] for line in lines[102:]] == ["failed", "repeats", "unfinished", "fragment", "off", "off"]
