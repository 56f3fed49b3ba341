"""Answers of yes or no: what was said, by POPE's rule (Li et al. 2023) and strictly."""

import re

_SAID = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def official_yes(text: str) -> bool:
    """Yes or no by POPE's own rule: no, if its first sentence has one of the words "No", "no" and "not"; else yes, whatever it
    says."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return not {"No", "no", "not"} & set(words)


def said_yes(text: str) -> bool | None:
    """The first "yes" or "no" of an answer, or None if it has neither."""
    found = _SAID.search(text)
    return None if found is None else found[1].lower() == "yes"
