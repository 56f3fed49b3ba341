"""Benchmarks in their official files: small samples made by hand, with what goes wrong in such files."""

import base64
import json

import pytest
from conftest import tiny_model, tiny_processor
from PIL import Image
from serving import as_bytes, picture

from minigpt4 import cli
from minigpt4.cli.options import System
from minigpt4.errors import UserError
from minigpt4.evaluate.benchmarks.base import Against, Choice
from minigpt4.evaluate.benchmarks.choosing import written_choice
from minigpt4.evaluate.benchmarks.registry import BENCHMARKS, OFFICIAL
from minigpt4.evaluate.prepare import prepare
from minigpt4.evaluate.ranking import candidate_losses, choose
from minigpt4.evaluate.run import compare
from minigpt4.inference.assistant import Assistant
from minigpt4.prompt.templates import with_images

TEN = [{"answer": text, "answer_id": i} for i, text in enumerate(["red"] * 6 + ["dark red"] * 4, 1)]
COCO = "val2014/COCO_val2014_000000000042.jpg"


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def pairs(questions, annotations):
    """VQAv2's two files, with a question twice, one without an annotation and one without answers."""
    asked = [{"question_id": i, "image_id": 42, "question": f"Colour {i}?"} for i in (1, 1, 2, 3, 4)]
    told = [{"question_id": 1, "answers": TEN, "answer_type": "other"}, {"question_id": 3, "answers": []}]
    told.append({"question_id": 4, "answers": [{"answer": "yes"}] * 10, "answer_type": "yes/no"})
    return {questions: json.dumps({"questions": asked}), annotations: json.dumps({"annotations": told})}


