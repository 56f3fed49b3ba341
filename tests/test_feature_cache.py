"""The feature cache: what is kept is what would be computed, through kills and changes."""

import json
import os
import pickle
import random

import pytest
import shapes
import torch
from conftest import tiny_model, tiny_processor
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minigpt4 import UserError
from minigpt4.model import feature_cache
from minigpt4.model.feature_cache import FeatureCache, pixels_of


@pytest.fixture
def images(tmp_path):
    shapes.write(tmp_path / "pictures", 5)
    return sorted((tmp_path / "pictures").glob("*.png"))


def opened(model, folder):
    return FeatureCache(model, tiny_processor(model.config).image_processor, folder)


def filled(model, folder, images):
    cache = opened(model, folder)
    cache.add(cache.missing([(p, False) for p in images] + [(images[0], True)]))
    return cache


@pytest.mark.parametrize("kind", ["concat", "qformer"])
def test_cached_equals_computed(kind, tmp_path, images):
    model = tiny_model(kind)
    model.vision_tower.requires_grad_(False)
    model.connector.requires_grad_(False)
    cache = filled(model, tmp_path / "cache", images)
    assert cache.stage == {"concat": "vision_tokens", "qformer": "connector_features"}[kind]
    again = opened(model, tmp_path / "cache")
    assert not again.missing([(p, False) for p in images])
    for image, mirrored in [(images[0], False), (images[3], False), (images[0], True)]:
        kept = again.get(image, mirrored)[None]
        pixels = pixels_of(again.image_processor, image, mirrored)[None]
        computed = model.get_image_features(pixels)
        torch.testing.assert_close(model.get_image_features(**{cache.stage: kept}), computed, atol=1e-5, rtol=1e-5)
    assert not torch.equal(again.get(images[0]), again.get(images[0], True))


def test_of_a_vision_whose_channels_change_only_the_vision_is_kept(tmp_path):
    model = tiny_model("qformer")
    model.requires_grad_(False)
    cache = FeatureCache(model, tiny_processor(model.config).image_processor, tmp_path, connector_varies=True)
    assert cache.stage == "vision_tokens"


def test_a_image_is_known_by_its_content(tmp_path, images):
    model = tiny_model()
    cache = filled(model, tmp_path / "cache", images)
    moved = tmp_path / "elsewhere.png"
    moved.write_bytes(images[2].read_bytes())
    assert torch.equal(cache.get(moved), cache.get(images[2]))
    Image.new("RGB", (32, 32)).save(moved)
    assert [image for _, image, _ in cache.missing([(moved, False)])] == [moved]
    in_memory = Image.new("RGB", (40, 40), "red")
    cache.add(cache.missing([(in_memory, False)]))
    assert cache.get(Image.new("RGB", (40, 40), "red")).shape == cache.get(images[0]).shape


def test_another_vision_or_image_size_has_another_cache(tmp_path, images):
    model = tiny_model()
    folder = filled(model, tmp_path, images).folder
    assert opened(model, tmp_path).folder == folder
    with torch.no_grad():
        model.vision_tower.encoder.layers[0].mlp.fc1.weight.add_(1)
    assert opened(model, tmp_path).folder != folder


def test_what_a_kill_cuts_short_does_not_count(tmp_path, images):
    model = tiny_model()
    cache = filled(model, tmp_path, images)
    expected = cache.get(images[0])
    rows, index = cache.folder / "rows-0.bin", cache.folder / "rows-0.jsonl"
    rows.write_bytes(rows.read_bytes()[:-10])  # the last row's end is missing
    index.write_text(index.read_text() + '{"key": "ab')  # and so is the end of a line
    del cache
    again = opened(model, tmp_path)
    missing = again.missing([(p, False) for p in images] + [(images[0], True)])
    assert len(missing) == 1
    again.add(missing)
    last = opened(model, tmp_path)
    assert not last.missing([(p, False) for p in images] + [(images[0], True)])
    assert torch.equal(last.get(images[0]), expected)


def test_two_writers_have_files_of_their_own(tmp_path, images):
    model = tiny_model()
    first, second = opened(model, tmp_path), opened(model, tmp_path)
    first.add(first.missing([(images[0], False)]))
    second.add(second.missing([(images[1], False)]))
    first.add(first.missing([(images[2], False)]))
    assert {p.name for p in first.folder.glob("*.bin")} == {"rows-0.bin", "rows-1.bin"}
    first.refresh()
    assert torch.equal(first.get(images[1]), second.get(images[1]))


def test_a_reader_travels_to_other_processes(tmp_path, images):
    cache = filled(tiny_model(), tmp_path, images)
    sent = pickle.loads(pickle.dumps(cache))
    assert sent.model is None
    assert torch.equal(sent.get(images[4]), cache.get(images[4]))


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.booleans()), min_size=1, max_size=12))
def test_any_writers_in_any_order_leave_right_rows(tmp_path_factory, steps):
    """Writers come, add, close and come again; whoever reads afterwards reads what it would compute."""
    folder = tmp_path_factory.mktemp("cache")
    torch.manual_seed(0)
    model = tiny_model()
    pictures = [shapes.draw(*thing, random.Random(i)) for i, thing in enumerate(shapes.things(5))]
    writers: dict[int, FeatureCache] = {}
    for number, which, stays in steps:
        cache = writers.setdefault(number, opened(model, folder))
        some = [(pictures[which], False), (pictures[(which + number) % 5], False)]
        cache.add([(cache.key(image), image, False) for image, _ in some])  # known or not: nobody looked before
        if not stays:
            del writers[number], cache
    last = opened(model, folder)
    assert not last.missing([(pictures[which], False) for _, which, _ in steps])
    for _, which, _ in steps:
        computed = last.look(pixels_of(last.image_processor, pictures[which], False)[None])[0]
        torch.testing.assert_close(last.get(pictures[which]), computed, atol=1e-5, rtol=1e-5)
    lines = [line for file in last.folder.glob("rows-*.jsonl") for line in file.read_text().splitlines()]
    assert len({json.loads(line)["key"] for line in lines}) == len(lines)  # nobody wrote what was there


