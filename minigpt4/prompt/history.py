"""What a conversation gives up when it grows too long: its oldest words, never its pictures."""

from collections.abc import Callable, Sequence

from ..errors import UserError
from .templates import IMAGE, PLACEHOLDER, Message


def without_oldest(messages: Sequence[Message]) -> list[Message] | None:
    """The conversation without its first question and answer; nothing if only one question is left.

    Pictures of the question that goes stand before the next question, in their order.
    """
    answered = next((i for i, message in enumerate(messages) if message["role"] == "assistant"), None)
    if answered is None or answered + 1 >= len(messages):
        return None
    gone, rest = messages[: answered + 1], list(messages[answered + 1 :])
    images = sum(message["content"].count(PLACEHOLDER) for message in gone)
    rest[0] = rest[0] | {"content": " ".join([IMAGE] * images + [rest[0]["content"]])}
    return rest


def fitting_ids(
    messages: Sequence[Message], ids_of: Callable[[Sequence[Message]], list[int]], new: int, context: int
) -> list[int]:
    """A prompt's ids; of a conversation that has grown too long, the oldest questions and answers are left out.

    Args:
        new: tokens for which there must be room beside it.

    Raises:
        UserError: there is none.
    """
    ids = ids_of(messages)
    if len(ids) + new <= context:
        return ids
    shorter = [list(messages)]
    while (less := without_oldest(shorter[-1])) is not None:
        shorter.append(less)
    if len(shorter) > 1:
        ids = ids_of(shorter[-1])
    if len(ids) + new > context:
        raise too_long(len(ids), new, context)
    few, enough = 0, len(shorter) - 1  # how many questions are too few to give up, and how many are enough
    while enough - few > 1:  # by halves: a long conversation is read a few times, not once for each question
        middle = (few + enough) // 2
        found = ids_of(shorter[middle])
        if len(found) + new <= context:
            enough, ids = middle, found
        else:
            few = middle
    return ids


def too_long(tokens: int, new: int, context: int) -> UserError:
    """What to say where nothing can be given up.

    Args:
        tokens: of the prompt. new: for which there must be room beside it.
    """
    return UserError(
        f"the question is too long: with its images it takes {tokens:,} tokens, "
        f"and {new:,} new ones do not fit beside it in this model's context of {context:,}"
    )
