"""One of several given answers: IconQA, A-OKVQA's multiple choice, ScienceQA, MMBench, and rows of your own.

The likeliest candidate counts (mean log-likelihood of its tokens), as the MiniGPT-v2 evaluation ranks; nothing is written.
Those called ``..._written`` show the answers, and count the one that is written.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ...data.formats.files import load_json
from ...errors import UserError
from ...metrics.vqa import exact
from ..annotations import Problems, rows_of
from ..table import Report
from . import mmbench, parsing, scienceqa
from .aokvqa import ANNOTATIONS as AOKVQA_FILE
from .aokvqa import IMAGES as AOKVQA_IMAGES
from .aokvqa import entries_of
from .base import Against, Benchmark, Choice, File, Row, image_in, new_row
from .choosing import ask, ask_with_choices, choices_of, written_choice
from .fields import TEXT, TEXTS
from .short import ACCURACY, accuracies, key_of, text_of

_ICONQA = "https://iconqa.github.io (choose_text, as MiniGPT-v2's evaluation lists it)"
ICONQA_FILE = File(names=("choose_text_val.json",), source=_ICONQA)
ICONQA_IMAGES = File(names=("choose_text/val", "val/choose_txt", "images"), source=_ICONQA)
CHANCE = "chance"


def read_own(path: Path, choice: Choice, problems: Problems, name: str = "choice") -> list[Row]:
    """Rows of one's own: ``{"image", "question", "choices": [TEXT, ...], "answer": number of the right one or its text}``."""
    rows = []
    for where, line in rows_of(path, choice.split, problems):
        with problems.noting():
            image, asked = text_of(line, "image", where), text_of(line, "question", where)
            rows.append(new_row(name, image, question=asked, **choices_of(line, "answer", where)))
    return rows


def read_iconqa(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A list of ``{"image_id", "question", "choices", "answer"}``, or an object of them; images are ``image_id/image.png``."""
    file = ICONQA_FILE.the(path)
    data = load_json(str(file))
    if not isinstance(data, list | dict):
        raise UserError(f"{file}: expected a list of {{image_id, question, choices, answer}}")
    rows = []
    for key, entry in data.items() if isinstance(data, dict) else enumerate(data):
        where = f"{file}[{key!r}]"
        with problems.noting():
            image = f"{key_of(entry, 'image_id', where)}/image.png"
            asked = text_of(entry, "question", where)
            image = image_in(path, ICONQA_IMAGES, image)
            rows.append(new_row("iconqa", image, question=asked, **choices_of(entry, "answer", where)))
    return rows


def read_aokvqa(path: Path, choice: Choice, problems: Problems, name: str = "aokvqa_mc") -> list[Row]:
    """A row ``{"image", "question", "choices", "truth"}`` for each question of A-OKVQA."""
    rows = []
    for image, entry, where in entries_of(path, problems):
        with problems.noting():
            truth = choices_of(entry, "correct_choice_idx", where)
            rows.append(new_row(name, image, question=entry["question"], **truth))
    return rows


def right(text: str, row: Row) -> float:
    """1 if a text means the right answer, else 0."""
    place = written_choice(text, row["choices"])
    return float(place is not None and row["choices"][place] == row["truth"])


def taken(text: str, row: Row) -> float:
    """1 if a text is the right answer, else 0: letter by letter where it is one of those given, which may differ in their
    capitals alone; capitals aside where it is none of them, as the usual answer to other questions may be."""
    return float(text == row["truth"]) if text in row["choices"] else exact(text, row["truth"])


def report(rows: Sequence[Row], against: Against, name: str, written: bool = False) -> Report:
    """The model beside the answer that is right most often, and beside chance."""
    measures = {
        ACCURACY: right if written else taken,
        CHANCE: lambda text, row: row["choices"].count(row["truth"]) / len(row["choices"]),
    }
    return accuracies(name, rows, against, measures, lambda row: [row["truth"]])


def _benchmark(
    name: str,
    read: Callable,
    files: tuple[File, ...] = (),
    images: File | None = None,
    written: bool = False,
    split: bool = False,
) -> Benchmark:
    return Benchmark(
        name=name,
        read=read,
        question=ask_with_choices if written else ask,
        needs={"question": TEXT, "choices": TEXTS, "truth": TEXT},
        report=partial(report, name=name, written=written),
        takes=frozenset({"prior", "blank_image"} | ({"split"} if split else set())),
        parse=parsing.written if written else parsing.chosen,
        candidates=None if written else lambda row: row["choices"],
        files=files,
        images=images,
    )


BENCHMARKS = [
    _benchmark("choice", read_own, split=True),
    _benchmark("choice_written", partial(read_own, name="choice_written"), written=True, split=True),
    _benchmark("iconqa", read_iconqa, (ICONQA_FILE,), ICONQA_IMAGES),
    _benchmark("aokvqa_mc", read_aokvqa, (AOKVQA_FILE,), AOKVQA_IMAGES),
    _benchmark(
        "aokvqa_mc_written", partial(read_aokvqa, name="aokvqa_mc_written"), (AOKVQA_FILE,), AOKVQA_IMAGES, written=True
    ),
    _benchmark("scienceqa", scienceqa.read, (scienceqa.PROBLEMS, scienceqa.SPLITS), scienceqa.IMAGES, split=True),
    _benchmark("mmbench", mmbench.read, (mmbench.TABLE,), split=True),
]
