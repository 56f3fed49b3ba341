"""MMBench: questions with up to six given answers, in its table (Liu et al. 2023), and tables of one's own of that form.

Images stand in the table as base64; they are written to a folder beside it when it is first read. The likeliest answer counts,
as for the other benchmarks of choice. MMBench's own count (CircularEval) asks for a letter with the answers in every order;
likelihood does not depend on their order.
"""

import base64
import binascii
import csv
import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...io.atomic import whole_file
from ..annotations import Problems
from .base import Choice, File, Row, new_row
from .short import KIND

NAME = "mmbench"
LETTERS = "ABCDEF"
_SOURCE = "https://github.com/open-compass/MMBench"
TABLE = File(names=("mmbench_dev_20230712.tsv", "MMBench_DEV_EN.tsv", "mmbench.tsv"), source=_SOURCE)
IMAGES = "mmbench_images"
_LONGEST = 50_000_000  # characters of an image
_BEGINS = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|BM|RIFF....WEBP|II\*\0|MM\0\*|....ftyp", re.DOTALL)
"""How files of JPEG, PNG, GIF, BMP, WebP, TIFF and HEIC begin."""


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "question", "choices", "truth", "kind": category}`` for each question; a hint stands before it."""
    file = TABLE.the(path)
    rows: list[Row] = []
    entries = list(_entries(file))
    given: dict[str, str] = {}
    for _, entry in entries:  # the whole table first: an image may stand at a question of another split, or at a later one
        given.setdefault((entry.get("index") or "").strip(), (entry.get("image") or "").strip())
    images: dict[str, str] = {}
    seen: set[str] = set()
    for line, entry in entries:
        where = f"{file}:{line}"
        with problems.noting():
            number, asked = _text(entry, "index", where), _text(entry, "question", where)
            if choice.split is not None and entry.get("split") != choice.split:
                continue
            if number in seen:
                raise UserError(f"{where}: question {number} is there twice; the first counts")
            seen.add(number)
            choices = {letter: entry[letter].strip() for letter in LETTERS if (entry.get(letter) or "").strip()}
            answer = _text(entry, "answer", where)
            if len(choices) < 2 or answer not in choices:
                raise UserError(f"{where}: expected answers A, B, ... and the letter of the right one, found {answer[:20]!r}")
            _text(entry, "image", where)
            if (holder := _holder(number, given, where)) not in images:
                images[holder] = _image(path, holder, given[holder], where)
            hint = " ".join((entry.get("hint") or "").split())
            asked = f"{hint} {asked}" if hint and hint != "nan" else asked
            truth: dict[str, Any] = {"choices": list(choices.values()), "truth": choices[answer]}
            if (entry.get("category") or "").strip():
                truth[KIND] = entry["category"].strip()
            rows.append(new_row(NAME, images[holder], question=asked, **truth))
    return rows


def _entries(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    csv.field_size_limit(min(_LONGEST, sys.maxsize))
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            table = csv.DictReader(opened, delimiter="\t")
            if missing := {"index", "question", "A", "B", "answer", "image"} - set(table.fieldnames or ()):
                raise UserError(f"{file}: no column {', '.join(sorted(missing))}; expected MMBench's table, apart by tabs")
            for entry in table:
                yield table.line_num, entry
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read as a table ({' '.join(str(error).split())[:200]})") from None


def _text(entry: dict[str, str], key: str, where: str) -> str:
    value = (entry.get(key) or "").strip()
    if not value:
        raise UserError(f'{where}: "{key}" is empty')
    return value


def _holder(number: str, given: dict[str, str], where: str) -> str:
    """The question at which the image of a question stands: its own, or one that it names in place of an image."""
    passed = {number}
    while (other := given[number]) in given:
        if other in passed:
            raise UserError(f"{where}: the image is that of question {other}, which has none")
        passed.add(other)
        number = other
    return number


def _image(path: Path, number: str, given: str, where: str) -> str:
    """The name of the file of a question's image, which is written if it is not there."""
    if not number.isalnum():
        raise UserError(f"{where}: the index {number[:20]!r} can be no file's name")
    try:
        data = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not _BEGINS.match(data):  # an index that is no question's is base64 as well, if it has four digits
        raise UserError(f"{where}: the image is neither one in base64 nor the index of a question, found {given[:20]!r}")
    file = path / IMAGES / f"{number}.jpg"
    if file.exists() and file.read_bytes() != data:  # of another table, or of this one as it was
        file = file.with_stem(f"{number}-{hashlib.sha256(data).hexdigest()[:8]}")
    if not file.exists():
        try:
            file.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"{file.parent}: cannot be written ({error.strerror}); images of the table are put there") from None
        with whole_file(file) as part:
            part.write_bytes(data)
    return str(file.relative_to(path))