_WHY = {"image_id": 42, "choices": ["x", "y"], "correct_choice_idx": 1, "direct_answers": ["y"] * 10}
AOKVQA = [
    _WHY | {"question_id": "a", "question": "Why?"},
    _WHY | {"question_id": "a", "question": "Why?"},
    _WHY | {"question_id": "b", "question": "How?", "correct_choice_idx": 7, "direct_answers": []},
    _WHY | {"question_id": "c", "question": "Who?", "correct_choice_idx": 0, "difficult_direct_answer": True},
]
ICONQA = [
    {"image_id": "1", "question": "Which?", "choices": ["one", "two"], "answer": 1},
    {"image_id": "1", "question": "Which?", "choices": ["one"], "answer": 0},
]
POPE = [
    {"question_id": 1, "image": "COCO_val2014_000000000042.jpg", "text": "Is there a dog in the image?", "label": "yes"},
    {"question_id": 1, "image": "COCO_val2014_000000000042.jpg", "text": "Is there a dog in the image?", "label": "yes"},
    {"question_id": 2, "image": "COCO_val2014_000000000042.jpg", "text": "Is there a cat in the image?", "label": "no"},
    {"question_id": 3, "image": "COCO_val2014_000000000042.jpg", "text": "Is there a cow in the image?", "label": "maybe"},
]
INSTANCES = {
    "images": [{"id": 42, "file_name": "COCO_val2014_000000000042.jpg"}],
    "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 99, "name": "unicorn"}],
    "annotations": [
        {"image_id": 42, "category_id": 18, "bbox": [0, 0, 1, 1]},
        {"image_id": 42, "category_id": 1, "bbox": [0, 0, 1, 1], "iscrowd": 1},
        {"image_id": 42, "category_id": 99, "bbox": [0, 0, 1, 1]},
        {"image_id": 43, "category_id": 18, "bbox": [0, 0, 1, 1]},
    ],
}
CAPTIONS = {
    "images": INSTANCES["images"],
    "annotations": [{"image_id": 42, "caption": "A dog beside a bike."}, {"image_id": 42, "caption": " "}],
}
TEXTVQA = [
    {"question_id": 1, "image_id": "ab", "question": "What does it say?", "answers": ["stop"] * 10},
    {"question_id": 1, "image_id": "ab", "question": "What does it say?", "answers": ["stop"] * 10},
    {"question_id": 2, "image_id": "ab", "question": "Which number?", "answers": []},
    {"question_id": 3, "image_id": "gone", "question": "Which brand?", "answers": ["acme"] * 10},
]
NOCAPS = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "domain": "in-domain"},
        {"id": 2, "file_name": "b.jpg", "domain": "out-domain"},
        {"id": 3, "file_name": "c.jpg", "domain": "near-domain"},
        {"id": 1, "file_name": "a.jpg", "domain": "in-domain"},
    ],
    "annotations": [
        {"image_id": i, "caption": text} for i, text in ((1, "A dog."), (1, "A brown dog."), (2, "A harp."), (9, "?"))
    ],
}
_ASK = {"choices": ["water", "sand"], "answer": 1, "image": "image.png", "split": "test", "subject": "natural science"}
SCIENCEQA = {
    "1": _ASK | {"question": "Which is dry?", "hint": "Look at\nthe jar."},
    "2": _ASK | {"question": "Which is wet?", "image": None},
    "3": _ASK | {"question": "Which is wet?", "answer": 2},
    "5": _ASK | {"question": "Which is wet?", "split": "train"},
}
PIXEL = base64.b64encode(as_bytes(picture(size=(2, 2)), "JPEG")).decode()
MMBENCH = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\n" + "".join(
    "\t".join(row) + "\n"
    for row in (
        ("7", "Which?", "See\there".replace("\t", " "), "a dog", "a cat", "", "", "B", "kinds", PIXEL),
        ("7", "Which?", "", "a dog", "a cat", "", "", "B", "kinds", PIXEL),
        ("8", "Where?", "nan", "left", "right", "up", "down", "D", "places", "7"),
        ("9", "Where?", "", "left", "right", "", "", "C", "places", PIXEL),
        ("10", "Where?", "", "left", "right", "", "", "A", "places", "!!"),
    )
)
SAMPLES = {
    "vqav2": pairs("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"),
    "okvqa": pairs("OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json"),
    "gqa": {
        "testdev_balanced_questions.json": json.dumps(
            {
                "1": {"imageId": "n1", "question": "Is it?", "answer": "yes", "types": {"structural": "verify"}},
                "2": {"imageId": "n1", "question": "What?"},
                "3": {"imageId": "n2", "question": "What?", "answer": "dog", "types": {"structural": "query"}},
            }
        )
    },
    "vizwiz": {
        "val.json": json.dumps(
            [
                {"image": "a.jpg", "question": "What?", "answers": TEN, "answer_type": "other", "answerable": 1},
                {"image": "a.jpg", "question": "What?", "answers": [{"answer": " "}]},
            ]
        )
    },
    "hateful_memes": {
        "dev.jsonl": lines(
            {"id": 1, "img": "img/1.png", "label": 1, "text": "its their character"},
            {"id": 2, "img": "img/2.png", "label": 0, "text": "ok"},
            {"id": 3, "img": "img/3.png", "text": "no label"},
        )
    },
    "aokvqa": {"aokvqa_v1p0_val.json": json.dumps(AOKVQA)},
    "aokvqa_mc": {"aokvqa_v1p0_val.json": json.dumps(AOKVQA)},
    "iconqa": {"choose_text_val.json": json.dumps(ICONQA)},
    "aokvqa_mc_written": {"aokvqa_v1p0_val.json": json.dumps(AOKVQA)},
    "textvqa": {"TextVQA_0.5.1_val.json": json.dumps({"data": TEXTVQA})},
    "nocaps": {"nocaps_val_4500_captions.json": json.dumps(NOCAPS)},
    "scienceqa": {"problems.json": json.dumps(SCIENCEQA), "pid_splits.json": json.dumps({"test": ["1", "2", "3", "4"]})},
    "mmbench": {"mmbench_dev_20230712.tsv": MMBENCH},
    "pope": {
        "coco_pope_random.json": lines(*POPE),
        "coco_pope_popular.json": lines(POPE[0]),
        "coco_pope_adversarial.json": lines(POPE[2]),
    },
}
SAMPLES |= {
    name: {"instances_val2014.json": json.dumps(INSTANCES), "captions_val2014.json": json.dumps(CAPTIONS)}
    for name in BENCHMARKS
    if name.startswith("chair")
}
FOUND = {  # questions, problems, the first image, the beginning of its prompt
    "vqav2": (2, 3, COCO, "[vqa] Based on the image, respond to this question with a short answer: Colour 1?"),
    "okvqa": (2, 3, COCO, "[vqa] Based on the image, respond to this question with a short answer: Colour 1?"),
    "gqa": (2, 1, "images/n1.jpg", "[vqa] Based on the image, respond to this question with a short answer: Is it?"),
    "vizwiz": (1, 1, "val/a.jpg", "[vqa] The question is 'What?' Based on the image, answer the question with a single word"),
    "hateful_memes": (2, 1, "img/1.png", "This is an image writting 'its their character'. Is this image hateful? Answer yes"),
    "aokvqa": (1, 2, "val2017/000000000042.jpg", "[vqa] Based on the image, respond"),
    "aokvqa_mc": (2, 2, "val2017/000000000042.jpg", "[vqa] Based on the image, respond"),
    "aokvqa_mc_written": (2, 2, "val2017/000000000042.jpg", "[vqa] Based on the image, respond"),
    "textvqa": (
        2,
        2,
        "train_images/ab.jpg",
        "[vqa] Based on the image, respond to this question with a short answer: What does",
    ),
    "nocaps": (2, 3, "images/a.jpg", "[caption] Briefly describe this image."),
    "scienceqa": (
        1,
        3,
        "images/test/1/image.png",
        "[vqa] Based on the image, respond to this question with a short answer: Look",
    ),
    "mmbench": (
        2,
        3,
        "mmbench_images/7.jpg",
        "[vqa] Based on the image, respond to this question with a short answer: See here W",
    ),
    "iconqa": (1, 1, "choose_text/val/1/image.png", "[vqa] Based on the image, respond"),
    "pope": (4, 2, COCO, "Is there a dog in the image?"),
    "chair_long": (1, 3, COCO, "Please describe this image as detailed as possible."),
    "chair_short": (1, 3, COCO, "Please describe the image shortly and precisely, in less than 20 words."),
    "chair_v2_long": (1, 3, COCO, "generate a brief description of the given image"),
    "chair_v2_grounded": (1, 3, COCO, "[grounding] describe this image in as detailed as possible"),
    "chair_v2_short": (1, 3, COCO, "[caption] briefly describe the image"),
}


