"""How the published MiniGPT-v2 demo reads and shows answers, for comparison with our own reading, and for pages.

Our own is `boxes.parse_phrases`, which forgives more and knows where a phrase ends.
"""

import re

from ..prompt.boxes import DELIMITER, GRID, Box, Phrase


def phrase_groups(text: str) -> list[str]:
    """What follows each ``<p>``, up to a ``}`` that no ``<`` follows; the last brace itself is not part of it."""
    text = text[: text.rfind("}") + 1]
    return re.findall(r"<p>(.*?)\}(?!<)", text)


def official_phrases(text: str) -> list[Phrase]:
    """The phrases and boxes that the published demo would draw; only boxes that mean something are returned."""
    found: dict[str, list[Box]] = {}
    for group in phrase_groups(text):
        phrase, _, places = group.partition("</p>")
        for place in places.split(DELIMITER):
            numbers = [int(v) for v in re.findall(r"\d+", place)]
            if len(numbers) == 4 and max(numbers) <= GRID and numbers[0] <= numbers[2] and numbers[1] <= numbers[3]:
                found.setdefault(phrase, []).append(Box.from_grid(*numbers))
    return list(found.items())


def escape_markdown(text: str) -> str:
    """Text whose ``<`` and ``>`` a Markdown page shows instead of taking them for tags."""
    return text.replace("<", "\\<").replace(">", "\\>")


def unescape_markdown(text: str) -> str:
    """The text before `escape_markdown`."""
    return text.replace("\\<", "<").replace("\\>", ">")
