"""ScienceQA: questions of school books with several answers given (Lu et al. 2022), those that have an image."""

from pathlib import Path

from ...data.formats.files import load_json
from ...errors import UserError
from ..annotations import Problems
from .base import Choice, File, Row, image_in, new_row
from .choosing import choices_of
from .short import KIND, text_of

NAME = "scienceqa"
_SOURCE = "https://scienceqa.github.io"
PROBLEMS = File(names=("problems.json",), source=_SOURCE)
SPLITS = File(names=("pid_splits.json",), source=_SOURCE, needed=False)
IMAGES = File(names=("images",), source=_SOURCE)


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "question", "choices", "truth", "kind": subject}`` for each question with an image; the hint stands
    before the question. The split is ``test`` where not given; questions without an image are counted, and not asked."""
    split, file = choice.split or "test", PROBLEMS.the(path)
    data = load_json(str(file))
    if not isinstance(data, dict):
        raise UserError(f"{file}: expected an object of {{question, choices, answer, hint, image, split}}")
    wanted = _numbers(path, split, data)
    rows, without = [], 0
    for number in wanted:
        where = f"{file}[{number!r}]"
        entry = data.get(number)
        with problems.noting():
            asked = text_of(entry, "question", where)
            assert isinstance(entry, dict)  # or it would have no text
            if not entry.get("image"):
                without += 1
                continue
            hint = entry.get("hint")
            if isinstance(hint, str) and hint.strip():
                asked = f"{' '.join(hint.split())} {asked}"
            own, name = entry.get("split"), text_of(entry, "image", where)
            parts = dict.fromkeys(
                [own, split] if isinstance(own, str) else [split]
            )  # a list may be of part of a split: minitest
            image = image_in(path, IMAGES, *(f"{part}/{number}/{name}" for part in parts), f"{number}/{name}")
            kind = {KIND: entry["subject"]} if isinstance(entry.get("subject"), str) else {}
            rows.append(new_row(NAME, image, question=asked, **choices_of(entry, "answer", where), **kind))
    if without:
        problems.remarks.append(f"{file}: {without:,} of {len(wanted):,} questions of {split} have no image and are not asked")
    return rows


def _numbers(path: Path, split: str, data: dict) -> list[str]:
    """The questions of a split, by the list of splits or by what each says itself."""
    lists = SPLITS.find(path)
    if lists is None:
        found = [number for number, entry in data.items() if isinstance(entry, dict) and entry.get("split") == split]
    else:
        listed = load_json(str(lists))
        if not isinstance(listed, dict):
            raise UserError(f"{lists}: expected an object of splits, each a list of numbers")
        known = listed.get(split)
        if not isinstance(known, list):
            raise UserError(f"{lists}: no split {split!r}; there are {', '.join(map(str, listed))}")
        found = [str(number) for number in known]
    if not found:
        raise UserError(f"{path}: no questions of the split {split!r}")
    return found
