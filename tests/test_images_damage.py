"""Pictures damaged in every way: they open or are refused, and nothing else."""

import random
import time

import numpy as np
from PIL import Image
from test_images import ORIENTATION, noise, stored

from minigpt4.errors import UserError
from minigpt4.media.images import decode_image


def samples():
    """One small file of each kind that can be read."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image = noise()
    palette, deep = image.quantize(8), Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    frames = {"save_all": True, "append_images": [noise(seed=1), noise(seed=2)]}
    kinds = [
        (image, "JPEG", {"exif": exif, "icc_profile": bytes(300)}),
        (image, "JPEG", {"progressive": True}),
        (image.convert("CMYK"), "JPEG", {}),
        (image, "PNG", {"exif": exif, "icc_profile": bytes(300)}),
        (palette, "PNG", {"transparency": 3}),
        (deep, "PNG", {}),
        (image, "PNG", frames),
        (image, "GIF", frames),
        (image, "WEBP", {"exif": exif}),
        (image, "WEBP", frames),
        (image, "TIFF", {"exif": exif}),
        (image, "TIFF", {"compression": "tiff_lzw"}),
        (image, "TIFF", {"compression": "jpeg"}),
        (image.convert("F"), "TIFF", {}),
        (image, "MPO", frames),
        *((image, kind, {}) for kind in ("BMP", "AVIF", "PPM", "JPEG2000", "ICO", "TGA", "PCX", "QOI")),
    ]
    return [stored(image, kind, **options) for image, kind, options in kinds]


def spoilt(data, rng):
    """A file with a few bytes changed, a piece taken out, put in twice, or written over."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        where, length = rng.randrange(len(data)), rng.randint(1, 40)
        match rng.randrange(5):
            case 0:
                data[where] = rng.randrange(256)
            case 1:
                data[where] ^= 1 << rng.randrange(8)
            case 2:
                del data[where : where + length]
            case 3:
                data[where:where] = data[where : where + length]
            case 4:
                data[where : where + length] = rng.choice((b"\0", b"\xff", b"\x7f")) * length
        if not data:
            return b"x"
    return bytes(data)


def test_spoilt_files_open_or_are_refused_and_nothing_else():
    rng = random.Random(0)
    files, said, opened = samples(), set(), 0
    until = time.monotonic() + 2
    for _ in range(4000):
        data = spoilt(rng.choice(files), rng)
        try:
            image = decode_image(data, "x")
        except UserError as error:
            said.add(str(error))
        else:
            assert image.mode == "RGB"
            opened += 1
        if time.monotonic() > until:
            break
    assert opened > 50
    assert len(said) > 20
    assert all(text.startswith("x: ") and text.isprintable() for text in said), said
