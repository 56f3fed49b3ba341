"""The three Flickr30k datasets of MiniGPT-v2's third stage, in its own files: answers with boxes written in, as they stand."""

from collections.abc import Callable, Iterator

from ..schema import Row
from ..source import Problem
from .fields import Fields, each, listed
from .files import Paths, files, load_json
from .forms import Written


def flickr_grounded_caption(annotations: Paths) -> Iterator[Row | Problem]:
    """``groundedcaption.json``: a list of {"image_id", "grounded_caption"}."""
    expected = "groundedcaption.json, a list of {image_id, grounded_caption}"
    return _rows(annotations, expected, "grounding", lambda row: (row.code("image_id"), "", row.text("grounded_caption")))


def flickr_caption_to_phrase(annotations: Paths) -> Iterator[Row | Problem]:
    """``captiontobbox.json``: a list of {"image_id", "caption", "output"}."""
    expected = "captiontobbox.json, a list of {image_id, caption, output}"
    return _rows(
        annotations, expected, "detection", lambda row: (row.code("image_id"), row.text("caption"), row.text("output"))
    )


def flickr_object_to_phrase(annotations: Paths) -> Iterator[Row | Problem]:
    """``phrasetobbox.json``: a list of {"image_id", "phrase", "bbox"}."""
    expected = "phrasetobbox.json, a list of {image_id, phrase, bbox}"

    def read(row: Fields) -> tuple[str, str, str]:
        phrase = row.text("phrase")
        return row.code("image_id"), phrase, f"<p>{phrase}</p> {row.text('bbox')}"

    return _rows(annotations, expected, "detection", read)


def _rows(
    annotations: Paths, expected: str, task: str, read: Callable[[Fields], tuple[str, str, str]]
) -> Iterator[Row | Problem]:
    """Rows of a task, of which `read` gives the image's number, what is asked about, and the answer."""

    def written(row: Fields) -> Iterator[Row]:
        number, subject, answer = read(row)
        yield Written(**row.place, images=(f"{number}.jpg",), task=task, subject=subject, answer=answer)

    for path in files(annotations, "annotations", expected):
        yield from each(listed(load_json(path), path, expected), written)
