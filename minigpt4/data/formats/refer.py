"""RefCOCO, RefCOCO+ and RefCOCOg in the layout of the REFER toolkit: from a sentence to a box, or from a box to a sentence."""

import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...prompt.text import clean_text
from ..schema import Row
from ..source import Problem
from ..values import kind_of
from .fields import Fields, choose, coco_names, each, listed
from .files import Paths, files, load_json
from .forms import ThingInPixels


def refcoco(
    annotations: Paths, dataset: str, task: str, *, split: str = "train", by: str = "unc", official: bool = False
) -> Iterator[Row | Problem]:
    """A REFER dataset: ``instances.json`` and ``refs(unc).p`` in one folder.

    Args:
        annotations: the dataset's folder, or the one around it.
        dataset: the dataset's folder in that one.
        task: ``refer`` or ``identify``.
        split: ``train`` (as published), ``val``, ``test``, ``testA`` or ``testB``.
        by: whose split it is: ``unc``, ``google`` or ``umd``.
        official: write boxes that reach over the picture's edge with numbers beyond 100, as the published reader does;
            otherwise they end at the edge.
    """
    choose("split", split, ("train", "val", "test", "testA", "testB"))
    if not isinstance(annotations, str | os.PathLike):
        raise UserError(f"annotations: expected the folder {dataset}, found {annotations!r}")
    folder = os.path.join(annotations, dataset)
    folder = folder if os.path.isdir(folder) else os.fspath(annotations)
    instances = os.path.join(folder, "instances.json")
    data = load_json(instances)
    if not isinstance(data, dict) or not all(isinstance(data.get(k), list) for k in ("images", "annotations")):
        raise UserError(f'{instances}: expected {{"images": [...], "annotations": [...]}}, found {kind_of(data)}')
    things, images = ({str(row.get("id")): row for row in data[k] if isinstance(row, dict)} for k in ("annotations", "images"))
    expected = f"refs({by}).p of the REFER toolkit"
    (path,) = files(os.path.join(folder, f"refs({by}).p"), "annotations", expected)
    rows = listed(load_plain_pickle(path), path, expected)
    yield from each(rows, partial(_read, split=split, task=task, official=official, things=things, images=images))


def _read(row: Fields, split: str, task: str, official: bool, things: dict[str, Any], images: dict[str, Any]) -> Iterator[Row]:
    if row.text("split") != split:
        return
    number, image = row.code("ann_id"), row.code("image_id")
    if number not in things:
        raise UserError(f'{row.where}: "ann_id" {number} is not in instances.json')
    sentences = [clean_text(one.text("raw" if "raw" in one else "sent")) for one in row.rows("sentences")]
    phrases = tuple(sentence for sentence in sentences if sentence)
    if not phrases:
        raise UserError(f'{row.where}: "sentences" have no words in them')
    box = Fields(things[number], f"instances.json, annotation {number}").numbers("bbox", 4)
    found = images.get(image, {})
    known = all(isinstance(found.get(side), int) and found[side] > 0 for side in ("width", "height"))
    size = (found["width"], found["height"]) if known else None
    name, *others = coco_names(image)
    yield ThingInPixels(
        **row.place,
        images=(name,),
        aliases=tuple(others),
        size=size,
        task=task,
        phrases=phrases,
        xywh=box,
        over_edges=official,
    )


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
