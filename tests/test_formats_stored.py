"""Our schema in Parquet and in tars, and web data in tars."""

import gzip
import io
import json
import pickle
import random
import tarfile

import numpy as np
import pytest
from PIL import Image

from minigpt4.data.formats import build_source
from minigpt4.data.mixture import Mixture, Part
from minigpt4.data.source import Source, StreamSource
from minigpt4.errors import UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

BOX = [0.1, 0.2, 0.5, 0.9]


def jpeg(colour) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


def colour(image) -> tuple:
    return image.getpixel((3, 3))


def first(source, index=0):
    return source.sample(index, random.Random(0))


ROWS = [
    {"image": None, "task": "caption", "answers": ["A dog.", "Dogs."]},
    {"image": None, "phrase": "the dog", "boxes": [BOX], "task": "refer"},
    {"image": None, "text": "A dog runs.", "phrases": [{"phrase": "A dog", "boxes": [BOX, [0, 0, 1, 1]]}]},
    {"conversation": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}], "id": "c"},
]


def table(images):
    rows = [row | ({"image": image} if "image" in row else {}) for row, image in zip(ROWS, images, strict=True)]
    keys = dict.fromkeys(key for row in rows for key in row)
    return pa.table({key: [row.get(key) for row in rows] for key in keys})


@pytest.mark.parametrize("form", ["names", "bytes", "structs"])
@pytest.mark.parametrize("groups", [1, 10])
def test_parquet_gives_what_json_lines_give(tmp_path, form, groups):
    colours = ["red", "green", "blue", None]
    for name in filter(None, colours):
        (tmp_path / f"{name}.png").write_bytes(jpeg(name))
    names = [name and f"{name}.png" for name in colours]
    stored = [name and jpeg(name) for name in colours]
    images = {"names": names, "bytes": stored, "structs": [data and {"bytes": data, "path": "x.png"} for data in stored]}[form]
    pq.write_table(table(images), tmp_path / "rows.parquet", row_group_size=groups)
    rows = [row | ({"image": name} if "image" in row else {}) for row, name in zip(ROWS, names, strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = build_source("jsonl", annotations=str(tmp_path / "rows.jsonl"))
    source = build_source("parquet", annotations=str(tmp_path / "rows.parquet"))
    assert isinstance(source, Source)
    assert len(source) == len(lines) == 5
    for i in range(5):
        for seed in range(20):
            assert source.sample(i, random.Random(seed)).turns == lines.sample(i, random.Random(seed)).turns
        here, there = source.images(i), lines.images(i)
        assert len(here) == len(there)
        if here:
            image = here[0] if form != "names" else Image.open(here[0])
            assert colour(image) == colour(Image.open(there[0]))
    assert source.where(1) == f"{tmp_path}/rows.parquet[0]"
    assert list(source.problems()) == []
    again = pickle.loads(pickle.dumps(source))
    assert again.sample(0, random.Random(1)).turns == source.sample(0, random.Random(1)).turns


def test_parquet_rows_with_several_images_and_with_none(tmp_path):
    rows = {
        "question": ["What are <ImageHere> and <ImageHere>?", "And?", "Text?"],
        "answer": ["Two colours.", "One.", "Yes."],
        "images": [
            [{"bytes": jpeg("red"), "path": None}, {"bytes": jpeg("blue"), "path": None}],
            [{"bytes": None, "path": "g.png"}],
            None,
        ],
    }
    (tmp_path / "g.png").write_bytes(jpeg("green"))
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    source = build_source("parquet", annotations=str(tmp_path / "rows.parquet"))
    assert [colour(image) for image in first(source).images] == [(255, 0, 0), (0, 0, 255)]
    assert source.images(1) == (tmp_path / "g.png",)
    assert source.images(2) == ()
    (tmp_path / "g.png").unlink()
    source = build_source("parquet", annotations=str(tmp_path / "rows.parquet"), missing="skip")
    assert len(source) == 2
    assert [p.message for p in source.problems()] == [f"{tmp_path}/rows.parquet[1]: no picture g.png in {tmp_path}"]


@pytest.mark.parametrize(
    ("empty", "says"),
    [
        (b"", "no picture in its cell, which is empty"),
        ({"bytes": b"", "path": "gone.png"}, "no picture in its cell, and no file gone.png that it names"),
    ],
)
def test_parquet_cells_without_a_byte_are_said_with_their_row(tmp_path, empty, says):
    """Statistics count them as pictures that are there."""
    path, whole = tmp_path / "rows.parquet", jpeg("red")
    cells = [whole if isinstance(empty, bytes) else {"bytes": whole, "path": None}, empty]
    pq.write_table(pa.table({"image": cells, "answer": ["one", "two"]}), path)
    source = build_source("parquet", annotations=str(path))
    assert colour(first(source).images[0]) == (255, 0, 0)
    with pytest.raises(UserError, match=rf"rows\.parquet\[1\]: {says}"):
        first(source, 1)
    (tmp_path / "gone.png").write_bytes(whole)
    if isinstance(empty, dict):
        source = build_source("parquet", annotations=str(path))
        assert colour(Image.open(first(source, 1).images[0])) == (255, 0, 0)


def test_parquet_that_is_wrong_is_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"imgae": ["a"], "answer": ["b"]}), path)
    with pytest.raises(UserError, match=r'rows.parquet: unknown column "imgae"; did you mean "image"'):
        build_source("parquet", annotations=str(path))
    pq.write_table(table([jpeg("red"), None, jpeg("red"), None]), path)
    with pytest.raises(UserError, match=r'rows.parquet\[1\]: boxes are about one picture|rows.parquet\[1\]: no "image"'):
        build_source("parquet", annotations=str(path))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"rows.parquet: not a whole Parquet file"):
        build_source("parquet", annotations=str(path))
    pq.write_table(pa.table({"image": [b"nonsense"], "answer": ["b"]}), path)
    with pytest.raises(UserError, match=r"rows.parquet\[0\]: not a picture"):
        first(build_source("parquet", annotations=str(path)))


