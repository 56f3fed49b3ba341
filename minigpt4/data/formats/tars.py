"""WebDataset tars: files of one name that follow each other are a record (``000031.jpg``, ``000031.json``)."""

import bz2
import gzip
import lzma
import os
import tarfile
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from ...errors import UserError
from ...io.jsonl import load_json
from ...media.images import EXTENSIONS, ImageInput, decode_image
from ..schema import Row
from ..source import Problem
from .files import Folders, Paths, files
from .index import Store
from .rows import again, understood

IMAGES = frozenset(ending.removeprefix(".") for ending in EXTENSIONS)


@dataclass
class Group:
    """The files of one record: endings in lower case to members of the archive."""

    key: str
    parts: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    data: dict[str, bytes] = field(default_factory=dict)
    """Contents, where they had to be read on the way because the archive cannot be searched."""
    twice: str | None = None
    """An ending that occurs more than once."""
    again: bool = False
    """Other files of this name came before, with files of another record between."""


class Shard:
    """A tar file, open: iterating gives its groups in file order.

    Raises:
        UserError: it is missing, no tar, or cut short; what was whole has been handed out before.
    """

    def __init__(self, path: str):
        self.path = path
        self._file = _open(path)
        packed = _packing(self._file) if self._file.seekable() else None
        self.searchable = self._file.seekable() and packed is None
        self._stream = None if self.searchable else _Tail(packed(self._file) if packed else self._file)

    def __enter__(self) -> "Shard":
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Group]:
        group: Group | None = None
        seen: set[str] = set()
        try:
            with self._tar() as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # it would keep every header it has seen
                    key, ending = split_name(member.name)
                    if not member.isreg() or not ending:
                        continue
                    if group is None or key != group.key:
                        if group is not None:
                            yield group
                        group = Group(key, again=key in seen)
                        seen.add(key)
                    if ending in group.parts:
                        group.twice = ending
                    if not self.searchable:
                        group.data[ending] = tar.extractfile(member).read()
                    group.parts[ending] = member
                if group is not None:
                    yield group
                self._check_end(tar.offset)
        except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise UserError(f"{self.path}: not a whole tar file ({error})") from None

    def read(self, group: Group, ending: str) -> bytes:
        """The contents of one file of a record."""
        if ending in group.data:
            return group.data[ending]
        return read_at(self._file, group.parts[ending].offset_data, group.parts[ending].size, f"{self.path}:{group.key}")

    def _tar(self) -> Any:
        stream: Any = self._stream
        return tarfile.open(fileobj=stream, mode="r|") if stream else tarfile.open(fileobj=self._file, mode="r:")

    def _check_end(self, offset: int) -> None:
        """A tar ends with blocks of zeros; one that just stops was cut between two files, which tarfile lets pass."""
        if self._stream:
            block = self._stream.last
        else:
            self._file.seek(offset)
            block = self._file.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE or block.strip(b"\0"):
            raise tarfile.ReadError("it ends without the mark that ends a tar file")


class _Tail:
    """A file that is read once, and remembers the last block of what was read."""

    def __init__(self, file: Any):
        self.file, self.last = file, b""

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.last = (self.last + data)[-tarfile.BLOCKSIZE :]
        return data


def webdataset(shards: Paths) -> list[Store]:
    """Rows of our schema in tars, for random access: images beside a ``.json`` row, which names none.

    Several images of a row are ``KEY.0.jpg``, ``KEY.1.jpg`` and so on, in this order.

    Args:
        shards: the tars, or patterns of their names (``data/{00000..00012}.tar``, ``data/*.tar``); they are not compressed.
    """
    return [Tar(path) for path in files(shards, "shards", "WebDataset tars")]


class Member(NamedTuple):
    """A file in a tar."""

    path: str
    start: int
    size: int

    @property
    def key(self) -> str:
        return f"{self.path}@{self.start}"

    def open(self, where: str) -> ImageInput:
        return decode_image(self.read(where), where)

    def read(self, where: str) -> bytes:
        with _open(self.path) as file:
            return read_at(file, self.start, self.size, where)


