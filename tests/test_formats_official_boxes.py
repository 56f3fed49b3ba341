"""The published datasets that have boxes, in rows written by hand in their official layouts."""

import json
import pickle
import random

import pytest
from official_rows import asked, drawn, folder, pairs  # noqa: F401  (a fixture)

from minigpt4.data.formats import build_source
from minigpt4.errors import UserError

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
    official = build_source(f"ref{format}", **options, split="val", official=True)
    assert {answer for _, answer in drawn(official)} == {"{<93><83><106><104>}"}


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
    assert source.images(0)[0].name == "7.jpg"
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
