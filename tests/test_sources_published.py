"""The published datasets, in rows written by hand in their official layouts, against what the published classes give.

Expected texts are spelt out here, pools included: they are what the published weights were trained with, whatever
`prompt.tasks` says today. (The published classes also write the picture's placeholder before, and a blank after.)
"""

import json
import logging
import pickle
import random
from collections import Counter

import pytest
from PIL import Image

from minigpt4.data.sources import SOURCES, build_source
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
REFER = [
    "{}",
    "give me the location of {}",
    "where is {} ?",
    "from this image, tell me the location of {}",
    "the location of {} is",
    "could you tell me the location for {} ?",
    "where can I locate the {} ?",
]
IDENTIFY = [
    "{}",
    "what object is in this location {}",
    "identify the object present at this location {}",
    "what is it in {}",
    "describe this object in {}",
    "this {} is",
    "the object in {} is",
]
GROUNDING = [
    "please describe this image in details",
    "describe this image as detailed as possible",
    "summarize this image in details",
    "give a thorough description of what you see in this image",
]


def asked(task, pool, subjects=("",)):
    return {f"[{task}] {wording.replace('{}', subject)}" for wording in pool for subject in subjects}


def pairs(questions, answers):
    return {(question, answer) for question in questions for answer in answers}


def drawn(source, index=0, draws=600):
    """All distinct (question, answer) of a sample of one turn."""
    found = set()
    for seed in range(draws):
        (turn,) = source.sample(index, random.Random(seed)).turns
        assert len(turn.answers) == 1
        found.add((turn.question, turn.answers[0]))
    return found


@pytest.fixture
def folder(tmp_path):
    def make(data, *pictures, size=(640, 480), name="annotations.json"):
        images = tmp_path / "pictures"
        images.mkdir(exist_ok=True)
        for picture in pictures:
            (images / picture).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size).save(images / picture)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data), encoding="utf-8")
        return {"annotations": str(path), "images": str(images)}

    return make


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
    assert source.pictures(1)[0].name == "17.jpg"
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
    assert source.pictures(0) == source.pictures(1)


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


REFS = [
    {
        "ref_id": 5,
        "ann_id": 50,
        "category_id": 1,
        "image_id": 33,
        "split": "train",
        "sentences": [
            {"sent_id": 1, "raw": "The RIGHT horse!", "tokens": []},
            {"sent_id": 2, "raw": "brown one, near", "tokens": []},
        ],
    },
    {"ref_id": 6, "ann_id": 51, "category_id": 1, "image_id": 33, "split": "val", "sentences": [{"sent_id": 3, "raw": "x"}]},
]
INSTANCES = {
    "images": [{"id": 33, "file_name": "x.jpg"}],
    "annotations": [
        {"id": 50, "image_id": 33, "bbox": [12.5, 30.25, 300.1, 200.9]},
        {"id": 51, "image_id": 33, "bbox": [600, 400, 80, 100]},
    ],
    "categories": [{"id": 1, "name": "horse"}],
}
SENTENCES = ["the right horse", "brown one, near"]


@pytest.mark.parametrize(
    ("format", "place"), [("coco", "refcoco/refs(unc).p"), ("cocop", "refcoco+/refs(unc).p"), ("cocog", "refcocog/refs(umd).p")]
)
def test_refcoco_both_ways(folder, tmp_path, format, place):
    options = folder(INSTANCES, "COCO_train2014_000000000033.jpg", name=place.rpartition("/")[0] + "/instances.json")
    (tmp_path / place).write_bytes(pickle.dumps(REFS, protocol=2))
    options["annotations"] = str(tmp_path)
    refer = build_source(f"ref{format}", **options)
    assert len(refer) == 1
    assert drawn(refer) == pairs(asked("refer", REFER, SENTENCES), ["{<1><6><48><48>}"])
    assert refer.sample(0, random.Random(0)).extra["boxes"][0].x1 == 12.5 / 640
    identify = build_source(f"invref{format}", **options | {"annotations": str((tmp_path / place).parent)})
    assert drawn(identify) == pairs(asked("identify", IDENTIFY, ["{<1><6><48><48>}"]), SENTENCES)
    validation = build_source(f"ref{format}", **options, split="val")  # a box that reaches over the edge
    assert {answer for _, answer in drawn(validation)} == {"{<93><83><100><100>}"}
    published = build_source(f"ref{format}", **options, split="val", published=True)
    assert {answer for _, answer in drawn(published)} == {"{<93><83><106><104>}"}


def test_refcoco_takes_the_size_from_the_annotations_where_it_is_there(folder, tmp_path):
    instances = INSTANCES | {"images": [{"id": 33, "width": 1280, "height": 480}]}
    options = folder(instances, "COCO_train2014_000000000033.jpg", name="refcoco/instances.json")
    (tmp_path / "refcoco/refs(unc).p").write_bytes(pickle.dumps(REFS))
    source = build_source("refcoco", **options | {"annotations": str(tmp_path)})
    assert {answer for _, answer in drawn(source)} == {"{<0><6><24><48>}"}


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_a_pickle_that_could_run_a_program_is_refused(folder, tmp_path, capsys):
    options = folder(INSTANCES, name="refcoco/instances.json") | {"annotations": str(tmp_path)}
    path = tmp_path / "refcoco/refs(unc).p"
    for content, message in [
        (pickle.dumps([*REFS, Evil()]), r"not a pickle of plain lists and dicts \(it asks for builtins.print\)"),
        (pickle.dumps(REFS)[:-20], "not a whole pickle"),
        (b"", "not a whole pickle"),
        (pickle.dumps({"refs": 1}), "expected refs.unc..p of the REFER toolkit, found an object"),
    ]:
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            build_source("refcoco", **options)
    assert "run" not in capsys.readouterr().out
    path.unlink()
    with pytest.raises(UserError, match=r"refs\(unc\).p: no such file"):
        build_source("refcoco", **options)