def sample(folder, name):
    for file, text in SAMPLES[name].items():
        (folder / file).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_files_are_read_and_what_is_wrong_in_them_is_named(tmp_path, name):
    rows, problems = BENCHMARKS[name].rows(sample(tmp_path, name))
    count, wrong, image, prompt = FOUND[name]
    assert (len(rows), len(problems), rows[0]["image"]) == (count, wrong, image)
    assert rows[0]["prompt"].startswith(prompt)
    assert not any("\n" in problem for problem in problems)
    assert all(problem.startswith(str(tmp_path)) for problem in problems)


@pytest.mark.parametrize("name", OFFICIAL)
def test_preparing_says_what_is_there_and_what_is_not(tmp_path, name):
    nothing = prepare(name, tmp_path)
    assert not nothing.ready
    assert nothing.missing
    assert all(": from http" in told for told in [*nothing.missing, *nothing.optional])
    found = prepare(name, sample(tmp_path, name))
    count, wrong, _, _ = FOUND[name]
    assert (found.questions, len(found.problems)) == (count, wrong)
    assert len(found.gone) == (0 if name == "mmbench" else found.images)  # whose images are in the table
    assert found.images > 0
    for gone in BENCHMARKS[name].rows(tmp_path)[0]:
        (tmp_path / gone["image"]).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / gone["image"])
    found = prepare(name, tmp_path)
    assert not found.gone
    assert not found.missing
    assert not found.ready  # rows of the sample cannot be used
    with pytest.raises(UserError, match="there is no official data to look for"):
        prepare("vsr", tmp_path)


def scored(name, folder, *answers, choice=Choice(), measure=None):
    rows, _ = BENCHMARKS[name].rows(folder, choice)
    given = [row | {"answer": answer} for row, answer in zip(rows, answers, strict=True)]
    lines = {line.name: line.scores for line in BENCHMARKS[name].report(given, Against()).lines}
    return {name: {measure: score.value for measure, score in scores.items()} for name, scores in lines.items()}


