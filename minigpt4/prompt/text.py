"""Text as the published data code cleans it."""

import re

_SPACED = re.compile(r"[.!\"()*#:;~]")
_RUNS = re.compile(r"\s{2,}")


def clean_text(text: str, max_words: int = 50) -> str:
    """Lower case, most punctuation to blanks, at most `max_words` words: LAVIS' ``blip_caption`` processor.

    A single tab or newline inside the text survives: only runs of blanks are collapsed.
    """
    text = _SPACED.sub(" ", text.lower())
    text = _RUNS.sub(" ", text).rstrip("\n").strip(" ")
    words = text.split(" ")
    return " ".join(words[:max_words]) if len(words) > max_words else text
