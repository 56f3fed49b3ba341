"""Whatever a user calls a picture: it is opened as it looks, or refused in one line."""

import io
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_config, tiny_processor
from PIL import ExifTags, Image, PngImagePlugin

from minigpt4.errors import UserError
from minigpt4.media.images import check_image, decode_image, open_image

ORIENTATION = ExifTags.Base.Orientation


def noise(width=24, height=16, seed=0):
    """A picture in which no two corners, rows or columns are alike, smooth enough to survive JPEG."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def stored(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(image):
    assert image.mode == "RGB"
    return np.asarray(image)


def opened(data, folder, name="picture"):
    """The picture of a file, which is the same as that of its bytes."""
    path = folder / name
    path.write_bytes(data)
    image = open_image(path)
    assert image.tobytes() == decode_image(data, "x").tobytes()
    return image


def message(fault):
    """What is said of it: one line."""
    with pytest.raises(UserError) as caught:
        fault()
    text = str(caught.value)
    assert text.isprintable(), text
    assert len(text) < 700
    return text


def refused(path):
    """What is said of a file, in full and at a glance alike."""
    text = message(lambda: open_image(path))
    assert text == message(lambda: check_image(path))
    return text


# no picture -----------------------------------------------------------------------------------------------------------


def test_what_is_no_image_is_said_in_one_line(tmp_path):
    (tmp_path / "letter.jpg").write_text("Dear Sir,\nplease find attached")
    (tmp_path / "empty.png").touch()
    (tmp_path / "figure.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    expected = {
        "letter.jpg": "not a picture in a format that can be read",
        "empty.png": "the file is empty",
        "figure.eps": "not a picture in a format that can be read",  # Pillow would start Ghostscript
        "phone.heic": "not a picture in a format that can be read (HEIC: convert it to JPEG, or pip install pillow-heif)",
        "nowhere.jpg": "no such file",
        "letter.jpg/inside.jpg": "no such file",
    }
    for name, said in expected.items():
        assert refused(tmp_path / name) == f"{tmp_path / name}: {said}"
    assert refused(tmp_path) == f"{tmp_path}: is a folder, not a picture"
    assert "is a folder" in refused("")
    assert message(lambda: decode_image(b"", "a.tar/1.jpg")) == "a.tar/1.jpg: the picture is empty"
    assert "a.tar/1.heic: not a picture" in message(
        lambda: decode_image((tmp_path / "phone.heic").read_bytes(), "a.tar/1.heic")
    )


def test_names_that_no_file_can_have():
    assert "no such file" in refused("a\0b.jpg")
    for address in ("https://example.com/a.jpg", Path("HTTP://example.com/a.jpg")):
        assert "no such file (nothing is fetched" in refused(address)
    assert refused("two\nlines.jpg") == "two\\nlines.jpg: no such file"
    assert "cannot be read (File name too long)" in refused("x" * 5000)  # a question where the photo should be


def test_neither_pipes_nor_devices_are_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "is no file on disk" in refused(tmp_path / "pipe")
    assert "is no file on disk" in refused(os.devnull)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "private.png"
    noise().save(path)

    def deny(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", deny)
    assert message(lambda: open_image(path)) == f"{path}: cannot be read (Permission denied)"


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("BMP", {})])
def test_cut_short_anywhere_is_an_error_or_no_loss(kind, options, tmp_path):
    data = stored(noise(), kind, **options)
    whole = pixels(opened(data, tmp_path))
    kept = 0
    for length in range(1, len(data)):
        try:
            image = decode_image(data[:length], "cut")
        except UserError:
            pass
        else:  # the end of the file says nothing about the pixels
            np.testing.assert_array_equal(pixels(image), whole)
            kept += 1
    assert kept <= 24
    path = tmp_path / "half.jpg"
    path.write_bytes(data[:-60])
    assert "half.jpg: the picture is damaged or cut short" in message(lambda: open_image(path))
    check_image(path)  # a glance cannot tell


def bomb(width, height):
    """A PNG of one colour: rows of zeros, compressed piece by piece so that the picture never exists."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    row = bytes((width + 7) // 8 + 1)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_a_bomb_is_not_set_off(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(30_000, 30_000))
    assert path.stat().st_size < 200_000
    started = time.monotonic()
    assert "100,000,000 allowed" in refused(path)
    assert time.monotonic() - started < 1  # nothing was decoded
    path.write_bytes(bomb(10_001, 10_000))  # Pillow itself would only warn
    assert refused(path) == f"{path}: 10,001 x 10,000 pixels are more than the 100,000,000 allowed"
    assert decode_image(bomb(3_000, 2_000), "large").size == (3_000, 2_000)