def test_scores_by_hand(tmp_path):
    found = scored("vqav2", sample(tmp_path, "vqav2"), " Red\n", "Yes.")
    # "red": six of ten people; leaving out one of them, five or six others said the same. "yes.": all agree, and the official
    # tool then compares texts as they are.
    assert found["model"]["accuracy"] == 1.0
    assert found["model"]["official tool"] == pytest.approx(0.5)
    assert found["other: model"]["accuracy"] == found["yes/no: model"]["accuracy"] == 1.0
    found = scored("okvqa", sample(tmp_path, "okvqa"), "dark red", "no")
    assert found["model"]["accuracy"] == pytest.approx((6 * 1 + 4 * 1) / 10 / 2)  # four of ten: three others at least
    found = scored("gqa", sample(tmp_path, "gqa"), "Yes", "a dog")
    assert found["model"]["accuracy"] == 0.5
    assert found["verify: model"]["accuracy"] == 1.0
    assert scored("vizwiz", sample(tmp_path, "vizwiz"), "Dark red ")["model"]["accuracy"] == 1.0
    assert scored("hateful_memes", sample(tmp_path, "hateful_memes"), "Yes", "Yes")["model"]["accuracy"] == 0.5
    assert scored("aokvqa", sample(tmp_path, "aokvqa"), "y")["model"]["accuracy"] == 1.0
    found = scored("aokvqa_mc", tmp_path, "y", "y")
    assert (found["model"]["accuracy"], found["model"]["chance"]) == (0.5, 0.5)


def test_pope_by_set(tmp_path):
    folder = sample(tmp_path, "pope")
    found = scored("pope", folder, "Yes, there is.", "I think so", "I think so", "no")
    assert found["model"]["accuracy"] == 0.75  # "I think so" is yes, by the official rule: once wrong, once right
    assert found["model"]["strict"] == 0.5
    assert found["model"]["precision"] == pytest.approx(2 / 3)
    assert found["model"]["recall"] == 1.0
    assert found["model"]["F1"] == pytest.approx(4 / 5)
    assert found["model"]["yes ratio"] == 0.75
    assert found["random: model"]["accuracy"] == 0.5
    assert found["adversarial: model"]["accuracy"] == 1.0
    assert set(scored("pope", folder, "no", choice=Choice(split="popular"))) == {"model", "always yes"}
    (folder / "coco_pope_popular.json").unlink()
    rows, problems = BENCHMARKS["pope"].rows(folder)
    assert len(rows) == 3
    assert any("that set is left out" in problem for problem in problems)


def test_chair_counts_what_has_a_box_or_is_said_by_people(tmp_path):
    folder = sample(tmp_path, "chair_long")
    (row,), _ = BENCHMARKS["chair_long"].rows(folder)
    assert row["there"] == ["bicycle", "dog", "person"]  # a crowd is there too
    found = scored("chair_long", folder, "A man with a dog, a cat and a hot dog.")
    assert found["model"] == {"CHAIR_i": 0.5, "CHAIR_s": 1.0, "recall": 2 / 3, "words": 11.0}


# choosing ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def assistant():
    model = tiny_model()
    return Assistant(model, tiny_processor(model.config))


def test_the_likeliest_candidate_is_chosen(assistant, tmp_path):
    images = []
    for i in range(3):
        images.append(tmp_path / f"{i}.png")
        Image.new("RGB", (32, 32), (80 * i, 200 - 50 * i, 30)).save(images[-1])
    candidates = [("red", "blue", "green"), ("yes", "no"), ("1", "22", "333")]
    items = [([image], "which?", given) for image, given in zip(images, candidates, strict=True)]
    chosen = choose(assistant, items)
    assert chosen == [choose(assistant, [item])[0] for item in items]
    processor = assistant.processor
    for (shown, asked, given), best in zip(items, chosen, strict=True):
        embeds = assistant.engine.encode(shown)[0].embeds[None]
        prompt = processor.chat.training_prompt(with_images(asked, 1))
        (losses,) = candidate_losses(assistant.model, processor, [prompt], embeds, [given])
        assert losses[given.index(best)] == min(losses)


