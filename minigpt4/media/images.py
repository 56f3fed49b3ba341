"""Opening pictures of any kind, safely, as upright RGB."""

import contextlib
import hashlib
import io
import logging
import os
import stat
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from ..errors import UserError

log = logging.getLogger(__name__)

ImageInput: TypeAlias = str | os.PathLike | Image.Image
Part: TypeAlias = tuple[float, float, float, float]
"""A part of a picture: left, top, right and bottom as shares of its sides."""

MAX_PIXELS = 100_000_000  # a 100-megapixel photo takes 300 MB as RGB; anything above is refused, not opened
EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .gif .tif .tiff .bmp .dib .avif .ppm .pgm .pbm .pnm .pfm .jp2 .j2k .jpf .jpx "
    ".j2c .ico .tga .pcx .psd .qoi .heic .heif .hif".split()
)
"""Names of pictures in folders and archives: one for each format below, and HEIC, which is opened where `pillow_heif` is there
and else said to need it."""
# What cameras, phones, scanners, screens and datasets write. The others that Pillow knows are left out: some of them run
# programs (EPS), the rest are of interest to nobody but those who look for holes.
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "TIFF",
    "BMP",
    "DIB",
    "AVIF",
    "PPM",
    "JPEG2000",
    "ICO",
    "TGA",
    "PCX",
    "PSD",
    "QOI",
)

_MAX_COMMENT = 64 * 1024 * 1024  # bytes of text or colour profile in a PNG; Pillow's 1 MB is less than some profiles have
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, _MAX_COMMENT)
PngImagePlugin.MAX_TEXT_MEMORY = max(PngImagePlugin.MAX_TEXT_MEMORY, _MAX_COMMENT)


def open_image(image: ImageInput) -> Image.Image:
    """The picture as upright RGB.

    EXIF rotation is applied, values of more than 8 bits are scaled to 8, of a file with several frames the first is taken,
    and transparency is dropped (as the published systems do).

    Raises:
        UserError: there is no such file, it is a folder, empty, truncated, too large, or not a picture.
    """
    if isinstance(image, Image.Image):
        return _upright_rgb(image)
    with _opened(regular_file(image), _named(image)) as opened:
        return _upright_rgb(opened)


def part_of_image(image: ImageInput, part: Part) -> Image.Image:
    """A part of a picture, a pixel at least."""
    whole = open_image(image)
    left, top, right, bottom = (round(share * side) for share, side in zip(part, whole.size * 2, strict=True))
    left, top = min(left, whole.width - 1), min(top, whole.height - 1)
    return whole.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def check_image(image: ImageInput) -> None:
    """The same errors without the work of decoding, as far as a file's beginning tells: one that is cut short passes."""
    if not isinstance(image, Image.Image):
        with _opened(regular_file(image), _named(image)):
            pass


def decode_image(data: bytes, name: str, most_pixels: int = MAX_PIXELS) -> Image.Image:
    """A picture that is stored in something else (an archive, a table, a request) as upright RGB.

    Args:
        name: says in messages which.
        most_pixels: more are refused before anything is decoded.
    """
    if not data:
        raise UserError(f"{name}: the picture is empty")
    with _opened(io.BytesIO(data), name, most_pixels) as image:
        return _upright_rgb(image)


def image_digest(image: ImageInput) -> str:
    """SHA-256 of an image: of its file's bytes, or, if it is in memory, of its size and pixels. Raises UserError where there is
    no file to read."""
    if isinstance(image, Image.Image):
        rgb = open_image(image)
        return hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).hexdigest()
    try:
        with regular_file(image).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{_named(image)}: cannot be read ({error.strerror})") from None


def regular_file(image: str | os.PathLike) -> Path:
    """The path of an image file: the door that every file goes through before it is read.

    Raises:
        UserError: there is none, or it is a folder, a pipe, a device, or empty.
    """
    path, name = Path(image), _named(image)
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        is_address = name.lower().startswith(("http:/", "https:/"))  # one stroke: as a Path, the other one is gone
        remedy = " (nothing is fetched: save the picture, and name its file)" if is_address else ""
        raise UserError(f"{name}: no such file{remedy}") from None
    except OSError as error:  # no permission, a name that is too long
        raise UserError(f"{name}: cannot be read ({error.strerror})") from None
    except ValueError:  # a name that no file can have
        raise UserError(f"{name}: no such file") from None
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{name}: is a folder, not a picture")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{name}: is no file on disk; save the picture first")
    if status.st_size == 0:
        raise UserError(f"{name}: the file is empty")
    return path


