"""The three Flickr30k datasets of MiniGPT-v2's third stage, in its own files: answers with boxes written in, as they stand."""

from collections.abc import Iterable

from ..sample import ask
from .base import Annotated, Fields, instruct


class Flickr(Annotated):
    """Items are (number of the picture, what is asked about, answer)."""

    def _names(self, item):
        return (f"{item[0]}.jpg",)

    def _turns(self, item, image, rng):
        return ask(instruct(self.task or "", item[1], rng), item[2])


class GroundedCaption(Flickr):
    """``groundedcaption.json``: a list of {"image_id", "grounded_caption"}."""

    task = "grounding"
    expected = "groundedcaption.json, a list of {image_id, grounded_caption}"

    def _read(self, row: Fields) -> Iterable[tuple]:
        yield row.code("image_id"), "", row.text("grounded_caption")


class CaptionToPhrase(Flickr):
    """``captiontobbox.json``: a list of {"image_id", "caption", "output"}."""

    task = "detection"
    expected = "captiontobbox.json, a list of {image_id, caption, output}"

    def _read(self, row: Fields) -> Iterable[tuple]:
        yield row.code("image_id"), row.text("caption"), row.text("output")


class ObjectToPhrase(Flickr):
    """``phrasetobbox.json``: a list of {"image_id", "phrase", "bbox"}."""

    task = "detection"
    expected = "phrasetobbox.json, a list of {image_id, phrase, bbox}"

    def _read(self, row: Fields) -> Iterable[tuple]:
        phrase = row.text("phrase")
        yield row.code("image_id"), phrase, f"<p>{phrase}</p> {row.text('bbox')}"
