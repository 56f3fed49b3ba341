"""Opening pictures of any kind, safely, as upright RGB."""

import io
import os
import warnings
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import UserError

PictureLike: TypeAlias = str | os.PathLike | Image.Image

MAX_PIXELS = 100_000_000  # a 100-megapixel photo takes 300 MB as RGB; anything above is refused, not opened
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif"})


def open_picture(picture: PictureLike) -> Image.Image:
    """The picture as upright RGB.

    EXIF rotation is applied, 16-bit values are scaled to 8 bits, of an animation the first frame is taken, and
    transparency is dropped (as the published systems do).

    Raises:
        UserError: there is no such file, it is a folder, empty, truncated, too large, or not a picture.
    """
    if isinstance(picture, Image.Image):
        return _upright_rgb(picture)
    path = Path(picture)
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not a picture")
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty")
    return _decode(path, str(path))


def decode_picture(data: bytes, name: str) -> Image.Image:
    """A picture that is stored in something else (an archive, a table) as upright RGB; `name` says in messages which."""
    if not data:
        raise UserError(f"{name}: the picture is empty")
    return _decode(io.BytesIO(data), name)


def _decode(file: Path | io.BytesIO, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; we decide by MAX_PIXELS below
            with Image.open(file) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise UserError(f"{name}: {width} x {height} pixels are more than the {MAX_PIXELS:,} allowed")
                return _upright_rgb(image)
    except Image.DecompressionBombError:
        raise UserError(f"{name}: more pixels than the {MAX_PIXELS:,} allowed") from None
    except UnidentifiedImageError:
        raise UserError(f"{name}: not a picture in a format that can be read") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{name}: the picture is damaged or cut short ({error})") from None


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.seek(0)
    if image.mode.startswith("I") or image.mode == "F":  # 16 or 32 bits a pixel: Pillow's convert would clip them
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        image_8bit = Image.fromarray((values.clip(0, top) * (255.0 / top)).round().astype(np.uint8))
        image_8bit.info = image.info
        image = image_8bit
    return ImageOps.exif_transpose(image).convert("RGB")