# every kind of pixel --------------------------------------------------------------------------------------------------


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 128, 129], [257, 32768, 65535]], dtype=np.uint16)
    expected = np.array([[0, 0, 1], [1, 128, 255]])  # round(v / 257)
    for kind in ("PNG", "TIFF"):
        assert Image.open(io.BytesIO(stored(Image.fromarray(values), kind))).mode.startswith("I;16")
        found = pixels(opened(stored(Image.fromarray(values), kind), tmp_path))
        np.testing.assert_array_equal(found, np.stack([expected] * 3, axis=-1))
    dark = Image.fromarray(np.array([[0, 100, 255]], dtype=np.uint16))
    assert pixels(opened(stored(dark, "PNG"), tmp_path))[..., 0].tolist() == [[0, 0, 1]]  # dark stays dark


def test_every_sixteen_bit_value_is_rounded_to_the_nearest():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = pixels(open_image(Image.fromarray(values)))[..., 0].astype(float)
    assert np.abs(found - values / 257).max() <= 0.5


def test_sixteen_bits_in_either_byte_order(tmp_path):
    values = np.array([[0, 257, 65535]])
    pgm = b"P5 3 1 65535\n" + values.astype(">u2").tobytes()
    assert pixels(opened(pgm, tmp_path))[..., 0].tolist() == [[0, 1, 255]]
    swapped = Image.frombytes("I;16B", (3, 1), values.astype(">u2").tobytes())
    assert pixels(open_image(swapped))[..., 0].tolist() == [[0, 1, 255]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 127, 255]], dtype=np.int32), [0, 127, 255]),
        (np.array([[-5, 257, 65535]], dtype=np.int32), [0, 1, 255]),
        (np.array([[0, 1 << 30, (1 << 31) - 1]], dtype=np.int32), [0, 128, 255]),
        (np.array([[0, 0.2, 1]], dtype=np.float32), [0, 51, 255]),
        (np.array([[0, 51, 255]], dtype=np.float32), [0, 51, 255]),
        (np.array([[np.nan, -1, 1]], dtype=np.float32), [0, 0, 255]),
        (np.array([[0, 2e5, 4e5]], dtype=np.float32), [0, 128, 255]),
        (np.zeros((1, 3), dtype=np.float32), [0, 0, 0]),
    ],
)
def test_32_bits_and_real_values(values, expected, tmp_path):
    found = pixels(opened(stored(Image.fromarray(values), "TIFF"), tmp_path))
    assert found[..., 0].tolist() == [expected]
    assert (found == found[..., :1]).all()


def test_cmyk_is_what_it_looks_like(tmp_path):
    inks = {
        (0, 255, 255, 0): (255, 0, 0),
        (255, 0, 255, 0): (0, 255, 0),
        (0, 0, 0, 255): (0, 0, 0),
        (0, 0, 0, 0): (255, 255, 255),
    }
    for ink, colour in inks.items():
        image = Image.new("CMYK", (16, 16), ink)
        for kind, options in (("JPEG", {"quality": 100}), ("TIFF", {})):
            data = stored(image, kind, **options)
            assert Image.open(io.BytesIO(data)).mode == "CMYK"
            assert np.abs(pixels(opened(data, tmp_path)).astype(int) - colour).max() <= 2


def test_palette_grey_and_transparency_keep_their_colours(tmp_path):
    palette = Image.new("P", (3, 1))
    palette.putpalette([250, 10, 20, 30, 240, 40, 50, 60, 230])
    for i in range(3):
        palette.putpixel((i, 0), i)
    colours = [[[250, 10, 20], [30, 240, 40], [50, 60, 230]]]
    for transparency in (0, bytes([0, 128, 255])):
        assert pixels(opened(stored(palette, "PNG", transparency=transparency), tmp_path)).tolist() == colours
    assert pixels(opened(stored(palette, "GIF", transparency=1), tmp_path)).tolist() == colours
    clear = np.array([[[9, 8, 7, 0], [90, 80, 70, 128], [200, 100, 50, 255]]], dtype=np.uint8)
    assert pixels(opened(stored(Image.fromarray(clear), "PNG"), tmp_path)).tolist() == clear[..., :3].tolist()
    grey = np.array([[[9, 0], [200, 128]]], dtype=np.uint8)
    assert pixels(opened(stored(Image.fromarray(grey, "LA"), "PNG"), tmp_path)).tolist() == [[[9] * 3, [200] * 3]]
    bits = Image.fromarray(np.array([[True, False]]))
    assert pixels(opened(stored(bits, "PNG"), tmp_path)).tolist() == [[[255] * 3, [0] * 3]]


