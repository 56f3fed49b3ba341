"""Images in whatever form they come: files, addresses, bytes, arrays, tensors, and lists of these."""

import base64
import binascii
import os
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import torch
from PIL import Image

from ..errors import UserError
from .images import MAX_PIXELS, ImageInput, decode_image

_MOST_BYTES = 4 * MAX_PIXELS
_TIMEOUT = 30  # seconds
PART_KEYS = ("image", "path", "url", "image_url", "base64")
"""Where a message's image part may hold its image."""


def all_images(given: Any) -> list[ImageInput]:
    """One image or a list of any depth, as a flat list of files and PIL images, in order.

    Args:
        given: paths, ``file:``, ``data:`` and ``http(s):`` addresses, PIL images, bytes, open binary files, and arrays or
            tensors: (H, W), (H, W, C) or (C, H, W), of bytes or of floats from 0 to 1; with four dimensions, a batch.

    Raises:
        UserError: something that is no image.
    """
    if given is None:
        return []
    if isinstance(given, list | tuple):
        return [image for one in given for image in all_images(one)]
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu().float().numpy() if given.is_floating_point() else given.detach().cpu().numpy()
    if isinstance(given, np.ndarray):
        return [_from_array(one) for one in given] if given.ndim == 4 else [_from_array(given)]
    return [_one(given)]


def image_of_part(part: Mapping[str, Any]) -> ImageInput:
    """The image of a message's part: ``{"type": "image", "path": ...}``, or with an address in it (`PART_KEYS`)."""
    found = [part[key] for key in PART_KEYS if part.get(key) is not None]
    if len(found) != 1:
        raise UserError(f"an image part has one of {', '.join(PART_KEYS)}, not {len(found)}: {', '.join(map(str, part))}")
    value = found[0]["url"] if isinstance(found[0], Mapping) and "url" in found[0] else found[0]
    if "base64" in part:
        return decode_image(_from_base64(value), "base64")
    (image,) = all_images(value)
    return image


def _one(given: Any) -> ImageInput:
    if isinstance(given, str):
        kind = given[:8].lower()
        if kind.startswith("data:"):
            return decode_image(_from_base64(given.partition(",")[2]), "data: address")
        if kind.startswith("file://"):
            return unquote(urlsplit(given).path)
        if kind.startswith(("http://", "https://")):
            return decode_image(_fetched(given), given)
        return given
    if isinstance(given, os.PathLike | Image.Image):
        return given
    if isinstance(given, bytes | bytearray | memoryview):
        return decode_image(bytes(given), "bytes")
    if hasattr(given, "read"):
        data = given.read(_MOST_BYTES)
        if not isinstance(data, bytes):
            raise UserError("an image's file must be opened in binary mode ('rb')")
        return decode_image(data, str(getattr(given, "name", "file")))
    raise UserError(f"expected an image (path, PIL image, bytes, array or tensor), found {type(given).__name__}")


def _from_array(values: np.ndarray) -> Image.Image:
    shape = values.shape
    if values.ndim == 3 and shape[-1] not in (1, 3, 4) and shape[0] in (1, 3, 4):
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if not values.size or values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[-1] not in (3, 4)):
        raise UserError(f"an array of shape {tuple(shape)} is no image: expected (H, W), (H, W, C) or (C, H, W)")
    if values.dtype == bool or np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float64)
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise UserError("an image of floats has values from 0 to 1 (not normalised ones); give bytes for 0 to 255")
        values = (values * 255).round()
    elif values.min() < 0 or values.max() > 255:
        raise UserError("an image of whole numbers has values from 0 to 255")
    return Image.fromarray(np.ascontiguousarray(values.astype(np.uint8)))


def _from_base64(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=False)
    except (binascii.Error, TypeError, ValueError):
        raise UserError("an image in base64 that cannot be read") from None


def _fetched(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
            return answer.read(_MOST_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(f"{url}: cannot be fetched ({error})") from None
