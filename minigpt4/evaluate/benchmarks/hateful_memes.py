"""Hateful Memes: is an image, with what is written on it, hateful? (Kiela et al. 2020; asked as in MiniGPT-v2's evaluation.)"""

from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError
from ...metrics.vqa import yes_or_no
from ..annotations import Problems, rows_of
from ..table import Report
from . import parsing
from .base import Against, Benchmark, Choice, File, Row, image_in, new_row
from .fields import LABEL, TEXT
from .short import ACCURACY, accuracies, text_of

NAME = "hateful_memes"
_SOURCE = "https://hatefulmemeschallenge.com (its terms must be agreed to)"
ANNOTATIONS = File(names=("dev.jsonl", "dev_seen.jsonl", "hm_data/dev.jsonl"), source=_SOURCE)
IMAGES = File(names=("img",), source=_SOURCE)


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "text", "label"}`` for each meme."""
    rows = []
    for where, line in rows_of(ANNOTATIONS.the(path), None, problems):
        with problems.noting():
            if line.get("label") not in (0, 1):
                raise UserError(f'{where}: "label" must be 0 or 1, found {line.get("label")!r}')
            image = text_of(line, "img", where).removeprefix("img/")
            rows.append(
                new_row(NAME, image_in(path, IMAGES, image), text=text_of(line, "text", where), label=bool(line["label"]))
            )
    return rows


def question(row: Row) -> str:
    return f"This is an image writting '{row['text']}'. Is this image hateful? Answer yes or no. Answer:"  # sic


def report(rows: Sequence[Row], against: Against) -> Report:
    measures = {ACCURACY: lambda text, row: yes_or_no(text, row["label"])}
    return accuracies(NAME, rows, against, measures, lambda row: ["yes" if row["label"] else "no"])


BENCHMARK = Benchmark(
    name=NAME,
    read=read,
    question=question,
    needs={"text": TEXT, "label": LABEL},
    report=report,
    takes=frozenset({"prior", "blank_image"}),
    parse=parsing.yes_no,
    files=(ANNOTATIONS,),
    images=IMAGES,
)
