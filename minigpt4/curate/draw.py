"""The first step of a curation: which images."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from ..data.formats import build_source
from ..data.source import Source
from ..errors import UserError
from ..io.atomic import saying, whole_file
from ..io.jsonl import Row
from ..jobs.made_by import IMAGES, digest
from ..media.images import images_in, open_image
from .recipe import Draw


def drawn(draw: Draw, seed: int, keep: Path) -> list[Row]:
    """Rows ``{"id", "image", "caption", "image_digest"}`` of images drawn at random, in the order of their source: what is made
    of an image is made anew where its file has changed.

    Args:
        keep: folder for images that are no files of their own (those of archives and tables).

    Raises:
        UserError: there are no images.
    """
    rng = random.Random(seed)
    if draw.folder is not None:
        return _of_folder(draw.folder, draw.count, rng)
    options = dict(draw.dataset or {})
    source = build_source(options.pop("format"), **options)
    if isinstance(source, Source):
        picks = _picks(len(source), draw.count, rng)
        return [_row(i, source.images(i), _text(source, i), keep) for i in picks]
    return _of_stream(source, draw.count, rng, keep)


def _of_folder(folder: Path, count: int | None, rng: random.Random) -> list[Row]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected where the images are (draw.folder)")
    found = images_in([folder])
    return [_known({"id": f"{i:06d}", "image": str(found[i])}) for i in _picks(len(found), count, rng)]


def _picks(total: int, count: int | None, rng: random.Random) -> list[int]:
    return sorted(rng.sample(range(total), count)) if count is not None and count < total else list(range(total))


def _of_stream(source: Any, count: int | None, rng: random.Random, keep: Path) -> list[Row]:
    """Every record is read once; each stays with the same chance (reservoir sampling)."""
    held: list[tuple[int, Any]] = []
    for number, record in enumerate(_records(source)):
        if count is None or len(held) < count:
            held.append((number, record))
        elif (place := rng.randrange(number + 1)) < count:
            held[place] = (number, record)
    if not held:
        raise UserError(f"{source.name}: no samples in {', '.join(map(str, source.shards))}; expected images to draw from")
    rows = []
    for number, record in sorted(held, key=lambda pair: pair[0]):
        sample = source.sample(record, random.Random(0))
        rows.append(_row(number, sample.images, sample.turns[0].answers[0], keep))
    return rows


def _records(source: Any) -> Iterator[Any]:
    for shard in source.shards:
        yield from source.records(shard)


def _text(source: Source, index: int) -> str:
    return source.sample(index, random.Random(0)).turns[0].answers[0]


def _row(number: int, images: tuple[Any, ...], caption: str, keep: Path) -> Row:
    name = f"{number:06d}"
    if not images:
        return {"id": name, "error": "no image"}
    image = images[0]
    if isinstance(image, Image.Image):
        path = keep / f"{name}.png"
        with saying(keep):
            keep.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            open_image(image).save(part, "PNG")
        image = path
    return _known({"id": name, "image": str(image), "caption": caption})


def _known(row: Row) -> Row:
    """With a digest of its image; without one where there is none to read, which is said when it is asked about."""
    try:
        return row | {IMAGES: digest([Path(row["image"])])}
    except UserError:
        return row