def write_tar(path, *files, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(path)


def record(key, colour, **row):
    return [(f"{key}.png", jpeg(colour)), (f"{key}.json", json.dumps(row).encode())]


OWN = [
    *record("0001", "red", task="caption", answers=["A dog.", "Dogs."]),
    *record("0002", "green", phrase="the dog", boxes=[BOX], task="refer"),
    ("0003.json", json.dumps({"question": "?", "answer": "!"}).encode()),
    ("0004.0.png", jpeg("blue")),
    ("0004.1.png", jpeg("red")),
    ("0004.json", json.dumps({"question": "Both?", "answer": "Both."}).encode()),
]


def test_a_tar_is_read_in_any_order(tmp_path):
    path = write_tar(tmp_path / "a.tar", *OWN)
    source = build_source("webdataset", shards=path)
    assert isinstance(source, Source)
    assert not isinstance(source, StreamSource)
    assert len(source) == 5
    assert [first(source, i).turns[0].answers[0] for i in (4, 2, 0, 1, 3)] == [
        "Both.",
        "{<10><20><50><90>}",
        "A dog.",
        "Dogs.",
        "!",
    ]
    assert [colour(image) for image in source.images(4)] == [(0, 0, 255), (255, 0, 0)]
    assert [colour(image) for image in first(source).images] == [(255, 0, 0)]
    assert source.where(2) == f"{path}:0002"
    assert first(pickle.loads(pickle.dumps(source)), 2).turns == first(source, 2).turns
    assert list(source.problems()) == []


def test_a_stream_gives_the_same_samples_and_skips_without_reading(tmp_path):
    path = write_tar(tmp_path / "a.tar", *OWN)
    source = build_source("webdataset_stream", shards=f"{tmp_path}/*.tar")
    assert isinstance(source, StreamSource)
    records = list(source.records(source.shards[0]))
    assert [r.key for r in records] == ["0001", "0002", "0003", "0004"]
    for skip in range(6):
        assert list(source.records(path, skip=skip)) == records[skip:]
    assert pickle.loads(pickle.dumps(records[0])) == records[0]
    samples = [source.sample(r, random.Random(0)) for r in records]
    assert {source.sample(records[0], random.Random(seed)).turns[0].answers for seed in range(20)} == {("A dog.",), ("Dogs.",)}
    assert [len(sample.images) for sample in samples] == [1, 1, 0, 2]
    assert samples[1].turns[0].answers == ("{<10><20><50><90>}",)
    together = build_source("webdataset_stream", shards=path, captions="all")
    assert together.sample(records[0], random.Random(0)).turns[0].answers == ("A dog.", "Dogs.")
    # What is skipped is not read: a picture whose bytes are gone does not matter before the place where reading begins.
    assert list(source.problems()) == []


WEB = [
    ("000000001.jpg", jpeg("red")),
    ("000000001.txt", b"A dog (brown). Runs!"),
    (
        "000000001.json",
        json.dumps({"caption": "A dog (brown). Runs!", "url": "x", "key": "000000001", "status": "success"}).encode(),
    ),
    ("000000002.jpg", jpeg("green")),
    ("000000002.txt", b"Only TEXT."),
]


@pytest.mark.parametrize("format", ["cc_sbu", "laion"])
def test_web_captions_are_cleaned_and_nothing_is_asked(tmp_path, format):
    path = write_tar(tmp_path / "00000.tar", *WEB)
    source = build_source(format, shards=f"{tmp_path}/{{00000..00000}}.tar")
    assert source.shards == [path]
    samples = [source.sample(r, random.Random(0)) for r in source.records(path)]
    assert [(s.turns[0].question, s.turns[0].answers) for s in samples] == [("", ("a dog brown runs",)), ("", ("only text",))]
    assert [colour(s.images[0]) for s in samples] == [(255, 0, 0), (0, 128, 0)]
    assert samples[0].id == f"{format}:000000001"
    asked = build_source(format, shards=path, task="caption")
    assert next(asked.sample(r, random.Random(0)) for r in asked.records(path)).turns[0].question.startswith("[caption] ")


def test_incomplete_records_are_told_or_left_out(tmp_path, caplog):
    files = [
        WEB[0],  # a picture without a caption
        *[(name.replace("1", "3"), data) for name, data in WEB[:3]],
        ("000000004.json", b'{"caption": "no picture"}'),
        ("000000005.jpg", jpeg("red")),
        ("000000005.json", b'{"caption": '),
        ("000000006.jpg", jpeg("red")[:40]),
        ("000000006.txt", b"a broken picture"),
    ]
    path = write_tar(tmp_path / "a.tar", *files)
    source = build_source("cc_sbu", shards=path)
    records = list(source.records(path))
    assert len(records) == 5
    expected = [
        (records[0], r"a.tar:000000001: no caption; expected a .json with \"caption\", or a .txt"),
        (records[2], "a.tar:000000004: has 0 pictures next to it in the tar; expected one"),
        (records[3], "a.tar:000000005: .json is not JSON"),
        (records[4], "a.tar:000000006.jpg: .*(damaged|not a picture)"),
    ]
    for bad, message in expected:
        with pytest.raises(UserError, match=message):
            source.sample(bad, random.Random(0))
    assert [p.where.rpartition(":")[2] for p in source.problems()] == ["000000001", "000000004", "000000005"]
    skipping = build_source("cc_sbu", shards=path, missing="skip")
    assert [r.key for r in skipping.records(path)] == ["000000003", "000000006"]
    assert [r.key for r in skipping.records(path, skip=1)] == ["000000006"]
    assert "3 records are left out, the last: " in caplog.text


def test_shards_that_are_cut_short_give_what_is_whole_and_then_say_so(tmp_path, caplog):
    noise = np.random.default_rng(0).integers(0, 256, 3000, dtype=np.uint8).tobytes()
    files = [(f"{i:03d}.{ending}", data) for i in range(5) for ending, data in [("jpg", noise), ("txt", b"a text")]]
    whole = open(write_tar(tmp_path / "whole.tar", *files), "rb").read()
    path = tmp_path / "cut.tar"
    each = 512 + 3072 + 512 + 512  # header and data of the picture, header and data of the text
    for cut, expected in [(2 * each + 700, 2), (2 * each + 100, 2), (3 * each, 3), (len(whole) - 10240 - 5, 5)]:
        path.write_bytes(whole[:cut])
        source = build_source("cc_sbu", shards=str(path))
        seen = []
        with pytest.raises(UserError, match=r"cut.tar: not a whole tar file"):
            seen.extend(r.key for r in source.records(str(path)))
        assert len(seen) in (expected, expected - 1)
        assert [p.kind for p in source.problems()][-1] == "broken shard"
        skipping = build_source("cc_sbu", shards=str(path), missing="skip")
        assert len(list(skipping.records(str(path)))) == len(seen)
        assert "the rest of a shard is left out" in caplog.text
        with pytest.raises(UserError, match=r"cut.tar: not a whole tar file"):
            build_source("webdataset", shards=str(path))
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"cut.tar: not a whole tar file"):
        list(source.records(str(path)))
    path.unlink()
    with pytest.raises(UserError, match=r"cut.tar: cannot be opened"):
        list(source.records(str(path)))
    with pytest.raises(UserError, match=r"cut.tar: no such file; expected WebDataset tars"):
        build_source("cc_sbu", shards=str(path))


