"""Which files of a folder or an archive are taken for pictures."""

import logging

import pytest
from PIL import Image

from minigpt4.data.formats.tars import image_endings, split_name
from minigpt4.errors import UserError
from minigpt4.media.images import EXTENSIONS, FORMATS, images_in, open_image


def test_every_format_that_is_opened_has_its_names_in_the_list():
    Image.init()
    named = {kind for ending, kind in Image.registered_extensions().items() if ending in EXTENSIONS}
    assert set(FORMATS) - named <= {"AVIF"}  # not every Pillow can


def test_a_folder_gives_all_pictures_that_open_when_named_and_counts_the_others(tmp_path, caplog):
    folder, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    picture = Image.new("RGB", (8, 8), "teal")
    for name, kind in (("a.jfif", "JPEG"), ("b.jp2", "JPEG2000"), ("c.JPE", "JPEG"), ("d.tga", "TGA")):
        picture.save(folder / name, format=kind)
    picture.save(folder / "e.mpo", format="MPO", save_all=True, append_images=[picture])
    picture.save(elsewhere / "f.png")
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(folder)
    (folder / "._a.jfif").write_bytes(b"macOS")
    (folder / "notes.txt").write_text("x")
    with caplog.at_level(logging.WARNING):
        found = images_in([folder])
    assert [path.name for path in found] == ["a.jfif", "b.jp2", "c.JPE", "d.tga", "e.mpo", "f.png"]
    assert all(open_image(path).size == (8, 8) for path in found)
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}: 1 of 7 files are left out, they are no pictures (.txt 1)"
    ]


def test_heic_is_taken_and_says_what_it_needs(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    assert images_in([tmp_path]) == [tmp_path / "a.heic"]
    with pytest.raises(UserError, match=r"a\.heic: "):
        open_image(tmp_path / "a.heic")


def test_archives_have_the_same_list():
    assert image_endings(["jfif", "jp2", "json", "0.mpo"]) == ["jfif", "jp2", "0.mpo"]
    assert split_name("x/._a.jpg")[1] == ""
