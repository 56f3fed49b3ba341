"""The "advanced tasks" of the MiniGPT-4 paper, about images of one's own: what a meme means, how to make a dish, an
advertisement, a poem, a website. Whether an answer does what was asked, people say (`minigpt4 evaluate rate`); the paper has 25
images of each.

The words are the paper's (arXiv 2304.10592, section 4), but for those of the website, which it shows in a picture alone.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import UserError
from ...media.images import images_in
from ...metrics.fluency import flaws
from ...metrics.interval import bootstrap
from ..annotations import Problems, rows_of
from ..table import Line, Report
from . import parsing
from .base import Against, Benchmark, Choice, Row, new_row
from .fields import one_of

NAME = "advanced"
QUESTIONS = {
    "meme": "Explain why this meme is funny.",
    "recipe": "How should I make something like this?",
    "advertisement": "Help me draft a professional advertisement for this.",
    "poem": "Can you craft a beautiful poem about this image?",
    "website": "Write the HTML and JavaScript of a website that looks like this draft.",
}


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "asked"}`` for each image: of a folder with a folder for each task (``meme/``, ``recipe/``, ...), or of
    JSON Lines ``{"image": FILE, "asked": TASK}``. `--split` takes one task."""
    if choice.split is not None and choice.split not in QUESTIONS:
        raise UserError(f"advanced has the tasks {', '.join(QUESTIONS)}, not {choice.split!r}")
    found = _of_folder(path) if path.is_dir() else _of_lines(path, problems)
    return [new_row(NAME, image, asked=asked) for image, asked in found if choice.split in (None, asked)]


def _of_folder(path: Path) -> Iterator[tuple[str, str]]:
    there = [asked for asked in QUESTIONS if (path / asked).is_dir()]
    if not there:
        raise UserError(f"{path}: expected folders of images named {', '.join(QUESTIONS)}")
    for asked in there:
        for image in images_in([path / asked]):
            yield str(image.relative_to(path)), asked


def _of_lines(path: Path, problems: Problems) -> Iterator[tuple[str, str]]:
    for where, line in rows_of(path, None, problems):
        image, asked = line.get("image"), line.get("asked")
        if isinstance(image, str) and isinstance(asked, str) and asked in QUESTIONS:
            yield image, asked
        else:
            problems.append(f'{where}: expected {{"image": FILE, "asked": {" or ".join(QUESTIONS)}}}')


def question(row: Row) -> str:
    return QUESTIONS[row["asked"]]


def report(rows: Sequence[Row], against: Against) -> Report:
    """Words, and the share of answers with a flaw that rules see, for each task."""
    lines = []
    for asked in QUESTIONS:
        own = [row for row in rows if row["asked"] == asked]
        if own:
            images = [row["image"] for row in own]
            verse, code = asked in ("poem", "recipe", "website"), asked == "website"
            flawed = [bool(flaws(row["answer"], verse, code)) for row in own]
            words = [len(row["answer"].split()) for row in own]
            scores = {"flawed": bootstrap(flawed, groups=images), "words": bootstrap(words, groups=images)}
            lines.append(Line(f"model, {asked}", scores, f"{len(own):,} images"))
    return Report(
        NAME, len(rows), lines, ["whether they do what was asked, people say: minigpt4 evaluate rate"], less=("flawed",)
    )


BENCHMARK = Benchmark(
    name=NAME,
    read=read,
    question=question,
    needs={"asked": one_of(QUESTIONS)},
    report=report,
    takes=frozenset({"split"}),
    parse=parsing.words,
)