def test_official_systems_choose_by_the_official_measure(monkeypatch):
    model = tiny_model()
    system = Assistant(model, tiny_processor(model.config, "minigpt-v2"))
    likely = str(system.ask([], "why?", max_new_tokens=20, min_new_tokens=20))  # long, and made of likely tokens
    given = ["why", likely]
    monkeypatch.setattr(system, "official", True)
    (losses,) = candidate_losses(model, system.processor, ["[INST] why? [/INST]"], None, [given], official=True)
    (own,) = candidate_losses(model, system.processor, ["[INST] why? [/INST]"], None, [given])
    best, by_own = given[losses.index(min(losses))], given[own.index(min(own))]
    assert choose(system, [([], "why?", given)]) == [best]
    monkeypatch.setattr(system, "official", False)
    assert choose(system, [([], "why?", given)]) == [by_own] != [best]


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, assistant):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(System, "load", lambda _: assistant)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["minigpt4", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def own(tmp_path):
    """Six questions of one's own with choices, about six images."""
    rows = []
    for i in range(6):
        Image.new("RGB", (32, 32), (40 * i, 100, 30)).save(tmp_path / f"{i}.png")
        rows.append({"image": f"{i}.png", "question": f"Which {i}?", "choices": ["red", "blue", "green"], "answer": i % 3})
    (tmp_path / "own.jsonl").write_text(lines(*rows[:4], rows[4] | {"answer": "green"}, rows[5] | {"answer": 9}))
    return tmp_path / "own.jsonl"


def test_three_steps(run, own, tmp_path, monkeypatch, assistant):
    command = ("run", "choice", "--data", "own.jsonl", "--output", "out", "--blank-image", "--json")
    status, out, err = run(*command)
    assert status == 1  # one of the rows cannot be used
    assert 'own.jsonl:6: "answer" must be the number of a choice' in err
    report = json.loads(out)
    assert report["items"] == 5
    assert report == json.loads((tmp_path / "out" / "report.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert all(row["answer"] in row["choices"] for row in rows)
    assert all(row["prompt"].endswith(row["question"]) for row in rows)
    monkeypatch.setattr(System, "load", lambda _: pytest.fail("nothing is left to ask"))
    assert run(*command)[1] == out
    assert json.loads(run("score", "out", "--json")[1])["lines"] == report["lines"]
    assert "chance" in run("score", "out")[1]
    assert run("run", "choice", "--data", "own.jsonl", "--output", "other", "--num-beams", 3)[2].startswith(
        "error: choice ranks given answers: num_beams would change nothing"
    )
    assert run("run", "chess", "--data", "own.jsonl", "--output", "other")[2].startswith("error: chess: no such benchmark")


def test_preparing_on_the_command_line(run, tmp_path):
    status, out, err = run("prepare", "vizwiz", "--data", ".")
    assert (status, err) == (1, "")
    assert "missing: val.json or Annotations/val.json: from https://vizwiz.org" in out
    (tmp_path / "val").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "val" / "a.jpg")
    (tmp_path / "val.json").write_text(json.dumps([{"image": "a.jpg", "question": "?", "answers": TEN}]))
    status, out, err = run("prepare", "vizwiz", "--data", ".")
    assert (status, err) == (0, "")
    assert out.endswith("1 questions about 1 images, 0 of which are not there\n")


# comparing -------------------------------------------------------------------------------------------------------------------


def test_two_runs_are_compared_question_by_question(run, tmp_path):
    """B is right where A is, and in 10 questions more: what is hard for both cancels out in the difference."""
    rows = [{"benchmark": "vsr", "image": f"{i}", "statement": "x", "label": True} for i in range(200)]

    def write(name, right, of=rows):
        kept = [row | {"answer": "true" if right(i) else "false", "by": name} for i, row in enumerate(of)]
        (tmp_path / name).write_text(lines(*kept))
        return tmp_path / name

    a, b = write("a", lambda i: i < 100), write("b", lambda i: i < 110)
    report = compare(a, b)
    one, two, ahead = report.lines
    assert [line.name for line in report.lines] == ["A", "B", "A - B"]
    assert (one.scores["accuracy"].value, two.scores["accuracy"].value) == (0.5, 0.55)
    difference = ahead.scores["accuracy"]
    assert difference.value == pytest.approx(-0.05)
    assert difference.low < difference.value < difference.high < 0
    assert difference.high - difference.low < (one.scores["accuracy"].high - one.scores["accuracy"].low) / 2
    # the interval of a mean of 200 values of 0 and -1, 5 % of them -1: 1.96 * sqrt(0.05 * 0.95 / 200)
    assert difference.high - difference.low == pytest.approx(2 * 1.96 * (0.05 * 0.95 / 200) ** 0.5, rel=0.15)
    some = write("some", lambda i: True, rows[50:])
    report = compare(a, some)
    assert report.items == 150
    assert report.notes[-1] == "50 answers to questions that only one of them has are left out"
    assert "A - B" in run("compare", a, b)[1]
    assert "(a)" in run("compare", a, b)[1]
    (tmp_path / "other").write_text(
        lines({"benchmark": "choice", "image": "1", "question": "?", "choices": ["a"], "truth": "a", "answer": "a"})
    )
    assert run("compare", a, "other")[2] == f"error: {a} has answers to vsr, other to choice: they cannot be compared\n"


def test_images_of_a_table_are_written_once_and_one_may_be_that_of_a_question_before(tmp_path):
    rows, _ = BENCHMARKS["mmbench"].rows(sample(tmp_path, "mmbench"))
    assert [row["image"] for row in rows] == ["mmbench_images/7.jpg"] * 2
    assert (tmp_path / "mmbench_images/7.jpg").read_bytes() == base64.b64decode(PIXEL)
    assert [row["truth"] for row in rows] == ["a cat", "down"]
    (tmp_path / "mmbench_images/7.jpg").write_bytes(b"mine")
    BENCHMARKS["mmbench"].rows(tmp_path)
    assert (tmp_path / "mmbench_images/7.jpg").read_bytes() == b"mine"


def test_the_domains_of_nocaps_have_scores_of_their_own(tmp_path):
    rows, _ = BENCHMARKS["nocaps"].rows(sample(tmp_path, "nocaps"))
    answered = [row | {"answer": text} for row, text in zip(rows, ("a brown dog", "nothing"), strict=True)]
    lines = {line.name: line for line in BENCHMARKS["nocaps"].report(answered, Against()).lines}
    assert lines["in-domain: model"].scores["ROUGE-L"].value > lines["out-domain: model"].scores["ROUGE-L"].value == 0
    with pytest.raises(UserError, match="nocaps has the domains in-domain, near-domain, out-domain, not 'val'"):
        BENCHMARKS["nocaps"].rows(tmp_path, Choice(split="val"))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a cat", 1),
        ("A cat.", 1),
        ("B", 1),
        ("(b) a cat", 1),
        ("b. because of its ears", 1),
        ("The answer is C", 2),
        ("It is a black cat on a mat", 2),  # the longer one of two that are both in it
        ("a dog or a cat", None),
        ("I do not know", None),
        ("A", 0),
        ("z", None),
        ("", None),
    ],
)
def test_a_written_answer_means_one_of_those_given_or_none(text, place):
    assert written_choice(text, ["a dog", "a cat", "black cat"]) == place


def test_answers_that_are_written_are_counted_by_what_they_mean(tmp_path):
    rows, _ = BENCHMARKS["aokvqa_mc_written"].rows(sample(tmp_path, "aokvqa_mc_written"))
    assert rows[0]["prompt"].endswith("Why? Choose one of these answers: (A) x (B) y")
    answered = [row | {"answer": text} for row, text in zip(rows, ("(B)", "neither"), strict=True)]
    model, usual = BENCHMARKS["aokvqa_mc_written"].report(answered, Against()).lines
    assert model.scores["accuracy"].value == usual.scores["accuracy"].value == 1 / 2
    assert [BENCHMARKS["aokvqa_mc_written"].parse(row) for row in answered] == [1, None]
