"""The first step of a curation: which images."""

import io
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from ..data.formats import build_source
from ..data.source import Source
from ..errors import UserError
from ..io.atomic import saying, whole_file
from ..io.jsonl import Row, whole_rows, write_rows
from ..jobs.made_by import IMAGES, digest, digest_of
from ..media.images import images_in, open_image
from .recipe import Draw


class Ids:
    """The ids of images in one output folder: the image that has one keeps it, whatever is added to or taken from its source.

    They are numbers in the order of the source when an image is first drawn. All that follows knows an image by its id: texts,
    what people have edited, and what reviewers have decided.

    Args:
        path: where they are kept, ``{"id", "image_digest", "image"}`` a line, of every image that was ever drawn.
        earlier: rows of the last draw, for folders that have no such file.
    """

    def __init__(self, path: Path, earlier: Path):
        self.path = path
        rows = whole_rows(path if path.exists() else earlier)
        keys = ("id", IMAGES, "image")
        self._all = [{key: row[key] for key in keys} for row in rows if all(isinstance(row.get(key), str) for key in keys)]
        self._taken = {row["id"] for row in self._all}
        self._free: dict[str, list[Row]] = {}
        for row in self._all:
            self._free.setdefault(row[IMAGES], []).append(row)

    def of(self, number: int, seen: str | None = None, image: str = "") -> str:
        """The id of an image.

        Args:
            number: its place in its source.
            seen: its digest, where it can be read.
            image: its file, if it has one of its own: images of one content have an id each.
        """
        own = f"{number:06d}"
        if known := self._free.get(seen or ""):
            known.sort(key=lambda row: (row["image"] != image, row["id"] != own))
            return known.pop(0)["id"]
        if own in self._taken:
            own = f"{1 + max(int(id) for id in self._taken if id.isdecimal()):06d}"
        self._taken.add(own)
        if seen is not None:
            self._all.append({"id": own, IMAGES: seen, "image": image})
        return own

    def save(self) -> None:
        """Write them down. Raises UserError as `io.atomic` does."""
        if not self.path.exists() or list(whole_rows(self.path)) != self._all:
            write_rows(self.path, self._all)


def drawn(draw: Draw, seed: int, keep: Path, ids: Ids) -> list[Row]:
    """Rows ``{"id", "image", "caption", "image_digest"}`` of images drawn at random, in the order of their source: what is made
    of an image is made anew where its file has changed. One that cannot be read is a row with ``error``.

    Args:
        keep: folder for images that are no files of their own (those of archives and tables).

    Raises:
        UserError: there are no images, or they cannot be kept.
    """
    rng = random.Random(seed)
    if draw.folder is not None:
        return _of_folder(draw.folder, draw.count, rng, ids)
    options = dict(draw.dataset or {})
    source = build_source(options.pop("format"), **options)
    if isinstance(source, Source):
        return [_row(i, partial(_image_and_text, source, i), keep, ids) for i in _picks(len(source), draw.count, rng)]
    return _of_stream(source, draw.count, rng, keep, ids)


def _of_folder(folder: Path, count: int | None, rng: random.Random, ids: Ids) -> list[Row]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected where the images are (draw.folder)")
    found = images_in([folder])
    return [_known(i, {"image": str(found[i])}, ids) for i in _picks(len(found), count, rng)]


def _picks(total: int, count: int | None, rng: random.Random) -> list[int]:
    return sorted(rng.sample(range(total), count)) if count is not None and count < total else list(range(total))


def _of_stream(source: Any, count: int | None, rng: random.Random, keep: Path, ids: Ids) -> list[Row]:
    """Every record is read once; each stays with the same chance (reservoir sampling)."""
    held: list[tuple[int, Any]] = []
    for number, record in enumerate(_records(source)):
        if count is None or len(held) < count:
            held.append((number, record))
        elif (place := rng.randrange(number + 1)) < count:
            held[place] = (number, record)
    if not held:
        raise UserError(f"{source.name}: no samples in {', '.join(map(str, source.shards))}; expected images to draw from")
    return [
        _row(number, partial(_stored, source, record), keep, ids) for number, record in sorted(held, key=lambda pair: pair[0])
    ]


def _records(source: Any) -> Iterator[Any]:
    for shard in source.shards:
        yield from source.records(shard)


def _stored(source: Any, record: Any) -> tuple[tuple[Any, ...], str]:
    sample = source.sample(record, random.Random(0))
    return sample.images, sample.turns[0].answers[0]


def _image_and_text(source: Source, index: int) -> tuple[tuple[Any, ...], str]:
    return source.images(index), source.sample(index, random.Random(0)).turns[0].answers[0]


def _row(number: int, read: Callable[[], tuple[tuple[Any, ...], str]], keep: Path, ids: Ids) -> Row:
    """The row of what `read` gives: images, and what is said of them."""
    try:
        images, caption = read()
        if not images:
            raise UserError("no image")
        stored = _png(images[0]) if isinstance(images[0], Image.Image) else None
    except UserError as error:  # one of them must not stop all others
        return {"id": ids.of(number), "error": str(error)}
    if stored is None:
        return _known(number, {"image": str(images[0]), "caption": caption}, ids)
    seen = digest_of([stored])
    name = ids.of(number, seen)
    path = keep / f"{name}.png"
    with saying(keep):
        keep.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != stored:
            with whole_file(path) as part:
                part.write_bytes(stored)
    return {"id": name, "image": str(path), "caption": caption, IMAGES: seen}


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    open_image(image).save(out, "PNG")
    return out.getvalue()


def _known(number: int, row: Row, ids: Ids) -> Row:
    """With its id and a digest of its image; without one where there is none to read, which is said when it is asked about."""
    try:
        seen = {IMAGES: digest([Path(row["image"])])}
    except UserError:
        seen = {}
    return {"id": ids.of(number, seen.get(IMAGES), row["image"])} | row | seen
