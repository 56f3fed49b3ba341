"""Captions against those that people wrote: CIDEr, BLEU-4 and ROUGE-L as in the COCO tools, and METEOR of words and stems."""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...data.schema import Description, parse_row
from ...errors import UserError
from ...metrics.caption import TOKENIZERS, bleu, cider, rouge_l
from ...metrics.interval import Score, bootstrap
from ...metrics.meteor import has_stemmer, meteor
from ...prompt.templates import CAPTION
from ..annotations import Problems, refuse_split, rows_in_format, rows_of
from ..baselines import most_common
from ..table import Line, Report
from . import parsing
from .base import Against, Benchmark, Choice, Row, new_row
from .fields import TEXTS

NAME = "captions"
CIDER, BLEU, METEOR, ROUGE, DISTINCT = "CIDEr", "BLEU-4", "METEOR (exact, stem)", "ROUGE-L", "distinct"


def read(path: Path, choice: Choice, problems: Problems) -> list[Row]:
    """A row ``{"image", "captions": [...]}`` for each picture, from JSON Lines with ``captions`` (or ``answers``, as our own
    schema has it), from COCO's ``captions_val2017.json``, or from Karpathy's lists (``coco_karpathy_test.json``)."""
    captions: dict[str, list[str]] = defaultdict(list)
    if path.suffix == ".json":
        refuse_split(path, choice.split)
        for row in rows_in_format("coco_caption", path, problems, choice.images, split="all", clean=False):
            assert isinstance(row, Description)
            captions[row.images[0]] += row.answers
    else:
        for where, line in rows_of(path, choice.split, problems):
            with problems.noting():
                image, texts = _line(line, where)
                captions[image] += texts
    return [new_row(NAME, image, captions=texts) for image, texts in captions.items()]


def _line(line: dict[str, Any], where: str) -> tuple[str, list[str]]:
    if isinstance(line.get("captions"), list) and isinstance(line.get("image"), str):
        if not line["captions"] or not all(isinstance(text, str) and text.strip() for text in line["captions"]):
            raise UserError(f'{where}: "captions" must be a list of texts')
        return line["image"], line["captions"]
    parsed = parse_row(line, where)
    if not isinstance(parsed, Description) or len(parsed.images) != 1:
        raise UserError(f'{where}: expected {{"image": FILE, "captions": [TEXT, ...]}}')
    return str(parsed.images[0]), list(parsed.answers)


def question(row: Row) -> str:
    return CAPTION


def report(rows: Sequence[Row], against: Against, tokens: str = "plain") -> Report:
    """The model beside one of the people against the others, and beside the sentence that is written most often."""
    tokenizer = TOKENIZERS[tokens]

    def line(name: str, said: Sequence[str], references: Sequence[Sequence[str]], note: str = "") -> Line:
        scores = {
            CIDER: bootstrap(cider(references, said, tokenizer)),
            BLEU: Score(bleu(references, said, tokenizer), math.nan, math.nan),
            **({METEOR: bootstrap(meteor(references, said, tokenizer))} if has_stemmer() else {}),
            ROUGE: bootstrap(rouge_l(references, said, tokenizer)),
            DISTINCT: Score(len(set(said)) / len(said), math.nan, math.nan),
        }
        return Line(name, scores, note)

    references = [row["captions"] for row in rows]
    lines = [line("model", [row["answer"] for row in rows], references)]
    if against.blank_image is not None:
        lines.append(
            line("model, blank-image", [row["answer"] for row in against.blank_image], references, "sees a grey picture")
        )
    usual = most_common([text for texts in references for text in texts])
    lines.append(line("always the same", [usual] * len(rows), references, f"{usual!r}"))
    if all(len(texts) > 1 for texts in references):
        person = [texts[0] for texts in references]
        lines.append(line("a person", person, [texts[1:] for texts in references], "against the other people"))
    notes = [f"tokens: {tokens}"] + ([] if has_stemmer() else ["METEOR: pip install 'minigpt4[evaluate]'"])
    return Report(NAME, len(rows), lines, notes)


BENCHMARK = Benchmark(
    name=NAME,
    read=read,
    question=question,
    needs={"captions": TEXTS},
    report=report,
    takes=frozenset({"split", "blank_image"}),
    parse=parsing.words,
)
