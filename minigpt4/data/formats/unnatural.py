"""Unnatural Instructions: text alone, so that the language model does not unlearn to follow."""

from collections.abc import Iterable

from ...errors import UserError
from ...prompt.text import clean_text
from ..sample import ask
from .base import Annotated, Fields
from .captions import cleaned
from .files import Paths


class UnnaturalInstruction(Annotated):
    """A list of {"instances": [{"instruction_with_input", "constraints", "output"}]}, of which the first instance is used.

    Args:
        official: clean instruction and answer as MiniGPT-v2's training did: lower case, most punctuation taken out, cut to
            fifty words. Otherwise both stay as they are.
    """

    expected = "filtered_unnatural_instruction.json, a list of {instances: [{instruction_with_input, output}]}"

    def __init__(self, *, name: str, annotations: Paths, official: bool = False):
        self.official = official
        super().__init__(name=name, annotations=annotations)

    def _read(self, row: Fields) -> Iterable[tuple]:
        instances = row.rows("instances")
        if not instances:
            raise UserError(f'{row.where}: "instances" is empty')
        first = instances[0]
        instruction, output = first.text("instruction_with_input"), first.text("output")
        if "constraints" in first and (self.official or first.row["constraints"] not in ("None.", "None", "")):
            instruction += f" {first.row['constraints']}"
        if self.official:
            instruction, output = clean_text(instruction), cleaned(output, "output", first)
        yield instruction.strip(), output.strip()

    def _names(self, item):
        return ()

    def _turns(self, item, image, rng):
        return ask(*item)
