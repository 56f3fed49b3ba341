"""Benchmarks in their official files: small samples made by hand, with what goes wrong in such files."""

import base64
import json

import pytest
from PIL import Image
from serving import as_bytes, picture

from minigpt4.errors import UserError
from minigpt4.evaluate.benchmarks.base import Against, Choice
from minigpt4.evaluate.benchmarks.registry import BENCHMARKS, OFFICIAL
from minigpt4.evaluate.prepare import prepare

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
        2,
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


def test_questions_without_an_image_are_no_fault_of_the_data(tmp_path):
    folder = sample(tmp_path, "scienceqa")
    (folder / "problems.json").write_text(json.dumps({number: SCIENCEQA[number] for number in ("1", "2")}))
    (folder / "pid_splits.json").write_text(json.dumps({"test": ["1", "2"]}))
    place = folder / "images/test/1/image.png"
    place.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(place)
    found = prepare("scienceqa", folder)
    assert found.ready
    assert [told.partition(": ")[2] for told in found.remarks] == [
        "1 of 2 questions of test have no image and are not asked"]  # fmt: skip


def test_images_of_part_of_a_split_are_those_of_the_split(tmp_path):
    entry = _ASK | {"question": "Which?"}
    (tmp_path / "problems.json").write_text(json.dumps({"1": entry, "2": entry | {"split": "train"}, "3": entry}))
    (tmp_path / "pid_splits.json").write_text(json.dumps({"minitest": ["1", "3"], "trainval": ["2"], "odd": None}))
    for place in ("test/1", "3", "train/2"):
        (tmp_path / "images" / place).mkdir(parents=True)
        (tmp_path / "images" / place / "image.png").touch()
    found = {split: BENCHMARKS["scienceqa"].rows(tmp_path, Choice(split=split))[0] for split in ("minitest", "trainval")}
    assert [row["image"] for row in found["minitest"]] == ["images/test/1/image.png", "images/3/image.png"]
    assert [row["image"] for row in found["trainval"]] == ["images/train/2/image.png"]
    with pytest.raises(UserError, match="no split 'odd'"):
        BENCHMARKS["scienceqa"].rows(tmp_path, Choice(split="odd"))
    (tmp_path / "pid_splits.json").write_text("null")
    with pytest.raises(UserError, match="expected an object of splits"):
        BENCHMARKS["scienceqa"].rows(tmp_path)


def test_a_table_that_has_another_image_shows_that_one(tmp_path):
    blue = base64.b64encode(as_bytes(picture("blue", (2, 2)), "JPEG")).decode()
    before = BENCHMARKS["mmbench"].rows(sample(tmp_path, "mmbench"))[0]
    table = tmp_path / "mmbench_dev_20230712.tsv"
    table.write_text(MMBENCH.replace(PIXEL, blue), encoding="utf-8")
    after = BENCHMARKS["mmbench"].rows(tmp_path)[0]
    assert [base64.b64encode((tmp_path / rows[0]["image"]).read_bytes()).decode() for rows in (before, after)] == [PIXEL, blue]
    table.write_text(MMBENCH, encoding="utf-8")
    assert BENCHMARKS["mmbench"].rows(tmp_path)[0] == before


def test_pope_by_set(tmp_path):
    folder = sample(tmp_path, "pope")
    found = scored("pope", folder, "Yes, there is.", "I think so", "I think so", "no")
    assert found["model"]["accuracy"] == 0.75  # "I think so" is yes, by the official rule: once wrong, once right
    assert found["model"]["strict"] == 0.5
    assert found["model"]["precision"] == pytest.approx(2 / 3)
    assert found["model"]["recall"] == 1.0
    assert found["model"]["F1"] == pytest.approx(4 / 5)
    assert found["model"]["yes ratio"] == 0.75
    rows = [
        row | {"image": f"{i}.jpg", "answer": "no" if i else "yes"} for i, row in enumerate(BENCHMARKS["pope"].rows(folder)[0])
    ]
    ratio = BENCHMARKS["pope"].report(rows, Against()).lines[0].scores["yes ratio"]
    assert ratio.low < ratio.value < ratio.high
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


