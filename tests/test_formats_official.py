"""The published datasets, in rows written by hand in their official layouts, against what the published classes give.

Expected texts are spelt out here, pools included: they are what the published weights were trained with, whatever
`prompt.tasks` says today. (The published classes also write the picture's placeholder before, and a blank after.)
"""

import json
import logging
import random
from collections import Counter

import pytest
from official_rows import asked, drawn, folder, pairs  # noqa: F401  (a fixture)
from PIL import Image

from minigpt4.data.formats import SOURCES, build_source
from minigpt4.errors import UserError

CAPTION = [
    "Briefly describe this image.",
    "Provide a concise depiction of this image.",
    "Present a short description of this image.",
    "Summarize this image in a few words.",
    "A short image caption:",
    "A short image description:",
    "A photo of",
    "An image that shows",
    "Write a short description for the image.",
    "Write a description for the photo.",
    "Provide a description of what is presented in the photo.",
    "Briefly describe the content of the image.",
    "Can you briefly explain what you see in the image?",
    "Could you use a few words to describe what you perceive in the photo?",
    "Please provide a short depiction of the picture.",
    "Using language, provide a short account of the image.",
    "Use a few words to illustrate what is happening in the picture.",
]
VQA = ["{}", "Based on the image, respond to this question with a short answer: {}"]


def test_cc_sbu_align(folder, tmp_path):
    rows = {
        "annotations": [
            {"image_id": "2", "caption": 'A quiet square. It\'s (nearly) "empty"!'},
            {"image_id": 17, "caption": "Hills."},
        ]
    }
    options = folder(rows, "2.jpg", "17.jpg", name="align/filter_cap.json")
    source = build_source("cc_sbu_align", **options)
    prompts = [
        "Describe this image in detail.",
        "Take a look at this image and describe what you notice.",
        "Please provide a detailed description of the picture.",
        "Could you describe the contents of this image for me?",
    ]
    assert drawn(source) == pairs(prompts, ['A quiet square. It\'s (nearly) "empty"!'])
    assert drawn(source, 1) == pairs(prompts, ["Hills."])
    assert source.images(1)[0].name == "17.jpg"
    assert drawn(build_source("cc_sbu_align", **options, prompts="none")) == {("", rows["annotations"][0]["caption"])}
    (tmp_path / "pictures").rename(tmp_path / "align" / "image")
    assert len(drawn(build_source("cc_sbu_align", annotations=str(tmp_path / "align")))) == 4


COCO = [
    {"image": "train2014/COCO_train2014_000000000009.jpg", "caption": 'A bowl (blue) of "soup".', "image_id": "coco_9"},
    {"image": "val2014/COCO_val2014_000000000010.jpg", "caption": "Two cats.", "image_id": "coco_10"},
    {"image": "train2014/COCO_train2014_000000000009.jpg", "caption": "Some soup!", "image_id": "coco_9"},
]


def test_coco_caption(folder):
    options = folder(COCO, "COCO_train2014_000000000009.jpg", "val2014/COCO_val2014_000000000010.jpg")
    source = build_source("coco_caption", **options)
    assert len(source) == 2
    assert drawn(source) == pairs(asked("caption", CAPTION), ["a bowl blue of soup"])
    assert source.where(1).endswith("annotations.json[2]")
    assert source.sample(0, random.Random(0)).task == "caption"
    rest = build_source("coco_caption", **options, split="restval")
    assert {answer for _, answer in drawn(rest)} == {"two cats"}
    everything = build_source("coco_caption", **options, split="all", captions="all")
    assert len(everything) == 2
    assert everything.sample(0, random.Random(0)).turns[0].answers == ("a bowl blue of soup", "some soup")
    assert everything.sample(1, random.Random(0)).turns[0].answers == ("two cats",)
    assert [everything.where(i)[-3:] for i in range(2)] == ["[0]", "[1]"]


def test_coco_captions_in_their_own_file(folder):
    data = {
        "images": [{"id": 9, "file_name": "000000000009.jpg"}, {"id": 10, "file_name": "10.jpg"}],
        "annotations": [{"image_id": 10, "caption": "Two cats."}, {"image_id": 9, "caption": "A bowl (blue)."}],
    }
    options = folder(data, "000000000009.jpg", "10.jpg")
    source = build_source("coco_caption", **options)
    assert [source.sample(i, random.Random(0)).turns[0].answers for i in range(2)] == [("two cats",), ("a bowl blue",)]
    assert [source.images(i)[0].name for i in range(2)] == ["10.jpg", "000000000009.jpg"]
    with pytest.raises(UserError, match="annotations.json: has no parts to choose from"):
        build_source("coco_caption", **options, split="restval")
    data["annotations"] += [{"image_id": 11, "caption": "x"}, {"image_id": 10}]
    first, second = build_source("coco_caption", **folder(data), malformed="skip").malformed
    assert first.message.endswith('annotations.json.annotations[2]: "image" must be text, found nothing')
    assert second.message.endswith('annotations.json.annotations[3]: "caption" must be text, found nothing')