@pytest.mark.parametrize("text", [b"caf\xc3\xa9", b"caf\xe9"])
def test_a_pickle_of_python_2_with_accents_is_read(folder, tmp_path, text):
    options = folder(INSTANCES, "COCO_train2014_000000000033.jpg", name="refcoco/instances.json") | {
        "annotations": str(tmp_path)
    }
    body = pickle.dumps([{**REFS[0], "sentences": [{"raw": "PLACE"}]}], protocol=0)
    line = next(line for line in body.split(b"\n") if b"PLACE" in line)
    literal = "S'" + "".join(f"\\x{b:02x}" if b > 127 else chr(b) for b in text) + "'"  # as Python 2 wrote its str
    (tmp_path / "refcoco/refs(unc).p").write_bytes(body.replace(line, literal.encode()))
    assert {question for question, _ in drawn(build_source("refcoco", **options))} == asked("refer", REFER, ["café"])


def test_refvg(folder, tmp_path):
    region = {"region_id": 1, "image_id": 7, "x": 10, "y": 20, "width": 100, "height": 50}
    regions = [
        {**region, "phrase": "The WHITE plate."},
        {**region, "phrase": "a big table", "width": 128, "height": 128},
        {**region, "phrase": "an edge", "x": -1, "y": 0, "width": 1, "height": 1},
    ]
    options = folder([{"id": 7, "regions": regions[:2]}], "VG_100K_2/7.jpg", size=(200, 100), name="region_descriptions.json")
    image = {"image_id": 7, "url": "https://x.org/rak248/VG_100K_2/7.jpg", "width": 200, "height": 100}
    (tmp_path / "image_data.json").write_text(json.dumps([image]))
    options["annotations"] = str(tmp_path)
    source = build_source("refvg", **options)
    assert len(source) == 1
    assert drawn(source) == pairs(asked("refer", REFER, ["the white plate"]), ["{<5><20><55><70>}"])
    assert source.pictures(0)[0].name == "7.jpg"
    assert drawn(pickle.loads(pickle.dumps(source))) == drawn(source)  # it goes to worker processes
    everything = build_source("refvg", **options, max_area=0)
    assert len(everything) == 2
    assert {answer for _, answer in drawn(everything, 1)} == {"{<5><20><69><100>}"}
    (tmp_path / "region_descriptions.json").write_text(json.dumps([{"id": 7, "regions": regions}, {"id": 8, "regions": 3}]))
    source = build_source("refvg", **options, malformed="skip")
    assert [p.message.partition(": ")[2] for p in source.problems()] == [
        "the region 'an edge' lies outside the picture or is empty",
        '"regions" must be a list, found the number 3',
    ]


MARKED = "<p>Two boys</p> {<1><2><30><40>}<delim>{<5><6><70><80>} dig in <p>the sand</p> {<0><0><99><99>}."


def test_flickr_grounded_caption(folder):
    options = folder([{"image_id": "1001", "grounded_caption": MARKED}], "1001.jpg")
    assert drawn(build_source("flickr_grounded_caption", **options)) == pairs(asked("grounding", GROUNDING), [MARKED])


def test_flickr_caption_to_phrase(folder, capsys):
    rows = [{"image_id": "1001", "caption": 'Two boys dig. It\'s (very) "warm"!', "output": MARKED}]
    source = build_source("flickr_CaptionToPhrase", **folder(rows, "1001.jpg"))
    assert drawn(source) == {('[detection] Two boys dig. It\'s (very) "warm"!', MARKED)}
    assert capsys.readouterr().out == ""


def test_flickr_object_to_phrase(folder):
    rows = [{"image_id": "1001", "phrase": "Two boys", "bbox": "{<1><2><30><40>}<delim>{<5><6><70><80>}"}]
    source = build_source("flickr_ObjectToPhrase", **folder(rows, "1001.jpg"))
    assert drawn(source) == {("[detection] Two boys", "<p>Two boys</p> {<1><2><30><40>}<delim>{<5><6><70><80>}")}


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
    assert source.pictures(0) == source.pictures(1)


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
    assert build_source(format, **text_only).pictures(0) == ()
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
    published = build_source("unnatural_instruction", **options, published=True)
    assert drawn(published) == {("write a poem about rain be brief max 3 lines", "rain, rain soft " + " ".join(["drip"] * 47))}
    assert drawn(published, 1) == {("count none", "one, two")}


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


def test_every_published_name_is_there():
    published = (
        "cc_sbu laion cc_sbu_align coco_caption textcaps_caption coco_vqa ok_vqa aok_vqa gqa ocrvqa refcoco refcocop refcocog "
        "invrefcoco invrefcocop invrefcocog refvg flickr_grounded_caption flickr_CaptionToPhrase flickr_ObjectToPhrase "
        "llava_detail llava_reason llava_conversation multitask_conversation unnatural_instruction"
    )
    assert set(published.split()) <= set(SOURCES)
