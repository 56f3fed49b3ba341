"""Images that come in requests: bounded before they are decoded, never a file of this machine."""

import base64
import binascii
import re

from PIL import Image

from ..errors import UserError
from ..media.images import decode_image
from .remote import fetch
from .settings import Allowed

_DATA = re.compile(r"data:(?:image/[\w.+-]+|application/octet-stream)?((?:;[\w=.+-]+)*);base64,", re.IGNORECASE)


def read_image(url: str, allowed: Allowed) -> Image.Image:
    """The image that a request gives, as upright RGB.

    Raises:
        UserError: it is no data URI (or, where allowed, no public address), too large, or no image.
    """
    if match := _DATA.match(url):
        if (len(url) - match.end()) * 3 // 4 > allowed.image_bytes + 2:
            raise UserError(f"the image has more than the {allowed.image_bytes:,} bytes allowed")
        try:
            data = base64.b64decode(url[match.end() :].encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise UserError("the image's data URI is not valid base64") from None
    elif url[:8].lower().startswith(("http://", "https://")):
        if not allowed.remote_images:
            raise UserError("this server fetches no images: send the image itself, as data:image/jpeg;base64,...")
        data = fetch(url, allowed.image_bytes, allowed.remote_seconds)
    else:
        raise UserError("an image must be a data URI: data:image/jpeg;base64,...")
    return decode(data, allowed)


def decode(data: bytes, allowed: Allowed) -> Image.Image:
    """Bytes of an image file as upright RGB.

    Raises:
        UserError: too many bytes or pixels, or no image.
    """
    if len(data) > allowed.image_bytes:
        raise UserError(f"the image has more than the {allowed.image_bytes:,} bytes allowed")
    return decode_image(data, "the image", allowed.image_pixels)
