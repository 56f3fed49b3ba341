"""Captions against those that people wrote: CIDEr, BLEU-4 and ROUGE-L as the COCO tools have them."""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ...data.schema import Description, parse_row
from ...errors import UserError
from ...metrics.caption import TOKENIZERS, bleu, cider, rouge_l
from ...metrics.interval import Score, bootstrap
from ...prompt.templates import CAPTION
from ..annotations import load_json, rows_of
from ..baselines import most_common
from ..table import Line, Report
from .base import Against, Benchmark, Choice, Row, new_row

NAME = "captions"
CIDER, BLEU, ROUGE, DISTINCT = "CIDEr", "BLEU-4", "ROUGE-L", "distinct"


def read(path: Path, choice: Choice) -> list[Row]:
    """A row ``{"image", "captions": [...]}`` for each picture, from JSON Lines with ``captions`` (or ``answers``, as our own
    schema has it), or from COCO's ``captions_val2017.json``."""
    captions: dict[str, list[str]] = defaultdict(list)
    if path.suffix == ".json":
        try:
            data = load_json(path)
            names = {image["id"]: image["file_name"] for image in data["images"]}
            for annotation in data["annotations"]:
                captions[names[annotation["image_id"]]].append(annotation["caption"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: expected COCO's images and annotations with captions ({error!r})") from None
    else:
        for number, line in rows_of(path, choice.split):
            if isinstance(line.get("captions"), list) and isinstance(line.get("image"), str):
                if not line["captions"] or not all(isinstance(text, str) for text in line["captions"]):
                    raise UserError(f'{path}:{number}: "captions" must be a list of texts')
                captions[line["image"]] += line["captions"]
                continue
            parsed = parse_row(line, f"{path}:{number}")
            if not isinstance(parsed, Description) or len(parsed.images) != 1:
                raise UserError(f'{path}:{number}: expected {{"image": FILE, "captions": [TEXT, ...]}}')
            captions[str(parsed.images[0])] += parsed.answers
    return [new_row(NAME, image, captions=texts) for image, texts in captions.items()]


def question(row: Row) -> str:
    return CAPTION


def report(rows: Sequence[Row], against: Against, tokens: str = "plain") -> Report:
    """The model beside one of the people against the others, and beside the sentence that is written most often."""
    tokenizer = TOKENIZERS[tokens]

    def line(name: str, said: Sequence[str], references: Sequence[Sequence[str]], note: str = "") -> Line:
        scores = {
            CIDER: bootstrap(cider(references, said, tokenizer)),
            BLEU: Score(bleu(references, said, tokenizer), math.nan, math.nan),
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
    return Report(NAME, len(rows), lines, [f"tokens: {tokens}"])


BENCHMARK = Benchmark(name=NAME, read=read, question=question, report=report)