def test_textcaps_caption(folder):
    options = folder({"data": [{"image_id": "abc1", "caption_str": 'A sign that says "EXIT" .'}]}, "abc1.jpg")
    assert drawn(build_source("textcaps_caption", **options)) == pairs(asked("caption", CAPTION), ["a sign that says exit"])


@pytest.mark.parametrize("format", ["coco_vqa", "ok_vqa"])
def test_coco_vqa_and_ok_vqa(folder, format, caplog):
    answers = ["Green", "green", "green", "light green.", "Green", "green", "green", "lime", "green", "...", ""]
    rows = [
        {"image": "train2014/a.jpg", "question": "What's the colour? (one)", "question_id": 1, "answer": answers},
        {"image": "train2014/missing.jpg", "question": "what is gone?", "question_id": 2, "answer": ["x"] * 10},
    ]
    options = folder(rows, "a.jpg")
    source = build_source(format, **options)
    assert drawn(source) == pairs(asked("vqa", VQA, ["what's the colour? one"]), ["green", "light green", "lime"])
    count = Counter(source.sample(0, random.Random(seed)).turns[0].answers[0] for seed in range(3000))
    assert count["green"] / 3000 == pytest.approx(7 / 9, abs=0.03)
    with pytest.raises(UserError, match=r"annotations.json\[1\]: no picture train2014/missing.jpg or missing.jpg in "):
        source.sample(1, random.Random(0))
    assert [p.kind for p in source.problems()] == ["missing picture"]
    with caplog.at_level(logging.WARNING):
        assert len(build_source(format, **options, missing="skip")) == 1
    assert f"{format}: 1 of 2 samples are left out, their pictures are missing" in caplog.text


def test_aok_vqa(folder):
    rows = [
        {
            "image": "COCO_train2014_000000000009.jpg",
            "question": "How many people wait?!",
            "direct_answers": ["Three", "three", "3"],
            "choices": ["1", "3"],
            "correct_choice_idx": 1,
        },
        {"image_id": 9, "question": "Who?", "direct_answers": ["She"]},
    ]
    source = build_source("aok_vqa", **folder(rows, "COCO_train2014_000000000009.jpg"))
    assert drawn(source) == pairs(asked("vqa", VQA, ["how many people wait?"]), ["three", "3"])
    assert source.images(0) == source.images(1)


def test_gqa(folder):
    rows = [{"image": "2.jpg", "question": "Is it Glass or Metal?", "answer": "Glass"}]
    expected = pairs(asked("vqa", VQA, ["is it glass or metal?"]), ["glass"])
    assert drawn(build_source("gqa", **folder(rows, "2.jpg"))) == expected
    official = {"0719": {"imageId": "2", "question": "Is it Glass or Metal?", "answer": "Glass", "semantic": []}}
    source = build_source("gqa", **folder(official, "2.jpg"))
    assert drawn(source) == expected
    assert source.where(0).endswith("annotations.json['0719']")


def test_ocrvqa(folder):
    book = {"imageURL": "http://x/y.jpg", "title": "T", "genre": "G"}
    data = {
        "b1": {**book, "questions": ["Who wrote this?", "Is this a Sci-Fi book?"], "answers": ["A. B. Cee", "No"], "split": 1},
        "b2": {**book, "imageURL": "http://x/z.png", "questions": ["Title?"], "answers": ["Sums"], "split": 2},
    }
    options = folder(data, "b1.jpg", "b2.png")
    source = build_source("ocrvqa", **options)
    assert len(source) == 2
    assert drawn(source) == pairs(asked("vqa", VQA, ["who wrote this?"]), ["a b cee"])
    assert drawn(source, 1) == pairs(asked("vqa", VQA, ["is this a sci-fi book?"]), ["no"])
    data["b1"]["answers"][0] = ""
    source = build_source("ocrvqa", **folder(data, "b1.jpg"), malformed="skip")
    assert drawn(source) == pairs(asked("vqa", VQA, ["is this a sci-fi book?"]), ["no"])
    assert [p.where.rpartition("json")[2] for p in source.problems()] == ["['b1'].questions[0]"]
    assert drawn(build_source("ocrvqa", **options, split="val")) == pairs(asked("vqa", VQA, ["title?"]), ["sums"])


def said(*texts):
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


LLAVA = [
    {
        "id": "000000000077",
        "conversations": said(
            "<image>\nWhat is THIS, exactly?", 'A "quiet" street.', "Why?\nTell me.", "It is early.", "rain?", "No."
        ),
    },
    {"id": "77", "image": "000000000077.jpg", "conversations": said("Describe: it.\n<image>", "A street.")},
]