def test_compressed_and_remote_shards_are_streamed(tmp_path):
    plain = write_tar(tmp_path / "a.tar", *WEB)
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(open(plain, "rb").read()))
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://shard.tar", "wb") as file:
        file.write(open(plain, "rb").read())
    for shard in (str(packed), "memory://shard.tar"):
        source = build_source("laion", shards=shard)
        assert [r.parts for r in source.records(shard, skip=1)] == [{"jpg": WEB[3][1], "txt": b"Only TEXT."}]
    with pytest.raises(UserError, match=r"a.tar.gz: is compressed"):
        build_source("webdataset", shards=str(packed))
    packed.write_bytes(packed.read_bytes()[:-40])
    with fsspec.open("memory://shard.tar", "wb") as file:
        file.write(open(plain, "rb").read()[: 512 * 8])  # ends with a whole file
    for shard in (str(packed), "memory://shard.tar"):
        with pytest.raises(UserError, match=r"not a whole tar file"):
            list(build_source("laion", shards=shard).records(shard))


def test_rows_in_tars_are_checked_like_lines(tmp_path):
    path = write_tar(
        tmp_path / "a.tar",
        *record("1", "red", answers=[], task="caption"),
        *record("2", "red", image="b.png", answer="x"),
        ("3.png", jpeg("red")),
        *record("4", "red", answer="x"),
        ("5.json", b"{}"),
        ("5.json", b"{}"),
        ("6.json", b'{"answer": "x"}'),
    )
    source = build_source("webdataset", shards=path, malformed="skip")
    assert len(source) == 1
    found = {p.where.rpartition(":")[2]: p.message for p in source.problems()}
    assert list(found) == ["1", "2", "3", "5", "6"]
    assert '"answers" must be a list of texts' in found["1"]
    assert '"image" is for rows that name files' in found["2"]
    assert "has no .json next to it in the tar (there is png)" in found["3"]
    assert "has two files that end in .json" in found["5"]
    assert 'no "image"' in found["6"]
    stream = build_source("webdataset_stream", shards=path)
    assert [p.where.rpartition(":")[2] for p in stream.problems()] == list(found)
    with pytest.raises(UserError, match=r"a.tar:1: \"answers\" must be a list"):
        build_source("webdataset", shards=path)
    refers = build_source("webdataset_stream", shards=path, task="refer")
    assert "serves caption, but the option task asks for 'refer'" in [p.message for p in refers.problems()][3]


