"""RefCOCO, RefCOCO+ and RefCOCOg in the layout of the REFER toolkit: from a sentence to a box, or from a box to a sentence."""

import io
import os
import pickle
import random
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...media.images import open_image
from ...prompt.boxes import Box
from ...prompt.text import clean_text
from ..sample import Turn
from ..schema import phrase_turns
from ..values import kind_of
from .base import Annotated, Fields, choose, coco_names
from .files import Paths, load_json


class Referring(Annotated):
    """One thing in a picture, with its box and the ways in which people refer to it.

    Items are (names of the picture, sentences, xywh in pixels, size of the picture or None). The box is written with its
    numbers truncated, as the published weights learnt them.

    Args:
        official: write boxes that reach over the picture's edge with numbers beyond 100, as the published reader does;
            otherwise they end at the edge.
    """

    task = "refer"

    def __init__(self, *, official: bool = False, **options):
        self.official = official
        self._measured: dict[Path | None, tuple[int, int]] = {}
        super().__init__(**options)

    def _names(self, item):
        return item[0]

    def _turns(self, item, image, rng: random.Random) -> tuple[Turn, ...]:
        return phrase_turns(self.task, rng.choice(item[1]), [self._box(item, image)], rng, "truncate")

    def _extra(self, item, image):
        return {"boxes": (self._box(item, image),)}

    def _box(self, item: tuple, image: Path | None) -> Box:
        box = Box.from_xywh(*item[2], *(item[3] or self._measure(image)))
        return box if self.official else box.clipped()

    def _measure(self, image: Path | None) -> tuple[int, int]:
        """Width and height of a picture of which the annotations do not say it."""
        if image not in self._measured:
            self._measured[image] = open_image(image).size  # type: ignore[arg-type]
        return self._measured[image]


class RefCoco(Referring):
    """A REFER dataset: ``instances.json`` and ``refs(unc).p`` in one folder.

    Args:
        annotations: the dataset's folder, or the one around it.
        images: the folder of COCO's train2014 pictures.
        split: ``train`` (as published), ``val``, ``test``, ``testA`` or ``testB``.
        by: whose split it is: ``unc``, ``google`` or ``umd``.
    """

    dataset = "refcoco"
    by = "unc"

    def __init__(self, *, annotations: Paths, split: str = "train", by: str | None = None, **options):
        self.split = choose("split", split, ("train", "val", "test", "testA", "testB"))
        if not isinstance(annotations, str | os.PathLike):
            raise UserError(f"annotations: expected the folder {self.dataset}, found {annotations!r}")
        folder = os.path.join(annotations, self.dataset)
        folder = folder if os.path.isdir(folder) else os.fspath(annotations)
        self.expected = f"refs({by or self.by}).p of the REFER toolkit"
        instances = os.path.join(folder, "instances.json")
        data = load_json(instances)
        if not isinstance(data, dict) or not all(isinstance(data.get(k), list) for k in ("images", "annotations")):
            raise UserError(f'{instances}: expected {{"images": [...], "annotations": [...]}}, found {kind_of(data)}')
        self._instances = {str(row.get("id")): row for row in data["annotations"] if isinstance(row, dict)}
        self._sizes = {str(row.get("id")): row for row in data["images"] if isinstance(row, dict)}
        super().__init__(annotations=os.path.join(folder, f"refs({by or self.by}).p"), **options)
        del self._instances, self._sizes

    def _load(self, path: str) -> Any:
        return load_plain_pickle(path)

    def _read(self, row: Fields) -> Iterable[tuple]:
        if row.text("split") != self.split:
            return
        number, image = row.code("ann_id"), row.code("image_id")
        annotation = self._instances.get(number)
        if annotation is None:
            raise UserError(f'{row.where}: "ann_id" {number} is not in instances.json')
        sentences = [clean_text(one.text("raw" if "raw" in one else "sent")) for one in row.rows("sentences")]
        sentences = [sentence for sentence in sentences if sentence]
        if not sentences:
            raise UserError(f'{row.where}: "sentences" have no words in them')
        box = Fields(annotation, f"instances.json, annotation {number}").numbers("bbox", 4)
        size = self._sizes.get(image, {})
        known = isinstance(size.get("width"), int) and isinstance(size.get("height"), int)
        yield coco_names(image), tuple(sentences), box, (size["width"], size["height"]) if known else None


class RefCocoPlus(RefCoco):
    """RefCOCO+."""

    dataset = "refcoco+"


class RefCocoG(RefCoco):
    """RefCOCOg, in the split of UMD."""

    dataset, by = "refcocog", "umd"


class InvRefCoco(RefCoco):
    """RefCOCO from the box to a sentence."""

    task = "identify"


class InvRefCocoPlus(RefCocoPlus):
    """RefCOCO+ from the box to a sentence."""

    task = "identify"


class InvRefCocoG(RefCocoG):
    """RefCOCOg from the box to a sentence."""

    task = "identify"


def load_plain_pickle(path: str) -> Any:
    """A pickle of dicts, lists, texts and numbers; anything else in it is refused, for it could run any program.

    Raises:
        UserError: the file is missing, cut short, or holds something else.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    for encoding in ("utf-8", "latin-1"):  # of the byte strings that Python 2 wrote
        try:
            return _Plain(data, encoding).load()
        except UnicodeDecodeError:
            continue
        except _NotPlain as error:
            raise UserError(f"{path}: not a pickle of plain lists and dicts ({error})") from None
        except Exception as error:  # a damaged pickle can raise anything
            raise UserError(f"{path}: not a whole pickle ({type(error).__name__}: {error})") from None
    raise AssertionError("latin-1 decodes everything")


class _NotPlain(Exception):
    """A pickle wants to make something that is no plain container."""


class _Plain(pickle.Unpickler):
    def __init__(self, data: bytes, encoding: str):
        super().__init__(io.BytesIO(data), encoding=encoding)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise _NotPlain(f"it asks for {module}.{name}")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("__builtin__", "set"): set,
    ("__builtin__", "frozenset"): frozenset,
}