class Tar:
    """The rows of a tar: where each begins."""

    folders: Folders | None = None

    def __init__(self, path: str):
        self.path = path
        self._keys: list[str] = []
        self._parts = array("q")  # of each file of a record, its begin and length; the JSON first, then the images
        self._ends = array("q", [0])

    def scan(self) -> Iterator[Row | Problem]:
        with Shard(self.path) as shard:
            if not shard.searchable:
                raise UserError(f"{self.path}: is compressed; unpack it, or read it with the format webdataset_stream")
            for group in shard:
                self._keys.append(group.key)
                for ending in ("json", *image_endings(group.parts)):
                    part = group.parts.get(ending)
                    self._parts.extend((part.offset_data, part.size) if part else (0, 0))
                self._ends.append(len(self._parts))
                where = self.where(len(self._keys) - 1)
                raw = group_fault(group, where) or load_json(shard.read(group, "json"), where, ".json is ")
                yield understood(raw, where, self._members(len(self._keys) - 1)[1:])

    def read(self, number: int) -> Row:
        text, *images = self._members(number)
        where = self.where(number)
        return again(load_json(text.read(where), where, ".json is "), where, tuple(images))

    def where(self, number: int) -> str:
        return f"{self.path}:{self._keys[number]}"

    def _members(self, number: int) -> tuple[Member, ...]:
        parts = self._parts[self._ends[number] : self._ends[number + 1]]
        return tuple(Member(self.path, *parts[i : i + 2]) for i in range(0, len(parts), 2))


def split_name(name: str) -> tuple[str, str]:
    """``train/000031.0.JPG`` -> ``("train/000031", "0.jpg")``; no ending for what is no part of a record."""
    folder, base = os.path.split(name)
    stem, _, ending = base.partition(".")
    if not stem or base.startswith(("__", "._")):
        return name, ""
    return os.path.join(folder, stem), ending.lower()


def image_endings(parts: Iterable[str]) -> list[str]:
    """The endings of a record that are pictures: ``jpg``, or ``0.jpg``, ``1.jpg``, ... in the order of the numbers."""
    found = []
    for ending in parts:
        number, _, kind = ending.rpartition(".")
        if kind in IMAGES and (not number or number.isdecimal()):
            found.append((int(number or -1), ending))
    return [ending for _, ending in sorted(found)]


def group_fault(group: Group, where: str) -> UserError | None:
    """What is wrong with a record's files, if anything is."""
    if fault := order_fault(group, where):
        return fault
    if "json" not in group.parts:
        return UserError(f"{where}: has no .json {NEXT_TO_IT} (there is {', '.join(group.parts)})")
    return None


NEXT_TO_IT = "next to it in the tar"
"""Where the files of a record are looked for; a tar whose files are in another order lacks all of them."""


def order_fault(group: Group, where: str) -> UserError | None:
    if group.twice:
        return UserError(f"{where}: has two files that end in .{group.twice}")
    if group.again:
        return UserError(f"{where}: its files do not follow each other; pack the tar anew, sorted: tar --sort=name -cf ...")
    return None


def read_at(file: IO[bytes], start: int, size: int, where: str) -> bytes:
    try:
        file.seek(start)
        data = file.read(size)
    except OSError as error:
        raise UserError(f"{where}: {error.strerror}") from None
    if len(data) < size:
        raise UserError(f"{where}: the tar file is cut short")
    return data


def _open(path: str) -> IO[bytes]:
    try:
        if "://" not in path:
            return open(path, "rb")
        import fsspec

        return fsspec.open(path, "rb").open()
    except ImportError as error:
        raise UserError(f"{path}: needs a package for this kind of address ({error})") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be opened ({error})") from None


def _packing(file: IO[bytes]) -> Any:
    """What unpacks a compressed file; None if it is none."""
    start = file.read(6)
    file.seek(0)
    return next((unpack for mark, unpack in _UNPACK.items() if start.startswith(mark)), None)


_UNPACK: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