# frames ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {}), ("AVIF", {})]
)
def test_of_an_animation_the_first_frame(kind, options, tmp_path):
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    frames = [Image.new("RGB", (16, 16), c) for c in colours]
    data = stored(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    image = Image.open(io.BytesIO(data))
    assert image.n_frames == 3
    assert np.abs(pixels(opened(data, tmp_path)).astype(int) - colours[0]).max() <= 4
    # Of an opened file it is the frame that its owner has turned to, and stays so.
    image.seek(2)
    assert np.abs(pixels(open_image(image)).astype(int) - colours[2]).max() <= 4
    assert image.tell() == 2


def test_of_a_stereo_photo_the_first(tmp_path):
    left, right = (Image.new("RGB", (16, 16), colour) for colour in ((200, 0, 0), (0, 0, 200)))
    data = stored(left, "MPO", save_all=True, append_images=[right])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    np.testing.assert_allclose(pixels(opened(data, tmp_path)), np.asarray(left), atol=4)


# the way up -----------------------------------------------------------------------------------------------------------

UPRIGHT = {  # what a viewer does to stored pixels, by hand
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_rotation_is_respected(orientation, kind, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    data = stored(noise(), kind, exif=exif, **options)
    image = opened(data, tmp_path)
    expected = UPRIGHT[orientation](np.asarray(noise()))
    assert pixels(image).shape == expected.shape
    np.testing.assert_allclose(pixels(image), expected, atol=6 if kind == "JPEG" else 0)
    np.testing.assert_array_equal(pixels(open_image(image)), pixels(image))  # not turned twice


def test_sixteen_bits_are_turned_too(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    values = Image.fromarray(np.array([[0, 257], [514, 771], [1028, 1285]], dtype=np.uint16))
    for kind in ("PNG", "TIFF"):
        assert pixels(opened(stored(values, kind, exif=exif), tmp_path))[..., 0].tolist() == [[4, 2, 0], [5, 3, 1]]


def test_senseless_or_damaged_exif_is_ignored(tmp_path):
    for value in (0, 9, 60000):
        exif = Image.Exif()
        exif[ORIENTATION] = value
        np.testing.assert_array_equal(pixels(opened(stored(noise(), "PNG", exif=exif), tmp_path)), np.asarray(noise()))
    for block in (b"Exif\0\0", b"Exif\0\0MM\0*", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense" * 9):
        np.testing.assert_array_equal(pixels(opened(stored(noise(), "PNG", exif=block), tmp_path)), np.asarray(noise()))


# what is stored beside the pixels, and shapes ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_huge_colour_profile_is_no_obstacle(kind, tmp_path):
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    data = stored(noise(), kind, icc_profile=os.urandom(3_000_000), **options)
    np.testing.assert_allclose(pixels(opened(data, tmp_path)), np.asarray(noise()), atol=6 if kind == "JPEG" else 0)


def test_a_compressed_comment_is_read_up_to_a_limit(tmp_path):
    comment = PngImagePlugin.PngInfo()
    comment.add_text("story", "once upon a time " * 100_000, zip=True)
    np.testing.assert_array_equal(pixels(opened(stored(noise(), "PNG", pnginfo=comment), tmp_path)), np.asarray(noise()))
    comment.add_text("bomb", "x" * 70_000_000, zip=True)
    assert "damaged or cut short" in message(lambda: decode_image(stored(noise(), "PNG", pnginfo=comment), "x"))


def test_progressive_equals_baseline(tmp_path):
    plain, progressive = (opened(stored(noise(), "JPEG", progressive=p), tmp_path) for p in (False, True))
    np.testing.assert_array_equal(pixels(plain), pixels(progressive))


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (5000, 3000)])
def test_any_shape_becomes_what_the_vision_takes(size, tmp_path):
    path = tmp_path / "plain.png"
    Image.new("RGB", size, (10, 130, 250)).save(path)
    processor = tiny_processor(tiny_config()).image_processor
    assert pixels(open_image(path)).shape == (size[1], size[0], 3)
    resized = processor.resize(path)
    assert resized.shape == (processor.size, processor.size, 3)
    assert (resized == (10, 130, 250)).all()


def test_the_callers_image_is_left_alone():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image = Image.open(io.BytesIO(stored(noise(), "PNG", exif=exif)))
    first, second = open_image(image), open_image(image)
    np.testing.assert_array_equal(pixels(first), pixels(second))
    assert image.size == (24, 16)
    assert image.getexif()[ORIENTATION] == 6
    plain = noise()
    assert open_image(plain) is not plain  # what is drawn on the one is not seen on the other
