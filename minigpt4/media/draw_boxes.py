"""Boxes drawn on pictures: a colour per phrase, labels that can be read and do not lie on one another."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from ..prompt.boxes import Box, Phrase

Colour = tuple[int, int, int]
Rect = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are the first pixels that do not belong to it."""

# Found by a search for eight colours of some saturation whose least distance (in OKLab, over normal sight and simulated
# protanopia, deuteranopia and tritanopia) is greatest: 0.18, where the well-known set of Okabe and Ito has 0.08.
PALETTE: tuple[Colour, ...] = (
    (204, 45, 8),
    (241, 241, 43),
    (78, 9, 162),
    (51, 170, 201),
    (22, 253, 244),
    (206, 166, 29),
    (125, 1, 58),
    (143, 50, 253),
)
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)

_SMALL = 480  # a picture whose longer side is below this is enlarged before it is drawn on
_LINES = 3  # of a label, at most


@dataclass(frozen=True)
class Label:
    """A label in its place."""

    lines: tuple[str, ...]
    rect: Rect
    font_size: int
    colour: Colour
    box: Rect
    """The outline that it belongs to."""


@dataclass(frozen=True)
class Layout:
    """Where everything goes on a picture of `size`; outlines are in the order in which they are drawn."""

    size: tuple[int, int]
    line: int
    outlines: tuple[tuple[Rect, Colour], ...]
    labels: tuple[Label, ...]


def draw_boxes(image: Image.Image, phrases: Sequence[Phrase]) -> Image.Image:
    """The picture with its boxes outlined and labelled, a colour per phrase; an empty phrase has no label.

    Small pictures are enlarged by a whole factor until a label can be read. What is outside the picture is not drawn, and
    of several labels with the same text those that find no room are left out.
    """
    plan = layout(image.size, phrases)
    canvas = image.convert("RGB")
    if canvas.size != plan.size:
        canvas = canvas.resize(plan.size, Image.Resampling.BICUBIC)
    elif canvas is image:
        canvas = canvas.copy()
    pen = ImageDraw.Draw(canvas)
    edge = _edge(plan.line)
    for rect, colour in plan.outlines:
        x1, y1, x2, y2 = rect
        outer = (max(x1 - edge, 0), max(y1 - edge, 0), min(x2 + edge, plan.size[0]) - 1, min(y2 + edge, plan.size[1]) - 1)
        pen.rectangle(outer, outline=against(colour), width=plan.line + 2 * edge)
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), outline=colour, width=plan.line)
    for label in plan.labels:
        if leader := _leader(label):
            pen.line(leader, fill=against(label.colour), width=plan.line + 2 * edge)
            pen.line(leader, fill=label.colour, width=plan.line)
    for label in plan.labels:
        x1, y1, x2, y2 = label.rect
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=label.colour, outline=against(label.colour), width=edge)
        font, pad = ImageFont.load_default(label.font_size), _pad(label.font_size)
        for i, text in enumerate(label.lines):
            pen.text((x1 + pad, y1 + pad + i * _line_height(font)), text, fill=against(label.colour), font=font)
    return canvas


def against(colour: Colour) -> Colour:
    """Black or white, whichever stands out more against a colour (at least 4.5 : 1 by WCAG's measure)."""
    light = luminance(colour)
    return BLACK if (light + 0.05) / 0.05 > 1.05 / (light + 0.05) else WHITE


def luminance(colour: Colour) -> float:
    """Relative luminance (WCAG 2): 0 for black, 1 for white."""
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in colour))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def layout(size: tuple[int, int], phrases: Sequence[Phrase]) -> Layout:
    """Sizes and places for a picture of `size`."""
    factor = max(1, math.ceil(_SMALL / max(size)))
    width, height = size[0] * factor, size[1] * factor
    measure = min(max(width, height), 3 * min(width, height))  # of long strips the narrow side decides
    line = max(2, round(measure * 0.004))
    found = []  # rect, colour, phrase, whether it is the phrase's first
    for i, (phrase, boxes) in enumerate(phrases):
        rects = [rect for rect in (_rect(box, width, height, line) for box in boxes) if rect]
        found += [(rect, PALETTE[i % len(PALETTE)], " ".join(phrase.split()), j == 0) for j, rect in enumerate(rects)]
    apart = _apart([rect for rect, *_ in found], line)
    found = [(rect, colour, text, first) for rect, (_, colour, text, first) in zip(apart, found, strict=True)]
    outlines = sorted(((rect, colour) for rect, colour, *_ in found), key=lambda o: -_area(o[0]))  # small ones on top
    wanted = sorted((f for f in found if f[2]), key=lambda f: not f[3])  # every phrase once, before any twice
    rects = [rect for rect, _ in outlines]
    base = max(13, round(measure * 0.022))
    labels: list[Label] = []
    for font_size in (base, round(base * 0.85), max(10, round(base * 0.7))):
        labels, left_out = [], False
        for rect, colour, text, first in wanted:
            label = _label(text, font_size, colour, rect, (width, height), [lab.rect for lab in labels], rects)
            if label:
                labels.append(label)
            elif first:
                left_out = True
        if not left_out:
            break
    return Layout((width, height), line, tuple(outlines), tuple(labels))


# outlines ------------------------------------------------------------------------------------------------------------


def _rect(box: Box, width: int, height: int, line: int) -> Rect | None:
    """A box in pixels, large enough to be seen; None where it is outside the picture."""
    visible = box.clipped()
    if not visible.area and (box.area or not box.inside):
        return None
    x1, y1, x2, y2 = (round(v) for v in visible.pixels(width, height))
    x1, x2 = _widened(x1, x2, 3 * line, width)
    y1, y2 = _widened(y1, y2, 3 * line, height)
    return x1, y1, x2, y2


