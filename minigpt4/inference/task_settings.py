"""How a question is decoded: what a system wishes for its task, what was asked for instead, and what goes together."""

from typing import Any

from ..errors import UserError
from ..prompt.tasks import TASKS, split_identifier
from .self_consistency import BESIDE_CONSENSUS


def settings_for(
    question: str, wished: dict[str, Any], given: dict[str, Any], *, streamed: bool = False, published: bool = False
) -> dict[str, Any]:
    """How a question is decoded: as is wished for its task, unless other settings are given.

    A wished consensus gives way to settings that do not go with it, and with wished beams to streaming; ``consensus=1`` leaves
    it out. A wished second look, or one into a mirror, gives way where there can be none.

    Args:
        wished: a system's settings for the question's task.
        streamed: the answer is to come piece by piece.
        published: the answer is to be what the published code gives.

    Raises:
        UserError: given settings that do not go together, or not with this question.
    """
    task, _ = split_identifier(question)
    wished = dict(wished)
    others = {key for key, value in given.items() if value is not None} - BESIDE_CONSENSUS - {"consensus"}
    if streamed:
        wished.pop("num_beams", None)
    if streamed or published or others:
        wished.pop("consensus", None)
    if streamed or published:
        wished.pop("look_again", None)
    settings = wished | given
    if settings.get("consensus") == 1:
        del settings["consensus"]
    if settings.get("mirrored") and not settings.get("consensus") and given.get("mirrored"):
        raise UserError("mirrored goes with consensus: say how many answers are to be drawn")
    if (settings.get("consensus") or 0) < 4:  # a half would be one answer
        settings.pop("mirrored", None)
    if streamed or not (task is TASKS["grounding"] or (task is TASKS["refer"] and settings.get("consensus"))):
        if given.get("look_again"):
            raise UserError(
                f"look_again goes with {TASKS['grounding'].identifier}, or with {TASKS['refer'].identifier} and consensus, "
                "and with answers that come all at once"
            )
        settings.pop("look_again", None)
    return settings