@pytest.mark.parametrize("damage", ["a flipped bit", "zeros", "cut short"])
def test_damaged_rows_are_seen_and_made_anew(tmp_path, images, damage):
    model = tiny_model()
    cache = filled(model, tmp_path, images)
    expected = cache.get(images[1]).clone()
    rows = cache.folder / "rows-0.bin"
    data, size = bytearray(rows.read_bytes()), rows.stat().st_size // 6
    place = next(
        json.loads(line)["row"]
        for line in (cache.folder / "rows-0.jsonl").read_text().splitlines()
        if cache.key(images[1]) in line
    )
    if damage == "a flipped bit":
        data[place * size + 5] ^= 4
    elif damage == "zeros":
        data[place * size : (place + 1) * size] = bytes(size)
    else:
        del data[place * size + 3 :]
    rows.write_bytes(data)
    again = opened(model, tmp_path)
    if damage != "cut short":
        with pytest.raises(UserError, match=rf"rows-0\.bin: row {place} is damaged; start again"):
            again.get(images[1])
        again = opened(model, tmp_path)
    todo = again.missing([(p, False) for p in images])
    assert again.key(images[1]) in {key for key, *_ in todo}
    again.add(todo)
    torch.testing.assert_close(opened(model, tmp_path).get(images[1]), expected, atol=1e-5, rtol=1e-5)


def test_a_damaged_row_that_cannot_be_noted_is_said_with_a_way_out(tmp_path, images):
    model = tiny_model()
    cache = filled(model, tmp_path, images)
    rows = cache.folder / "rows-0.bin"
    rows.write_bytes(bytes(rows.stat().st_size))
    (cache.folder / "damaged.jsonl").mkdir()  # as on a read-only disk, where root too cannot write
    with pytest.raises(UserError, match=r"is damaged, and that cannot be noted there .*data\.cache_features=false"):
        opened(model, tmp_path).get(images[1])


def test_stray_files_and_broken_lines_are_passed_over(tmp_path, images):
    model = tiny_model()
    cache = filled(model, tmp_path, images)
    expected = cache.get(images[0])
    (cache.folder / "rows-x.jsonl").write_text("hello\n")
    (cache.folder / "rows-7.jsonl").write_text('{"key": 3}\n')
    (cache.folder / "rows-8.jsonl").mkdir()
    (cache.folder / "rows-8.bin").write_bytes(b"")
    (cache.folder / "damaged.jsonl").write_text('{"file": [], "row": {}}\n')
    with (cache.folder / "rows-0.jsonl").open("ab") as index:
        index.write(b'[]\n{"key": "a"}\n' + b"[" * 100_000 + b"\n\xff\xfe\n{")
    again = opened(model, tmp_path)
    assert torch.equal(again.get(images[0]), expected)
    assert not again.missing([(p, False) for p in images])


def test_every_image_goes_through_one_door(tmp_path, images):
    cache = filled(tiny_model(), tmp_path / "cache", images)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for wrong in (tmp_path / "pipe", tmp_path, tmp_path / "loop", tmp_path / "gone.png", "/dev/zero", "a\0b"):
        with pytest.raises(UserError):
            cache.key(wrong)
    kept = cache.get(images[0])
    images[0].unlink()  # its features are there, and it was seen before
    assert torch.equal(cache.get(images[0]), kept)
    Image.new("RGB", (9, 9)).save(images[1])
    with pytest.raises(UserError, match="was changed after its features were kept"):
        cache.get(images[1])


def test_an_image_that_changes_while_it_is_looked_at_is_not_kept(tmp_path, images, monkeypatch):
    """Its key would stand for what another image shows."""
    model = tiny_model()
    cache = opened(model, tmp_path)
    todo = cache.missing([(images[0], False)])
    plain = feature_cache.pixels_of

    def late(*given):
        Image.new("RGB", (20, 20), "blue").save(images[0])
        return plain(*given)

    before = images[0].read_bytes()
    monkeypatch.setattr(feature_cache, "pixels_of", late)
    with pytest.raises(UserError, match="was changed while it was looked at"):
        cache.add(todo)
    images[0].write_bytes(before)
    assert opened(model, tmp_path).missing([(images[0], False)])


def test_what_was_read_of_an_index_is_not_read_again(tmp_path, images, monkeypatch):
    """Every few images that were added took a reading of all lines, and all bytes, that were there before."""
    model = tiny_model()
    read = []
    plain = feature_cache.rows_after

    def counted(path, start):
        rows, place = plain(path, start)
        read.append(len(rows))
        return rows, place

    monkeypatch.setattr(feature_cache, "rows_after", counted)
    one, other = opened(model, tmp_path), opened(model, tmp_path)
    for number, image in enumerate(images):
        cache = (one, other)[number % 2]
        cache.add(cache.missing([(image, False)]))
    one.refresh()
    assert not one.missing([(image, False) for image in images])
    assert sum(read) <= 2 * len(images)  # each of two reads each line once
    index = one.folder / "rows-0.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    index.write_text("".join(lines[1:]))  # not what it was: all of it is read
    one.refresh()
    assert len(one.missing([(image, False) for image in images])) == 1
    (tmp_path / "copy").write_text("".join(lines))
    (tmp_path / "copy").replace(index)
    one.refresh()
    assert not one.missing([(image, False) for image in images])
