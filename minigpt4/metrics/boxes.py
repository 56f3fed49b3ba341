"""How well boxes agree."""

import re
from collections.abc import Sequence

from ..prompt.boxes import GRID, Box

OFFICIAL_THRESHOLD = 0.5


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0..1; 0 where neither has any area."""
    common = max(0.0, min(a.x2, b.x2) - max(a.x1, b.x1)) * max(0.0, min(a.y2, b.y2) - max(a.y1, b.y1))
    union = a.area + b.area - common
    return common / union if union > 0 else 0.0


def matches(predicted: Sequence[Box], truth: Sequence[Box], threshold: float = 0.5) -> int:
    """How many predicted boxes can be paired with true ones, each used once, at an IoU of at least `threshold`.

    The largest possible number: no score says which box is to choose first.
    """
    fits = [[j for j, t in enumerate(truth) if iou(p, t) >= threshold] for p in predicted]
    taken: dict[int, int] = {}  # true box -> predicted box

    def place(i: int, seen: set[int]) -> bool:
        for j in fits[i]:
            if j not in seen:
                seen.add(j)
                if j not in taken or place(taken[j], seen):
                    taken[j] = i
                    return True
        return False

    return sum(place(i, set()) for i in range(len(predicted)))


def union_box(boxes: Sequence[Box]) -> Box:
    """The smallest box around all."""
    return Box(min(b.x1 for b in boxes), min(b.y1 for b in boxes), max(b.x2 for b in boxes), max(b.y2 for b in boxes))


# the published convention ------------------------------------------------------------------------------------------------


def official_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """IoU of (left, top, right, bottom) in pixels as the published evaluation has it: it takes the right and bottom for
    the last pixels inside, and so adds one to every width and height."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    area_a = (a[2] - a[0] + 1) * (a[3] - a[1] + 1)
    area_b = (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
    return width * height / float(area_a + area_b - width * height)


def official_answer(answer: str, width: float, height: float) -> tuple[str | None, list[float]]:
    """What the published evaluation takes from an answer to ``[refer]``.

    Returns:
        The answer without blanks, and line ends around it, if it *begins* with a box (of numbers of up to three digits), else
        None; and every number in it, the first four in pixels. The evaluation counts an answer with more or fewer than four
        numbers as wrong.
    """
    answer = answer.replace("<unk>", "").replace(" ", "").strip()
    if not re.match(r"\{<\d{1,3}><\d{1,3}><\d{1,3}><\d{1,3}>\}", answer):
        return None, []
    numbers: list[float] = [int(v) for v in re.findall(r"\d+", answer)]
    for i, size in enumerate((width, height, width, height)):
        numbers[i] = numbers[i] / GRID * size
    return answer, numbers


def official_correct(answer: str, truth: Sequence[float], width: float, height: float) -> bool:
    """Whether the published evaluation counts an answer to ``[refer]`` as right; `truth` is left, top, right and bottom in
    pixels."""
    accepted, pixels = official_answer(answer, width, height)
    return accepted is not None and len(pixels) == 4 and official_iou(pixels, truth) > OFFICIAL_THRESHOLD