def _widened(low: int, high: int, least: int, limit: int) -> tuple[int, int]:
    """The interval, at least so long, within 0..limit."""
    least = min(least, limit)
    if high - low < least:
        low = max(0, (low + high - least) // 2)
        high = low + least
    return (low, high) if high <= limit else (limit - least, limit)


def _apart(rects: Sequence[Rect], line: int) -> list[Rect]:
    """Outlines that would cover one another (two phrases for the same thing) are drawn inside one another."""
    step, result = line + 2 * _edge(line), []
    for i, rect in enumerate(rects):
        before = sum(all(abs(a - b) <= step // 2 for a, b in zip(rect, other, strict=True)) for other in rects[:i])
        inset = min(before * step, max(0, (min(rect[2] - rect[0], rect[3] - rect[1]) - 3 * line) // 2))
        result.append((rect[0] + inset, rect[1] + inset, rect[2] - inset, rect[3] - inset))
    return result


def _edge(line: int) -> int:
    """Width of the black or white seam on both sides of a coloured line."""
    return max(1, line // 3)


# labels --------------------------------------------------------------------------------------------------------------


def _label(
    text: str, font_size: int, colour: Colour, box: Rect, size: tuple[int, int], taken: Sequence[Rect], boxes: Sequence[Rect]
) -> Label | None:
    """A label as near to its box as there is room, wrapped or cut short if it is long; None if there is no room at all."""
    font, pad = ImageFont.load_default(font_size), _pad(font_size)
    lines = _wrapped(text, font, min(size[0] - 2 * pad, max(size[0] * 0.45, 12 * font_size)))
    if not lines:
        return None
    width = math.ceil(max(font.getlength(line) for line in lines)) + 2 * pad
    height = len(lines) * _line_height(font) + 2 * pad
    if width > size[0] or height > size[1]:
        return None

    def free(place: tuple[int, int]) -> bool:
        return not any(_meet((place[0], place[1], place[0] + width, place[1] + height), other) for other in taken)

    def covered(place: tuple[int, int]) -> float:
        """How many boxes the label would hide, in parts."""
        rect = (place[0], place[1], place[0] + width, place[1] + height)
        return sum(_common(rect, other) / max(_area(other), 1) for other in boxes)

    near = [place for place in _beside(box, width, height, size) if free(place)]
    if near:
        place = min(enumerate(near), key=lambda p: p[0] * 0.15 + covered(p[1]))[1]
    else:
        step = max(height // 2, 1)
        anywhere = [(x, y) for y in range(0, size[1] - height + 1, step) for x in range(0, size[0] - width + 1, step)]
        anywhere.sort(key=lambda p: _distance((p[0], p[1], p[0] + width, p[1] + height), box))
        found = next(filter(free, anywhere), None)
        if found is None:
            return None
        place = found
    return Label(tuple(lines), (place[0], place[1], place[0] + width, place[1] + height), font_size, colour, box)


def _beside(box: Rect, width: int, height: int, size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Places for a label at its box, the best first: on top of it, in its corner, under it, at its sides."""
    x1, y1, x2, y2 = box
    for x, y in (
        (x1, y1 - height),
        (x2 - width, y1 - height),
        (x1, y1),
        (x2 - width, y1),
        (x1, y2),
        (x2 - width, y2),
        (x1, y2 - height),
        (x2 - width, y2 - height),
        (x2, y1),
        (x1 - width, y1),
        (x2, y2 - height),
        (x1 - width, y2 - height),
    ):
        inside_x = min(max(x, 0), size[0] - width)
        if 0 <= y <= size[1] - height and inside_x < x2 and inside_x + width > x1 - width:
            yield inside_x, y


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    """At most three lines that fit; what is too much ends in an ellipsis."""
    lines: list[str] = []
    words = text.split()
    while words and len(lines) < _LINES:
        count = 1
        while count < len(words) and font.getlength(" ".join(words[: count + 1])) <= width:
            count += 1
        lines.append(" ".join(words[:count]))
        words = words[count:]
    if words:
        lines[-1] += " ..."
    return [_cut(line, font, width) for line in lines]


def _cut(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    if font.getlength(line) <= width:
        return line
    line = line.removesuffix("...").rstrip()
    while line and font.getlength(line + "...") > width:
        line = line[:-1].rstrip()
    return line + "..."


def _line_height(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return sum(font.getmetrics()) if isinstance(font, ImageFont.FreeTypeFont) else 11


def _pad(font_size: int) -> int:
    return max(2, font_size // 5)


def _leader(label: Label) -> tuple[int, int, int, int] | None:
    """A line from a label to its box, where they do not touch."""
    (a1, b1, a2, b2), (x1, y1, x2, y2) = label.rect, label.box
    if _distance(label.rect, label.box) <= 2:
        return None
    ax, ay = min(max((x1 + x2) // 2, a1), a2 - 1), min(max((y1 + y2) // 2, b1), b2 - 1)
    return ax, ay, min(max(ax, x1), x2 - 1), min(max(ay, y1), y2 - 1)


# rectangles ----------------------------------------------------------------------------------------------------------


def _area(rect: Rect) -> int:
    return (rect[2] - rect[0]) * (rect[3] - rect[1])


def _common(a: Rect, b: Rect) -> int:
    """Pixels that both have."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _meet(a: Rect, b: Rect) -> bool:
    """Whether two labels would touch: they keep a pixel apart."""
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _distance(a: Rect, b: Rect) -> float:
    """Between two rectangles, 0 where they touch."""
    return math.hypot(max(b[0] - a[2], a[0] - b[2], 0), max(b[1] - a[3], a[1] - b[3], 0))
