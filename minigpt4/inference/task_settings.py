"""How a question is decoded: what a system wishes for its task, what was asked for instead, and what goes together."""

from typing import Any

from ..errors import UserError
from ..prompt.tasks import TASKS, split_identifier
from .self_consistency import BESIDE_SELF_CONSISTENCY


def settings_for(
    question: str, wished: dict[str, Any], given: dict[str, Any], *, streamed: bool = False, official: bool = False
) -> dict[str, Any]:
    """How a question is decoded: as is wished for its task, unless other settings are given.

    A wished self-consistency gives way to settings that do not go with it, and with wished beams to streaming;
    ``self_consistency=1`` leaves it out. A wished zoom-in refinement, or one into a mirror, gives way where there can be none.

    Args:
        wished: a system's settings for the question's task.
        streamed: the answer is to come piece by piece.
        official: the answer is to be what the published code gives.

    Raises:
        UserError: given settings that do not go together, or not with this question.
    """
    task, _ = split_identifier(question)
    wished = dict(wished)
    others = {key for key, value in given.items() if value is not None} - BESIDE_SELF_CONSISTENCY - {"self_consistency"}
    if streamed:
        wished.pop("num_beams", None)
    if streamed or official or others:
        wished.pop("self_consistency", None)
    if streamed or official:
        wished.pop("zoom_in", None)
    settings = wished | given
    if settings.get("self_consistency") == 1:
        del settings["self_consistency"]
    if settings.get("mirrored") and not settings.get("self_consistency") and given.get("mirrored"):
        raise UserError("mirrored goes with self-consistency: say how many answers are to be drawn")
    if (settings.get("self_consistency") or 0) < 4:  # a half would be one answer
        settings.pop("mirrored", None)
    if streamed or not (task is TASKS["grounding"] or (task is TASKS["refer"] and settings.get("self_consistency"))):
        if given.get("zoom_in"):
            raise UserError(
                f"zoom_in goes with {TASKS['grounding'].identifier}, or with {TASKS['refer'].identifier} and self-consistency, "
                "and with answers that come all at once"
            )
        settings.pop("zoom_in", None)
    return settings
