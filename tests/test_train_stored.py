"""Training from every format that stores rows and images together or apart, with features kept and computed."""

import gc
import io
import json
import random
import tarfile

import pytest
import shapes
import torch
from conftest import tiny_folder
from PIL import Image

from minigpt4.data.formats import SOURCES, Published
from minigpt4.model.feature_cache import FeatureCache
from minigpt4.train.loop import train
from minigpt4.train.recipe import parse_recipe

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
datasets = pytest.importorskip("datasets")

STREAMS = {"webdataset_stream", "cc_sbu"}
STREAMED = {*STREAMS, "hf streamed"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny system, and the same four captioned images in each way of storing them."""
    folder = tmp_path_factory.mktemp("stored")
    torch.manual_seed(0)
    tiny_folder(folder / "base")
    names, images, captions = [], [], []
    with tarfile.open(folder / "rows.tar", "w") as rows, tarfile.open(folder / "web.tar", "w") as web:
        for i, thing in enumerate(shapes.things(4)):
            names.append(f"{i}.png")
            captions.append(" ".join(thing))
            shapes.draw(*thing, random.Random(i)).save(folder / names[i])
            images.append((folder / names[i]).read_bytes())
            text = json.dumps({"task": "caption", "answer": captions[i]}).encode()
            for tar, name, data in (
                (rows, names[i], images[i]),
                (rows, f"{i}.json", text),
                (web, names[i], images[i]),
                (web, f"{i}.txt", captions[i].encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    answers = {"task": ["caption"] * 4, "answer": captions}
    pq.write_table(pa.table({"image": names} | answers), folder / "names.parquet")
    pq.write_table(pa.table({"image": images} | answers), folder / "bytes.parquet")
    table = [dict(zip(["image", *answers], row, strict=True)) for row in zip(names, *answers.values(), strict=True)]
    table_of = datasets.Dataset.from_dict({"img": [{"bytes": image, "path": None} for image in images], "said": captions})
    table_of.cast_column("img", datasets.Image()).save_to_disk(str(folder / "saved"))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    return folder


def dataset(world, stored):
    hub = {"format": "hf", "dataset": str(world / "saved"), "columns": {"image": "img", "answer": "said"}, "task": "caption"}
    return {
        "jsonl": {"format": "jsonl", "annotations": str(world / "rows.jsonl")},
        "parquet of names": {"format": "parquet", "annotations": str(world / "names.parquet")},
        "parquet of images": {"format": "parquet", "annotations": str(world / "bytes.parquet")},
        "webdataset": {"format": "webdataset", "shards": str(world / "rows.tar")},
        "webdataset_stream": {"format": "webdataset_stream", "shards": str(world / "rows.tar")},
        "cc_sbu": {"format": "cc_sbu", "shards": str(world / "web.tar")},
        "hf": hub,
        "hf streamed": hub | {"streaming": True},
    }[stored]


def losses(world, folder, stored, cached, mirror=False):
    recipe = {
        "model": {"base": str(world / "base"), "fresh": ["projection"]},
        "data": {
            "datasets": [dataset(world, stored) | {"mirror": mirror}],
            "batch": 4,
            "cache_features": cached,
            "cache_folder": str(folder / "cache"),
        },
        "validation": {"datasets": [] if stored in STREAMED else [dataset(world, stored)], "every": 2},
        "steps": 2,
        "precision": "fp32",
        "output": str(folder / "out"),
    }
    train(parse_recipe(recipe, "test"))
    rows = [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]
    return [row[key] for row in rows for key in ("loss", "valid_loss") if key in row]


@pytest.mark.parametrize("stored", ["jsonl", "parquet of names", "parquet of images", "webdataset", "hf", *sorted(STREAMED)])
def test_every_stored_format_is_trained_from_with_and_without_cache(world, tmp_path, stored):
    found = {cached: losses(world, tmp_path / str(cached), stored, cached, mirror=True) for cached in ("auto", True, False)}
    assert (tmp_path / "auto" / "cache").exists() == (stored not in STREAMED)
    assert not (tmp_path / "False" / "cache").exists()
    assert found["auto"] == found[True] == pytest.approx(found[False], rel=1e-4)


def test_no_stored_format_is_forgotten():
    """Formats of our own rows and of streams; the published ones but for web data are JSON beside image files."""
    stored = {name for name, kind in SOURCES.items() if not isinstance(kind, Published)}
    assert stored == {"jsonl", "parquet", "webdataset", "hf", *STREAMS, "laion"}  # laion is cc_sbu by another name
    assert SOURCES["laion"] is SOURCES["cc_sbu"]


def test_images_stored_in_rows_are_not_all_in_memory_at_once(world, tmp_path, monkeypatch):
    """The cache is filled some images at a time, whatever the dataset's size; each is looked at once."""
    data = (world / "0.png").read_bytes()
    rows = [shapes.draw(*thing, random.Random(i)) for i, thing in enumerate(shapes.things(60))]
    stored = []
    for image in rows:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        stored += [buffer.getvalue(), data]  # every other one is the same
    pq.write_table(pa.table({"image": stored, "answer": ["x"] * len(stored)}), tmp_path / "many.parquet")
    added: list[int] = []
    alive: list[int] = []
    plain = FeatureCache.add

    def images_alive():
        gc.collect()
        return sum(issubclass(type(thing), Image.Image) for thing in gc.get_objects())

    def add(self, items):
        alive.append(images_alive())
        added.append(len(items))
        plain(self, items)

    monkeypatch.setattr(FeatureCache, "add", add)
    given = {"model": {"base": str(world / "base")}, "steps": 1, "precision": "fp32", "output": str(tmp_path / "out")}
    rows = {"format": "parquet", "annotations": str(tmp_path / "many.parquet")}
    given["data"] = {"datasets": [rows], "batch": 2, "cache_features": True, "cache_folder": str(tmp_path / "cache")}
    others = images_alive()  # of tests before this one
    train(parse_recipe(given, "test"))
    assert sum(added) == len({*stored})
    assert max(alive) - others < 40
