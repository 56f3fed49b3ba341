"""Encoded images on disk: another process finds them, another model does not; what is wrong with the disk costs no answer."""

import os
import random
import threading

import pytest
import shapes
import torch
from conftest import tiny_folder, tiny_model, tiny_processor

from minigpt4 import UserError, load
from minigpt4.engine.images import ImageCache
from minigpt4.inference import image_disk
from minigpt4.inference.image_disk import ImageDisk, bytes_of

PHOTOS = [shapes.draw(*thing, random.Random(i)) for i, thing in enumerate(shapes.things(6))]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIGPT4_CACHE", str(tmp_path / "cache"))


def model_of(seed):
    torch.manual_seed(seed)
    return tiny_model()


def new(model, most=10**9):
    """What a new process begins with."""
    return ImageCache(model.get_image_features, tiny_processor(model.config), 10**9, ImageDisk(model, most))


def same(one, other):
    return all(a.key == b.key and torch.equal(a.embeds, b.embeds) for a, b in zip(one, other, strict=True))


def test_the_next_process_encodes_nothing(tmp_path):
    model, images = model_of(0), [*PHOTOS[:3], PHOTOS[1]]
    first, again = new(model), new(model_of(0))
    told, plain = first.encode(images), ImageCache(model.get_image_features, tiny_processor(model.config), 0).encode(images)
    again.features = None  # not even once
    assert same(told, plain)
    assert same(again.encode(images), plain)
    assert (first.misses, again.misses) == (3, 0)
    assert (first.hits, again.hits) == (0, 4)
    assert len(list((tmp_path / "cache/images").glob("*/*"))) == 3


@pytest.mark.parametrize("part", ["vision_tower", "projection", "dtype"])
def test_another_model_finds_nothing(part):
    new(model_of(0)).encode(PHOTOS)
    other = model_of(0)
    if part == "dtype":
        other = other.bfloat16()
    else:
        with torch.no_grad():
            next(getattr(other, part).parameters()).flatten()[0] += 1e-3
    cache = new(other)
    plain = ImageCache(other.get_image_features, tiny_processor(other.config), 0).encode(PHOTOS)
    assert same(cache.encode(PHOTOS), plain)
    assert cache.misses == len(PHOTOS)


def test_damaged_files_are_made_anew(tmp_path):
    model = model_of(0)
    told = new(model).encode(PHOTOS[:4])
    files = sorted((tmp_path / "cache/images").glob("*/*"))
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[:-1])
    files[1].write_bytes(b"")
    files[2].unlink()
    cache = new(model)
    assert same(cache.encode(PHOTOS[:4]), told)
    assert cache.misses == 3
    assert files[0].read_bytes() == whole


def test_there_is_a_limit_and_the_least_recently_used_go_first(tmp_path):
    def files():
        return list((tmp_path / "cache/images").glob("*/*"))

    def known(image):
        cache = new(model)
        cache.encode([image])
        return bool(cache.hits)

    model = model_of(0)
    new(model).encode(PHOTOS[:3])
    size = max(path.stat().st_size for path in files())
    for path in files():
        os.utime(path, (1, 1))
    new(model).encode(PHOTOS[:1])  # used again
    for image in PHOTOS[3:]:
        new(model, 4 * size).encode([image])
        assert sum(path.stat().st_size for path in files()) <= 4 * size
    assert len(files()) == 4
    assert [known(PHOTOS[number]) for number in (0, 3, 4, 5, 1, 2)] == [True] * 4 + [False] * 2


def test_two_at_once(tmp_path):
    model = model_of(0)
    plain = ImageCache(model.get_image_features, tiny_processor(model.config), 0).encode(PHOTOS)
    told = [None] * 4

    def work(number):
        told[number] = new(model, 3000).encode(PHOTOS)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in told:  # who finds some encodes a smaller batch, which may change the last digit
        for own, other in zip(one, plain, strict=True):
            torch.testing.assert_close(own.embeds, other.embeds)
    assert not list((tmp_path / "cache/images").glob("*/.*"))


def test_a_cache_that_may_only_be_read_is_read(monkeypatch):
    model = model_of(0)
    new(model).encode(PHOTOS[:2])

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(image_disk.os, "utime", refused)
    cache = new(model)
    cache.encode(PHOTOS[:2])
    assert cache.misses == 0


def test_a_disk_that_is_full_costs_no_answer(monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_disk, "save_file", full)
    cache = new(model_of(0))
    assert len(cache.encode(PHOTOS)) == len(PHOTOS)
    assert caplog.text.count("No space left on device") == 1


def test_it_is_asked_for_by_a_size(tmp_path, monkeypatch):
    folder = tiny_folder(tmp_path / "system")
    plain = load(folder, backend="torch").ask(PHOTOS[0], "what?", max_new_tokens=5)
    assert not (tmp_path / "cache/images").exists()
    monkeypatch.setenv("MINIGPT4_IMAGE_CACHE", "1.5 MB")
    for known in (0, 1):
        system = load(folder, backend="torch")
        assert system.ask(PHOTOS[0], "what?", max_new_tokens=5) == plain
        assert system.engine.images.hits == known
    monkeypatch.setenv("MINIGPT4_IMAGE_CACHE", "much")
    with pytest.raises(
        UserError, match=r"^MINIGPT4_IMAGE_CACHE must be a number with KB, MB, GB or TB behind it, like 2GB, not 'much'"
    ):
        load(folder)


@pytest.mark.parametrize(("size", "count"), [("7", 7), ("2GB", 2 * 10**9), (" 1.5 mb ", 1_500_000), ("10 KB", 10_000)])
def test_sizes(size, count):
    assert bytes_of(size, "x") == count
