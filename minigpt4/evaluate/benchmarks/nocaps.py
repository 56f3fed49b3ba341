"""NoCaps: captions of images with things that COCO's captions do not name (Agrawal et al. 2019).

Each of its three domains has a CIDEr of its own, over its own images; the paper's tables have them side by side.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...data.formats.files import load_json
from ...errors import UserError
from ...prompt.templates import CAPTION
from ..annotations import Problems
from ..table import Report
from . import parsing
from .base import Against, Benchmark, Choice, File, Row, image_in, new_row
from .captions import read as read_captions
from .captions import report as report_captions
from .fields import TEXT, TEXTS
from .short import KIND

NAME = "nocaps"
DOMAINS = ("in-domain", "near-domain", "out-domain")
_SOURCE = "https://nocaps.org/download"
ANNOTATIONS = File(names=("nocaps_val_4500_captions.json",), source=_SOURCE)
IMAGES = File(names=("images", "val"), source=f"{_SOURCE} (of Open Images)")


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "captions", "kind": domain}`` for each image; `--split` takes one domain."""
    if choice.split is not None and choice.split not in DOMAINS:
        raise UserError(f"nocaps has the domains {', '.join(DOMAINS)}, not {choice.split!r}")
    file = ANNOTATIONS.the(path)
    data = load_json(str(file))
    if not isinstance(data, dict):
        raise UserError(f"{file}: expected COCO's images and annotations with captions")
    domains: dict[str, str] = {}
    images = data.get("images")
    for image in images if isinstance(images, list) else []:
        if isinstance(image, dict) and isinstance(image.get("file_name"), str):
            if image["file_name"] in domains:
                problems.append(f"{file}: image {image['file_name']} is there twice")
            domains.setdefault(image["file_name"], str(image.get("domain")))
    rows = read_captions(file, Choice(), problems)
    captioned = {row["image"] for row in rows}
    problems += [f"{file}: image {name} has no captions" for name in domains if name not in captioned]
    return [
        new_row(NAME, image_in(path, IMAGES, row["image"]), captions=row["captions"], kind=domains[row["image"]])
        for row in rows
        if choice.split in (None, domains[row["image"]])
    ]


def question(row: Row) -> str:
    return CAPTION


def report(rows: Sequence[Row], against: Against, tokens: str = "plain") -> Report:
    """As for captions, and a line for each domain."""
    whole = report_captions(rows, against, tokens)
    lines = list(whole.lines)
    for domain in DOMAINS:
        own = [row for row in rows if row[KIND] == domain]
        if own and len(own) < len(rows):
            first = report_captions(own, Against(), tokens).lines[0]
            lines.append(replace(first, name=f"{domain}: model"))
    return replace(whole, benchmark=NAME, lines=lines)


BENCHMARK = Benchmark(
    name=NAME,
    read=read,
    question=question,
    needs={"captions": TEXTS, KIND: TEXT},
    report=report,
    takes=frozenset({"split", "blank_image"}),
    parse=parsing.words,
    files=(ANNOTATIONS,),
    images=IMAGES,
)