def test_chair_finds_either_year_where_its_archive_unpacks_to(tmp_path):
    (tmp_path / "annotations").mkdir()
    for name in ("val2014", "val2017"):
        (tmp_path / name).mkdir()
    later = [{"id": 42, "file_name": "000000000042.jpg"}]
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(INSTANCES | {"images": later}))
    said = CAPTIONS | {"annotations": [{"image_id": 42, "caption": "A cat."}]}
    (tmp_path / "annotations/captions_val2014.json").write_text(json.dumps(said))
    (tmp_path / "val2017/000000000042.jpg").touch()
    (row,), _ = BENCHMARKS["chair_long"].rows(tmp_path)
    assert (row["image"], row["there"]) == ("val2017/000000000042.jpg", ["dog", "person"])
    (tmp_path / "annotations/captions_val2017.json").write_text(json.dumps(CAPTIONS | {"images": later}))
    (row,), _ = BENCHMARKS["chair_long"].rows(tmp_path)
    assert row["there"] == ["bicycle", "dog", "person"]
    assert not prepare("chair_long", tmp_path).missing
    (tmp_path / "annotations/instances_val2014.json").write_text(json.dumps(INSTANCES))
    (tmp_path / COCO).touch()
    (row,), _ = BENCHMARKS["chair_long"].rows(tmp_path)
    assert (row["image"], row["there"]) == (COCO, ["cat", "dog", "person"])


def test_images_of_a_table_are_written_once_and_one_may_be_that_of_a_question_before(tmp_path):
    rows, _ = BENCHMARKS["mmbench"].rows(sample(tmp_path, "mmbench"))
    assert [row["image"] for row in rows] == ["mmbench_images/7.jpg"] * 2
    assert (tmp_path / "mmbench_images/7.jpg").read_bytes() == base64.b64decode(PIXEL)
    assert [row["truth"] for row in rows] == ["a cat", "down"]
    (tmp_path / "mmbench_images/7.jpg").write_bytes(b"mine")
    BENCHMARKS["mmbench"].rows(tmp_path)
    assert (tmp_path / "mmbench_images/7.jpg").read_bytes() == b"mine"


def test_an_image_of_a_table_may_stand_at_any_other_question(tmp_path):
    head = "index\tquestion\tA\tB\tanswer\timage\tsplit\n"
    table = (
        ("1234", "Which?", "a dog", "a cat", "B", PIXEL, "train"),
        ("1235", "Where?", "left", "right", "B", "1234", "dev"),  # at a question of another split
        ("1001", "Where?", "left", "right", "B", "2000", "dev"),  # further down, at one that cannot be asked
        ("2000", "Where?", "left", "right", "D", PIXEL, "dev"),
        ("3000", "Where?", "left", "right", "A", "4321", "dev"),  # at none; "4321" is base64, but of no image
        ("5000", "Where?", "left", "right", "A", "6000", "dev"),
        ("6000", "Where?", "left", "right", "A", "5000", "dev"),
        ("7000", "Where?", "left", "right", "A", "1235", "dev"),  # at one that has another's
    )
    (tmp_path / "mmbench.tsv").write_text(head + "".join("\t".join(row) + "\n" for row in table))
    rows, problems = BENCHMARKS["mmbench"].rows(tmp_path, Choice(split="dev"))
    assert [row["image"] for row in rows] == [f"mmbench_images/{number}.jpg" for number in ("1234", "2000", "1234")]
    for row in rows:
        assert (tmp_path / row["image"]).read_bytes() == base64.b64decode(PIXEL)
    assert len(problems) == 4
    assert any("neither one in base64 nor the index of a question, found '4321'" in problem for problem in problems)
    assert sorted(file.name for file in (tmp_path / "mmbench_images").iterdir()) == ["1234.jpg", "2000.jpg"]
    assert len(BENCHMARKS["mmbench"].rows(tmp_path)[0]) == 4


def test_the_domains_of_nocaps_have_scores_of_their_own(tmp_path):
    rows, _ = BENCHMARKS["nocaps"].rows(sample(tmp_path, "nocaps"))
    answered = [row | {"answer": text} for row, text in zip(rows, ("a brown dog", "nothing"), strict=True)]
    lines = {line.name: line for line in BENCHMARKS["nocaps"].report(answered, Against()).lines}
    assert lines["in-domain: model"].scores["ROUGE-L"].value > lines["out-domain: model"].scores["ROUGE-L"].value == 0
    with pytest.raises(UserError, match="nocaps has the domains in-domain, near-domain, out-domain, not 'val'"):
        BENCHMARKS["nocaps"].rows(tmp_path, Choice(split="val"))


def test_answers_that_are_written_are_counted_by_what_they_mean(tmp_path):
    rows, _ = BENCHMARKS["aokvqa_mc_written"].rows(sample(tmp_path, "aokvqa_mc_written"))
    assert rows[0]["prompt"].endswith("Why? Choose one of these answers: (A) x (B) y")
    answered = [row | {"answer": text} for row, text in zip(rows, ("(B)", "neither"), strict=True)]
    model, usual = BENCHMARKS["aokvqa_mc_written"].report(answered, Against()).lines
    assert model.scores["accuracy"].value == usual.scores["accuracy"].value == 1 / 2
    assert [BENCHMARKS["aokvqa_mc_written"].parse(row) for row in answered] == [1, None]