def _named(image: str | os.PathLike) -> str:
    """A file's name for a one-line message: nothing unprintable, nothing endless."""
    name = os.fspath(image) or "''"
    name = name if name.isprintable() else repr(name)[1:-1]
    return name if len(name) <= 300 else f"{name[:140]} ... {name[-140:]}"


@contextmanager
def _opened(file: Path | io.BytesIO, name: str, most_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The picture in a file; whatever goes wrong while it is read is the picture's fault and is said so."""
    start = b""
    try:
        # Given a name, Pillow maps some files into memory, and then scrambles rotated grey TIFFs; it is given the open file.
        with file.open("rb") if isinstance(file, Path) else file as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; we decide below
            start = stream.read(12)
            stream.seek(0)
            with Image.open(stream, formats=_formats(start)) as image:
                width, height = image.size
                if width * height > most_pixels:
                    raise UserError(f"{name}: {width:,} x {height:,} pixels are more than the {most_pixels:,} allowed")
                yield image
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise UserError(f"{name}: more pixels than the {most_pixels:,} allowed") from None
    except UnidentifiedImageError:
        remedy = " (HEIC: convert it to JPEG, or pip install pillow-heif)" if _is_heic(start) else ""
        raise UserError(f"{name}: not a picture in a format that can be read{remedy}") from None
    except OSError as error:
        if error.errno is None:  # Pillow's own
            raise UserError(f"{name}: the picture is damaged or cut short ({_line(error)})") from None
        raise UserError(f"{name}: cannot be read ({error.strerror})") from None
    except MemoryError:
        raise UserError(f"{name}: the picture needs more memory than there is") from None
    except Exception as error:  # of a damaged file, Pillow's readers may raise anything
        raise UserError(f"{name}: the picture is damaged or cut short ({_line(error)})") from None


def _is_heic(start: bytes) -> bool:
    return start[4:8] == b"ftyp" and start[8:11] in (b"hei", b"hev", b"mif", b"msf")


def _formats(start: bytes) -> tuple[str, ...]:
    """Formats to try on a file that begins so: HEIC needs a plugin of Pillow."""
    if _is_heic(start):
        with contextlib.suppress(ImportError):
            import pillow_heif  # type: ignore[import-not-found,import-untyped,unused-ignore]

            pillow_heif.register_heif_opener()
            return (*FORMATS, "HEIF")
    return FORMATS


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # its EXIF block is damaged, which is no reason not to look at it
        upright = image.copy()
    if upright.mode.startswith("I") or upright.mode == "F":
        upright = Image.fromarray(_eight_bits(np.asarray(upright), upright.mode))
    return upright if upright.mode == "RGB" else upright.convert("RGB")


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Grey values of 16 or 32 bits, or real ones, as bytes; Pillow's own conversion would clip them.

    A mode of 16 bits says itself what white is. The others do not: it is the least of 1 (real values alone), 255, 65535 that
    no value exceeds, or the largest value.
    """
    if mode.startswith("I;16"):  # round(v / 257) in 16 bits: 65535 / 257 = 255
        return ((np.minimum(values.astype(np.uint16, copy=False), 65407) + np.uint16(128)) // 257).astype(np.uint8)
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=None, neginf=0.0)
    largest = float(values.max(initial=0))
    white = next((w for w in ((1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0)) if largest <= w), largest)
    return (values.clip(0, white) * (255.0 / white)).round().astype(np.uint8)


def images_in(places: Sequence[Path]) -> list[Path]:
    """Files as they are, folders as the pictures in them (by name, subfolders and linked folders included).

    Other files in a folder are left out and counted in a warning; the ``._`` files that macOS writes beside others are nothing.

    Raises:
        UserError: a folder without pictures.
    """
    found: list[Path] = []
    told: set[Path] = set()
    for place in places:
        if os.path.isdir(place):  # unlike Path.is_dir, never an error
            files = sorted(_files_in(place))
            inside = [file for file in files if file.suffix.lower() in EXTENSIONS]
            if not inside:
                raise UserError(f"{place}: no pictures in this folder")
            left = Counter(file.suffix.lower() or "no ending" for file in files if file.suffix.lower() not in EXTENSIONS)
            if left and place not in told:
                told.add(place)
                kinds = ", ".join(f"{kind} {count}" for kind, count in left.most_common(5))
                log.warning(
                    "%s: %d of %d files are left out, they are no pictures (%s)", place, left.total(), len(files), kinds
                )
            found += inside
        else:
            found.append(place)
    return found


def _files_in(folder: Path) -> Iterator[Path]:
    """Regular files below a folder, each folder once however it is linked."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in names:
            path = Path(parent, name)
            if not name.startswith("._") and path.is_file():
                yield path
