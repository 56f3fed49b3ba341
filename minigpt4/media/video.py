"""Frames of a video with their times: evenly, every so many seconds, or where the image changes.

Needs PyAV (``pip install 'minigpt4[video]'``). A video is decoded forward from its beginning: seeking is not exact.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ..errors import UserError
from .images import MAX_PIXELS

Sampling = Literal["uniform", "interval", "change"]
SAMPLINGS: tuple[Sampling, ...] = ("uniform", "interval", "change")
EXTENSIONS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv", ".wmv", ".flv", ".ts"})
MOST_FRAMES = 256
"""Frames that may be taken from one video."""
_SMALL = (32, 32)


@dataclass(frozen=True)
class Frame:
    """A frame of a video: its place among all frames (from 0), its time in seconds from the first one, and the image."""

    index: int
    time: float
    image: Image.Image


def frames_of(
    path: str | os.PathLike, count: int = 8, how: Sampling = "uniform", interval: float = 2.0, side: int | None = 1024
) -> list[Frame]:
    """Frames of a video, in order.

    Args:
        count: how many for ``uniform`` and ``change``, how many at most for ``interval``; fewer of a shorter video.
        how: ``uniform`` takes the middles of equal parts; ``interval`` one every `interval` seconds, from the first on;
            ``change`` the first frame and those that differ most from the one before.
        interval: seconds.
        side: longer sides are made so long, in pixels.

    Raises:
        UserError: no such file, no video in it, or one that cannot be decoded.
    """
    if how not in SAMPLINGS:
        raise UserError(f"frames are sampled by {', '.join(SAMPLINGS)}, not {how!r}")
    if not 1 <= count <= MOST_FRAMES:
        raise UserError(f"the number of frames must be from 1 to {MOST_FRAMES}, not {count}")
    if not interval > 0:
        raise UserError(f"the interval must be above 0 seconds, not {interval}")
    picks = _PICKS[how](_times_and_changes(path, changes=how == "change"), count, interval)
    found = []
    for index, time, frame in _decoded(path):
        if index in picks:
            found.append(Frame(index, time, _upright(frame, side)))
            if len(found) == len(picks):
                break
    return found


def _uniform(seen: list[tuple[float, float]], count: int, interval: float) -> set[int]:
    count = min(count, len(seen))
    return {int((i + 0.5) * len(seen) / count) for i in range(count)}


def _interval(seen: list[tuple[float, float]], count: int, interval: float) -> set[int]:
    picks: list[int] = []
    due = 0.0
    for index, (time, _) in enumerate(seen):
        if time >= due - 1e-6 and len(picks) < count:
            picks.append(index)
            due = (int((time + 1e-6) / interval) + 1) * interval
    return set(picks)


def _change(seen: list[tuple[float, float]], count: int, interval: float) -> set[int]:
    most = sorted(range(1, len(seen)), key=lambda i: (-seen[i][1], i))
    return {0, *most[: count - 1]}


_PICKS: dict[Sampling, Callable[[list[tuple[float, float]], int, float], set[int]]] = {
    "uniform": _uniform,
    "interval": _interval,
    "change": _change,
}


def _times_and_changes(path: str | os.PathLike, changes: bool) -> list[tuple[float, float]]:
    """Of every frame its time, and its mean difference to the one before on a small grey scale (0 to 255)."""
    seen, before = [], None
    for _, time, frame in _decoded(path):
        change = 0.0
        if changes:
            small = frame.reformat(*_SMALL, format="gray").to_ndarray().astype(np.float32)
            change = 0.0 if before is None else float(np.abs(small - before).mean())
            before = small
        seen.append((time, change))
    if not seen:
        raise UserError(f"{path}: no frame of this video can be decoded")
    return seen


def _decoded(path: str | os.PathLike) -> Iterator[tuple[int, float, Any]]:
    """Number, time and decoded frame. What comes after a place that is damaged is left out."""
    with _opened(path) as (container, errors):
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        first, rate = None, float(stream.average_rate or 25)
        decoded = container.decode(stream)
        index = 0
        while True:
            try:
                frame = next(decoded, None)
            except errors:
                if index:  # cut short: what was read is of use
                    return
                raise
            if frame is None:
                return
            time = frame.time if frame.time is not None else index / rate
            first = time if first is None else first
            yield index, max(time - first, 0.0), frame
            index += 1


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[tuple[Any, Any]]:
    try:
        import av
    except ImportError:
        raise UserError("video needs PyAV: pip install 'minigpt4[video]'") from None
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        with av.open(os.fspath(path)) as container:
            if container.format.name == "image2" or container.format.name.endswith("_pipe"):
                raise UserError(f"{path}: an image, not a video")
            if not container.streams.video:
                raise UserError(f"{path}: there is no video in this file")
            stream = container.streams.video[0]
            if stream.width * stream.height > MAX_PIXELS:
                raise UserError(f"{path}: frames of {stream.width:,} x {stream.height:,} pixels are too large")
            yield container, av.error.FFmpegError
    except av.error.FFmpegError as error:
        raise UserError(f"{path}: not a video that can be read ({error.strerror or type(error).__name__})") from None


def _upright(frame: Any, side: int | None) -> Image.Image:
    image = frame.to_image()
    if turned := getattr(frame, "rotation", 0):
        image = image.rotate(turned, expand=True)
    if side is not None:
        image.thumbnail((side, side))
    return image
