"""Text as the published data code cleans it, and text that a tokeniser has taken apart."""

import re

_SPACED = re.compile(r"[.!\"()*#:;~]")
_RUNS = re.compile(r"\s{2,}")
_PARTED = re.compile(r" +([.,;:!?)\]}%]|n't\b|'(?:s|re|ve|ll|d|m)\b|'(?= |$))")
_OPENED = re.compile(r"([(\[{]) +")
_QUOTED = re.compile(r'" ([^"]+) "')


def clean_text(text: str, max_words: int = 50) -> str:
    """Lower case, most punctuation to blanks, at most `max_words` words: LAVIS' ``blip_caption`` processor.

    A single tab or newline inside the text survives: only runs of blanks are collapsed.
    """
    text = _SPACED.sub(" ", text.lower())
    text = _RUNS.sub(" ", text).rstrip("\n").strip(" ")
    words = text.split(" ")
    return " ".join(words[:max_words]) if len(words) > max_words else text


def join_tokens(text: str) -> str:
    """``a man 's dog , running .`` -> ``a man's dog, running.``: written as people do, where a tokeniser set blanks."""
    return _QUOTED.sub(r'"\1"', _OPENED.sub(r"\1", _PARTED.sub(r"\1", text))).strip()
