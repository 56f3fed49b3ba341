"""Unnatural Instructions: text alone, so that the language model does not unlearn to follow."""

from collections.abc import Iterator
from functools import partial

from ...errors import UserError
from ...prompt.text import clean_text
from ..schema import Conversation, Row
from ..source import Problem
from .fields import Fields, each, listed
from .files import Paths, files, load_json


def unnatural_instruction(annotations: Paths, *, official: bool = False) -> Iterator[Row | Problem]:
    """A list of {"instances": [{"instruction_with_input", "constraints", "output"}]}, of which the first instance is used.

    Args:
        official: clean instruction and answer as MiniGPT-v2's training did: lower case, most punctuation taken out, cut to
            fifty words. Otherwise both stay as they are.
    """
    expected = "filtered_unnatural_instruction.json, a list of {instances: [{instruction_with_input, output}]}"
    for path in files(annotations, "annotations", expected):
        yield from each(listed(load_json(path), path, expected), partial(_read, official=official))


def _read(row: Fields, official: bool) -> Iterator[Row]:
    instances = row.rows("instances")
    if not instances:
        raise UserError(f'{row.where}: "instances" is empty')
    first = instances[0]
    instruction, output = first.text("instruction_with_input"), first.text("output")
    if "constraints" in first and (official or first.row["constraints"] not in ("None.", "None", "")):
        instruction += f" {first.row['constraints']}"
    if official:
        instruction, output = clean_text(instruction), first.cleaned("output")
    yield Conversation(**row.place, pairs=((instruction.strip(), output.strip()),))
