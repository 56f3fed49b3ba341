"""Datasets of the Hugging Face library, made in a folder of the test: saved, as files, and streamed."""

import io
import json
import pickle
import random
import sys

import pytest
from PIL import Image

from minigpt4.data.check import check
from minigpt4.data.formats import build_source
from minigpt4.data.mixture import Mixture, Part
from minigpt4.data.source import Source, StreamSource
from minigpt4.errors import UserError
from minigpt4.prompt.templates import PLACEHOLDER

datasets = pytest.importorskip("datasets")

COLOURS = ["red", "green", "blue", "red"]


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """Nothing is asked of the hub, and what the library keeps is kept in the test's folder."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def png(colour, size=(20, 10)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def stored(*colours):
    return [colour and {"bytes": png(colour), "path": None} for colour in colours]


def save(folder, columns, **types):
    """A saved dataset; `types` are those of columns that the library would not find out."""
    made = datasets.Dataset.from_dict(columns)
    for column, kind in types.items():
        made = made.cast_column(column, kind)
    made.save_to_disk(str(folder))
    return str(folder)


@pytest.fixture
def saved(tmp_path):
    labels = datasets.ClassLabel(names=["a cat", "a dog"])
    columns = {"img": stored(*COLOURS), "label": [0, 1, 0, 1], "unused": [1, 2, 3, 4]}
    return save(tmp_path / "saved", columns, img=datasets.Image(), label=labels)


COLUMNS = {"image": "img", "answer": "label"}


def told(source, count):
    return [source.sample(i, random.Random(0)).turns[0].answers[0] for i in range(count)]


def records(source):
    return [record for shard in source.shards for record in source.records(shard)]


def colour(image):
    return image.getpixel((1, 1))


def test_a_saved_dataset_is_read_in_any_order(saved):
    source = build_source("hf", dataset=saved, columns=COLUMNS, task="caption")
    assert isinstance(source, Source)
    assert not isinstance(source, StreamSource)
    assert told(source, len(source)) == ["a cat", "a dog", "a cat", "a dog"]  # numbers of classes are their names
    assert [colour(source.images(i)[0]) for i in (2, 0)] == [(0, 0, 255), (255, 0, 0)]
    assert source.where(2) == f"{saved}, split train[2]"
    sample = source.sample(1, random.Random(0))
    assert (sample.task, sample.id) == ("caption", "hf:1")
    assert sample.turns[0].question.startswith("[caption] ")
    assert list(source.problems()) == []
    again = pickle.loads(pickle.dumps(source))
    assert told(again, 4) == told(source, 4)
    assert colour(again.images(1)[0]) == (0, 128, 0)


@pytest.mark.parametrize("kind", ["saved", "parquet", "json"])
def test_a_stream_gives_what_the_index_gives(tmp_path, saved, kind):
    data, columns = datasets.load_from_disk(saved), COLUMNS
    if kind == "saved":
        folder = saved
    elif kind == "parquet":
        folder = str(tmp_path / "files")
        (tmp_path / "files").mkdir()
        for i in range(2):
            data.shard(2, i).to_parquet(str(tmp_path / "files" / f"train-{i}.parquet"))
    else:
        folder, columns = str(tmp_path / "files"), {"image": "image", "answer": "said"}
        (tmp_path / "files").mkdir()
        for name, number in zip("abcd", range(4), strict=True):
            (tmp_path / "files" / f"{name}.png").write_bytes(png(COLOURS[number]))
        rows = [{"image": f"{name}.png", "said": ["a cat", "a dog"][i % 2]} for i, name in enumerate("abcd")]
        (tmp_path / "files" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    index = build_source("hf", dataset=folder, columns=columns, task="caption")
    stream = build_source("hf", dataset=folder, columns=columns, task="caption", streaming=True)
    assert isinstance(stream, StreamSource)
    assert len(stream.shards) == (2 if kind == "parquet" else 1)
    found = records(stream)
    assert [stream.sample(record, random.Random(0)).turns[0].answers[0] for record in found] == told(index, 4)
    pixels = [colour(stream.sample(record, random.Random(0)).images[0]) for record in found]
    assert pixels == [
        colour(image if isinstance(image, Image.Image) else Image.open(image)) for (image,) in map(index.images, range(4))
    ]
    for shard in stream.shards:
        whole = list(stream.records(shard))
        for skip in range(len(whole) + 2):
            assert list(stream.records(shard, skip=skip)) == whole[skip:]
    for report in check([index, stream], "all").datasets:
        assert (report.samples, report.images, report.opened) == (4, 4, 4)
        assert not [problem for problem in report.problems if problem.kind != "duplicate"]


def test_a_streamed_mixture_goes_on_where_it_was(saved):
    source = build_source("hf", dataset=saved, columns=COLUMNS, task="caption", streaming=True)

    def mixture():
        return Mixture([Part(source, 1.0, 3)], batch=3, mixing="example", seed=1)

    whole = mixture()
    expected = [[(draw.key.where, draw.seed) for draw in step] for step, _ in zip(whole, range(6), strict=False)]
    first = mixture()
    steps = iter(first)
    begun = [[(draw.key.where, draw.seed) for draw in next(steps)] for _ in range(2)]
    state = json.loads(json.dumps(first.state_dict()))
    second = mixture()
    second.load_state_dict(state)
    begun += [[(draw.key.where, draw.seed) for draw in step] for step, _ in zip(second, range(4), strict=False)]
    assert begun == expected


def test_columns_of_our_schema_need_no_names(tmp_path):
    rows = {
        "image": stored("red", "blue"),
        "question": ["What?", "Who?"],
        "answers": [["a", "a", "b"], ["c"]],
        "task": ["vqa", None],
        "more": [1, 2],
    }
    source = build_source("hf", dataset=save(tmp_path / "d", rows, image=datasets.Image()))
    assert {source.sample(0, random.Random(seed)).turns[0].answers[0] for seed in range(40)} == {"a", "b"}
    assert source.sample(1, random.Random(0)).turns[0].question == "Who?"


def test_answers_of_several_people_as_objects(tmp_path):
    answers = [[{"answer": "yes", "confidence": "maybe"}, {"answer": "no", "confidence": "yes"}]]
    columns = {"image": stored("red"), "question": ["Is it?"], "answers": answers}
    source = build_source("hf", dataset=save(tmp_path / "d", columns, image=datasets.Image()))
    assert {source.sample(0, random.Random(seed)).turns[0].answers[0] for seed in range(40)} == {"yes", "no"}


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}],
        [{"from": "human", "value": "<image>\nHi?"}, {"from": "gpt", "value": "Yes."}],
        [
            {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "Hi?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
        ],
    ],
    ids=["ours", "LLaVA's", "parts"],
)
def test_conversations_in_three_ways_of_writing(tmp_path, messages):
    folder = save(tmp_path / "d", {"images": [stored("red")], "messages": [messages]}, images=datasets.List(datasets.Image()))
    options = {"dataset": folder, "columns": {"images": "images", "conversation": "messages"}}
    source, stream = build_source("hf", **options), build_source("hf", **options, streaming=True)
    for sample in (source.sample(0, random.Random(0)), stream.sample(records(stream)[0], random.Random(0))):
        (turn,) = sample.turns
        assert turn.question.replace(PLACEHOLDER, "").strip() == "Hi?"
        assert turn.answers == ("Yes.",)
        assert sample.placed == (PLACEHOLDER in turn.question)
        assert colour(sample.images[0]) == (255, 0, 0)


@pytest.mark.parametrize(
    ("form", "box"), [("relative", [0.1, 0.2, 0.5, 1.0]), ("xyxy", [2, 2, 10, 10]), ("xywh", [2, 2, 8, 8])]
)
@pytest.mark.parametrize("streaming", [False, True])
def test_boxes_in_a_struct_and_in_pixels(tmp_path, form, box, streaming):
    columns = {"image": stored("red", "red"), "name": ["a dog", "dogs"], "objects": [{"bbox": [box]}, {"bbox": [box, box]}]}
    folder = save(tmp_path / "d", columns, image=datasets.Image())
    named = {"image": "image", "phrase": "name", "boxes": "objects.bbox"}
    source = build_source("hf", dataset=folder, columns=named, task="refer", box_form=form, streaming=streaming)
    if streaming:
        samples = [source.sample(record, random.Random(0)) for record in records(source)]
    else:
        samples = [source.sample(i, random.Random(0)) for i in range(2)]
    assert samples[0].turns[0].answers == ("{<10><20><50><100>}",)
    assert [len(sample.extra["boxes"]) for sample in samples] == [1, 2]


@pytest.mark.parametrize(("form", "box"), [("relative", [0.1, 0.2, 0.5, 1.0]), ("xyxy", [2, 2, 10, 10])])
def test_boxes_of_a_texts_phrases_in_pixels(tmp_path, form, box):
    phrases = [[{"phrase": "A dog", "boxes": [box]}]]
    columns = {"image": stored("red"), "text": ["A dog runs."], "phrases": phrases}
    folder = save(tmp_path / "d", columns, image=datasets.Image())
    source = build_source("hf", dataset=folder, box_form=form)
    assert source.sample(0, random.Random(0)).turns[0].answers == ("<p>A dog</p> {<10><20><50><100>} runs.",)


def test_rows_without_an_image_and_with_a_broken_one_are_named(tmp_path, caplog):
    columns = {"image": [*stored("red", None), {"bytes": b"nonsense", "path": None}], "answer": ["a", "b", "c"]}
    folder = save(tmp_path / "d", columns, image=datasets.Image())
    with pytest.raises(UserError, match=r'split train\[1\]: no "image" \(to leave such rows out'):
        build_source("hf", dataset=folder)
    (report,) = check([("hf", {"dataset": folder})], "all").datasets
    found = [(problem.kind, problem.where[-3:]) for problem in report.problems]
    assert found == [("malformed row", "[1]"), ("broken picture", "[2]")]
    (streamed,) = check([("hf", {"dataset": folder, "streaming": True})], "all").datasets
    assert [(p.kind, p.where[-2:]) for p in streamed.problems] == [("malformed row", "01"), ("broken picture", "02")]
    skipping = build_source("hf", dataset=folder, streaming=True, missing="skip")
    assert [record.key[-2:] for record in records(skipping)] == ["00", "02"]
    assert [record.key[-2:] for record in skipping.records(skipping.shards[0], skip=1)] == ["02"]
    assert "1 records are left out, the last: " in caplog.text


def test_names_of_images_that_are_not_there(tmp_path):
    (tmp_path / "a.png").write_bytes(png("red"))
    folder = save(tmp_path / "d", {"image": ["a.png", "b.png"], "answer": ["a", "b"]})
    source = build_source("hf", dataset=folder, images=str(tmp_path))
    assert source.images(0) == (tmp_path / "a.png",)
    assert [p.message for p in source.problems()] == [f"{folder}, split train[1]: no picture b.png in {tmp_path}"]
    assert len(build_source("hf", dataset=folder, images=str(tmp_path), missing="skip")) == 1
    stream = build_source("hf", dataset=folder, images=str(tmp_path), streaming=True)
    with pytest.raises(UserError, match="000000001: no picture b.png in"):
        records(stream)


@pytest.mark.parametrize("streaming", [False, True])
def test_what_is_not_there_is_said_with_what_is(saved, streaming):
    wrong = [
        ({"columns": {"image": "picture", "answer": "label"}}, r"no column 'picture' for 'image'; it has img, label, unused"),
        ({"columns": {"imgae": "img"}}, r"columns: unknown key 'imgae' of a row; did you mean \"image\""),
        ({"columns": {"image": "img"}}, r"no column to learn from; it has img, label, unused"),
        ({}, r"no column to learn from; it has img, label, unused"),
        ({"columns": "img"}, r"columns: expected the name of a column for each key"),
        ({"columns": COLUMNS, "box_form": "pixels"}, r"box_form: 'pixels' is none of relative, xyxy, xywh"),
        ({"columns": COLUMNS, "task": "caption", "colums": 1}, r"hf: unknown option 'colums'; did you mean \"columns\""),
    ]
    for options, said in wrong:
        with pytest.raises(UserError, match=said) as caught:
            build_source("hf", dataset=saved, **options, streaming=streaming)
        assert "\n" not in str(caught.value)


def test_splits(tmp_path, saved):
    data = datasets.load_from_disk(saved)
    datasets.DatasetDict(train=data, valid=data.select([0])).save_to_disk(str(tmp_path / "both"))
    options = {"dataset": str(tmp_path / "both"), "columns": COLUMNS}
    assert len(build_source("hf", **options, split="valid")) == 1
    with pytest.raises(UserError, match=r"both: no split 'test'; known: train, valid"):
        build_source("hf", **options, split="test")


def test_a_hub_id_without_the_hub_and_a_folder_without_data(tmp_path):
    with pytest.raises(
        UserError, match=r"^nobody/nothing: no such folder, and no dataset that can be had from the hub"
    ) as caught:
        build_source("hf", dataset="nobody/nothing")
    assert "\n" not in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: cannot be read as a dataset \("):
        build_source("hf", dataset=str(tmp_path / "empty"))


def test_without_the_package_it_is_named(monkeypatch, saved):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'minigpt4\[hf\]'"):
        build_source("hf", dataset=saved)


def test_rows_that_were_selected_or_shuffled_are_the_right_ones(tmp_path, saved):
    chosen = datasets.load_from_disk(saved).select([2, 1])
    chosen.save_to_disk(str(tmp_path / "chosen"))
    source = build_source("hf", dataset=str(tmp_path / "chosen"), columns=COLUMNS)
    assert [colour(source.images(i)[0]) for i in range(2)] == [(0, 0, 255), (0, 128, 0)]


@pytest.mark.parametrize(
    ("labels", "form", "column"),
    [
        ([{"fine": 0}, {"fine": 1}, {"fine": 1}, {"fine": 0}], lambda kind: {"fine": kind}, {"answer": "label.fine"}),
        ([[0], [1, -1], [1], [0]], lambda kind: datasets.List(kind), {"answers": "label"}),
        (
            [{"all": [0]}, {"all": [1]}, {"all": [1]}, {"all": [0]}],
            lambda kind: {"all": datasets.List(kind)},
            {"answers": "label.all"},
        ),
    ],
)
def test_classes_in_structs_and_lists_are_read_by_their_names(tmp_path, labels, form, column):
    """Their numbers were refused as answers that are no text."""
    kind = form(datasets.ClassLabel(names=["a cat", "a dog"]))
    folder = save(tmp_path / "saved", {"img": stored(*COLOURS), "label": labels}, img=datasets.Image(), label=kind)
    source = build_source("hf", dataset=str(folder), columns={"image": "img", **column}, task="caption")
    assert told(source, 4) == ["a cat", "a dog", "a dog", "a cat"]