def test_files_of_a_record_that_are_not_next_to_each_other(tmp_path):
    files = [("1.jpg", jpeg("red")), ("2.jpg", jpeg("red")), ("1.txt", b"a dog"), ("2.txt", b"a cat")]
    path = write_tar(tmp_path / "a.tar", *files)
    source = build_source("laion", shards=path)
    apart = r"a.tar:1: its files do not follow each other; pack the tar anew, sorted: tar --sort=name"
    with pytest.raises(UserError, match=apart):
        list(source.records(path))
    with pytest.raises(UserError, match=r"a.tar:1: no caption; expected .* next to it in the tar"):
        source.sample(next(source.records(path)), random.Random(0))
    assert [apart[:8] in p.message for p in source.problems()] == [True, False, True, False]
    rows = [(name.replace("txt", "json"), b'{"answer": "a dog"}' if "txt" in name else data) for name, data in files]
    with pytest.raises(UserError, match=r"a.tar:1: has no .json next to it in the tar"):
        build_source("webdataset", shards=write_tar(tmp_path / "a.tar", *rows))


@pytest.mark.parametrize("files", [[], [("1.jpg", b"x"), ("2.jpg", b"x"), ("1.txt", b"a dog"), ("2.txt", b"a cat")]])
def test_a_stream_without_one_usable_record_is_said_so(tmp_path, files):
    source = build_source("laion", shards=write_tar(tmp_path / "a.tar", *files), missing="skip")
    message = "laion: no usable record in any of its 1 shards; minigpt4 data check says what is wrong with them"
    with pytest.raises(UserError, match=message):
        next(iter(Mixture([Part(source, 1.0, 2)], batch=2, mixing="sample", seed=0)))