@pytest.mark.parametrize("format", ["llava_detail", "llava_reason"])
def test_llava_single(folder, format):
    source = build_source(format, **folder(LLAVA, "COCO_train2014_000000000077.jpg"))
    assert drawn(source) == {("what is this, exactly?", 'A "quiet" street.')}
    assert drawn(source, 1) == {("describe it", "A street.")}
    assert source.images(0) == source.images(1)


@pytest.mark.parametrize("format", ["llava_conversation", "multitask_conversation"])
def test_llava_conversations(folder, format):
    options = folder(LLAVA, "000000000077.jpg")  # as COCO names it since 2017
    source = build_source(format, **options)
    first, second = (source.sample(i, random.Random(0)) for i in range(2))
    assert [(turn.question, *turn.answers) for turn in first.turns] == [
        ("What is THIS, exactly?", 'A "quiet" street.'),
        ("Why?\nTell me.", "It is early."),
        ("rain?", "No."),
    ]
    assert [(turn.question, *turn.answers) for turn in second.turns] == [("Describe: it.", "A street.")]
    assert first.task is None
    text_only = folder([{"id": "abc_0", "conversations": said("Sing.", "La.")}])
    assert build_source(format, **text_only).images(0) == ()
    for conversations, message in [
        (said("<image>\nWhere?", "There."), 'has <image>, but no "image" to say which'),
        (said("Where?"), "1 messages; expected questions and answers in turn"),
        ([{"from": "gpt", "value": "x"}], r'conversations\[0\]: "from" must be "human" here'),
    ]:
        with pytest.raises(UserError, match=message):
            build_source(format, **folder([{"id": "abc", "conversations": conversations}]))


def test_unnatural_instruction(folder):
    long = "Rain, rain (soft); " + "drip " * 60
    rows = [
        {
            "instances": [
                {
                    "instruction_with_input": "Write a POEM about: rain.\n\nBe brief!",
                    "constraints": "Max. 3 lines.",
                    "output": long,
                },
                {"instruction_with_input": "second instance", "constraints": None, "output": "y"},
            ]
        },
        {"instances": [{"instruction_with_input": "Count!", "constraints": "None.", "output": "ONE, two."}]},
    ]
    options = folder(rows)
    del options["images"]
    source = build_source("unnatural_instruction", **options)
    assert drawn(source) == {("Write a POEM about: rain.\n\nBe brief! Max. 3 lines.", long.strip())}
    assert drawn(source, 1) == {("Count!", "ONE, two.")}
    assert source.sample(0, random.Random(0)).images == ()
    official = build_source("unnatural_instruction", **options, official=True)
    assert drawn(official) == {("write a poem about rain be brief max 3 lines", "rain, rain soft " + " ".join(["drip"] * 47))}
    assert drawn(official, 1) == {("count none", "one, two")}


@pytest.mark.parametrize(
    ("format", "data", "message"),
    [
        (
            "coco_caption",
            {"a": 1},
            r"annotations.json: expected coco_karpathy_train.json, a list .*, found an object with \"a\"",
        ),
        ("coco_caption", [[1]], r"annotations.json\[0\]: expected an object, found a list of 1"),
        ("coco_caption", [{"image": "train/a.jpg"}], r'annotations.json\[0\]: no "caption"'),
        ("coco_caption", [{"image": "train/a.jpg", "caption": "!."}], r'\[0\]: "caption" has no words in it'),
        ("textcaps_caption", [], "expected TextCaps_0.1_train.json"),
        ("cc_sbu_align", {"annotations": {}}, "expected filter_cap.json"),
        ("cc_sbu_align", {"annotations": [{"caption": "x"}]}, r'"image_id" must be text or a whole number, found nothing'),
        ("coco_vqa", [{"image": "a", "question": "q", "answer": "a"}], '"answer" must be a list of texts'),
        ("coco_vqa", [{"image": "a", "question": "q", "answer": ["."]}], '"answer" has no words in it'),
        ("gqa", [{"image": "a", "question": 3, "answer": "a"}], '"question" must be text, found the number 3'),
        ("ocrvqa", [1], "expected dataset.json"),
        (
            "ocrvqa",
            {"b": {"imageURL": "x.jpg", "questions": ["a", "b"], "answers": ["c"], "split": 1}},
            "2 questions, but 1 answers",
        ),
        (
            "ocrvqa",
            {"b": {"imageURL": "x.jpg", "questions": ["a"], "answers": ["c"]}},
            '"split" must be a number, found nothing',
        ),
        ("flickr_ObjectToPhrase", [{"image_id": 1, "phrase": "x"}], 'no "bbox"'),
        ("llava_detail", [{"id": "1", "conversations": {}}], '"conversations" must be a list'),
        ("unnatural_instruction", [{"instances": []}], '"instances" is empty'),
    ],
)
def test_malformed_annotations_are_refused_with_their_place(folder, format, data, message):
    options = folder(data)
    if format == "unnatural_instruction":
        del options["images"]
    with pytest.raises(UserError, match=message):
        build_source(format, **options)


