"""Looking through a benchmark's official data before anything is asked: what is there, what is missing, where it comes from."""

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..media.images import regular_file
from .benchmarks.base import Choice
from .benchmarks.registry import OFFICIAL


@dataclass
class Prepared:
    """What was found.

    Args:
        there: files and folders that are there.
        missing: those that are not, each with where it comes from.
        optional: those that are not, but are not needed.
        questions: how many can be asked.
        images: how many images they are about, and `gone` of them that are not there.
        problems: what is wrong with rows that cannot be used.
        remarks: what else there is to say of the annotations.
    """

    benchmark: str
    there: list[Path] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    optional: list[str] = field(default_factory=list)
    questions: int = 0
    images: int = 0
    gone: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        """Whether every question of the official files can be asked."""
        return not (self.missing or self.gone or self.problems) and self.questions > 0


def prepare(name: str, folder: Path) -> Prepared:
    """Look through the data of a benchmark.

    Args:
        name: one of `benchmarks.registry.OFFICIAL`.

    Raises:
        UserError: an unknown benchmark, or no such folder.
    """
    if name not in OFFICIAL:
        raise UserError(f"{name}: there is no official data to look for; benchmarks that have it: {', '.join(OFFICIAL)}")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    benchmark, found = OFFICIAL[name], Prepared(name)
    for file in (*benchmark.files, *([benchmark.images] if benchmark.images else [])):
        place = file.find(folder)
        if place is not None:
            found.there.append(place)
        else:
            told = f"{' or '.join(file.names)}: from {file.source}"
            (found.missing if file.needed else found.optional).append(told)
    if all(file.find(folder) for file in benchmark.files if file.needed):
        try:
            rows, problems = benchmark.rows(folder, Choice())
        except UserError as error:
            found.problems.append(str(error))
            return found
        images = dict.fromkeys(row["image"] for row in rows)
        found.questions, found.images, found.problems = len(rows), len(images), list(problems)
        found.remarks = problems.remarks
        for image in images:
            try:
                regular_file(folder / image)
            except UserError as error:
                found.gone.append(str(error))
    return found