def test_a_file_that_is_cut_short_is_refused_with_line_and_column(folder, tmp_path):
    options = folder(COCO)
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(COCO, indent=1)[:-30])
    with pytest.raises(UserError, match=r"annotations.json:1\d:\d+: not JSON \(.*\); is the file whole\?"):
        build_source("coco_caption", **options)


def test_malformed_rows_can_be_left_out_and_are_told(folder, caplog):
    options = folder([COCO[0], {"image": "train.jpg"}, COCO[2]], "COCO_train2014_000000000009.jpg")
    with pytest.raises(UserError, match=r'annotations.json\[1\]: no "caption" \(to leave such rows out: malformed: skip\)'):
        build_source("coco_caption", **options)
    source = build_source("coco_caption", **options, malformed="skip", name="mine")
    assert len(source) == 2
    assert "mine: 1 malformed rows are left out, the first: " in caplog.text
    assert [(p.kind, p.where[-3:]) for p in source.problems()] == [("malformed row", "[1]")]


def test_every_official_name_is_there():
    official = (
        "cc_sbu laion cc_sbu_align coco_caption textcaps_caption coco_vqa ok_vqa aok_vqa gqa ocrvqa refcoco refcocop refcocog "
        "invrefcoco invrefcocop invrefcocog refvg flickr_grounded_caption flickr_CaptionToPhrase flickr_ObjectToPhrase "
        "llava_detail llava_reason llava_conversation multitask_conversation unnatural_instruction"
    )
    assert set(official.split()) <= set(SOURCES)


@pytest.mark.parametrize("format", ["coco_vqa", "gqa"])
def test_a_name_without_its_folder_is_no_ones_if_two_could_be_meant(tmp_path, format):
    for name in ("a/1.jpg", "flat/1.jpg", "flat/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    answer = ["red"] if format == "coco_vqa" else "red"
    rows = [{"image": image, "question": "Colour?", "answer": answer} for image in ("a/1.jpg", "b/1.jpg", "b/2.jpg")]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    folders = [str(tmp_path / "flat"), str(tmp_path)]
    source = build_source(format, annotations=str(tmp_path / "rows.json"), images=folders)
    assert source.images(0) == (tmp_path / "a/1.jpg",)  # not the one of the folder that comes first
    assert source.images(2) == (tmp_path / "flat/2.jpg",)  # left out of its folder, but there is only one of this name
    with pytest.raises(UserError, match="no picture b/1.jpg in"):
        source.images(1)


COCO_BOXES = {
    "images": [{"id": 9, "file_name": "COCO_val2014_000000000009.jpg", "width": 10, "height": 10}],
    "annotations": [{"id": 1, "image_id": 9, "category_id": 1, "bbox": [1, 1, 5, 5]}],
    "categories": [{"id": 1, "name": "dog"}],
}


@pytest.mark.parametrize(
    ("format", "rows"),
    [
        ("coco_caption", [{"image": "train2014/COCO_train2014_000000000009.jpg", "caption": "A dog."}]),
        (
            "coco_caption",
            {
                "images": [{"id": 9, "file_name": "COCO_train2014_000000000009.jpg"}],
                "annotations": [{"image_id": 9, "caption": "A dog."}],
            },
        ),
        ("coco_vqa", [{"image": "val2014/COCO_val2014_000000000009.jpg", "question": "What?", "answer": ["dog"]}]),
        ("ok_vqa", [{"image": "val2014/COCO_val2014_000000000009.jpg", "question": "What?", "answer": ["dog"]}]),
        ("coco_instances", COCO_BOXES),
    ],
)
@pytest.mark.parametrize("there", ["000000000009.jpg", "train2017/000000000009.jpg"])
def test_pictures_of_coco_are_found_under_the_names_of_2017(folder, format, rows, there):
    own = "2014/" in json.dumps(rows)  # a list that names folders is looked for in those of 2017 as well
    source = build_source(format, **folder(rows, there if own else "000000000009.jpg"))
    assert source.images(0)[0].name == "000000000009.jpg"
    assert not list(source.problems())


def test_pictures_of_coco_are_found_under_the_names_of_2014(folder):
    rows = [{"image": "000000000009.jpg", "caption": "A dog."}]
    source = build_source("coco_caption", **folder(rows, "COCO_val2014_000000000009.jpg"), split="all")
    assert source.images(0)[0].name == "COCO_val2014_000000000009.jpg"
