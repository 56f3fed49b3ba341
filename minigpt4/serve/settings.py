"""What a server allows."""

import math
from dataclasses import dataclass, fields

from ..errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """Bounds of a server: of one request, of one key, and of all together."""

    body_bytes: int = 64 << 20
    """Of a request."""
    image_bytes: int = 20 << 20
    """Of one image, as it is stored."""
    image_pixels: int = 50_000_000
    """Of one image; read from its header, before it is decoded."""
    images: int = 16
    """In one request."""
    text_characters: int = 200_000
    """In one request."""
    seconds: float = 300.0
    """For one answer; then it is given up."""
    requests: int = 256
    """On their way at a time, of all callers together."""
    requests_per_key: int = 64
    """On their way at a time, of one key."""
    per_minute: int = 0
    """Requests of one key in a minute; 0 for as many as there are."""
    remote_images: bool = False
    """Fetch images from public addresses, where a request names one."""
    remote_seconds: float = 10.0
    """For fetching one image, redirects included."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("remote_images", "per_minute") and not 0 < value < math.inf:
                raise UserError(f"{field.name} must be a number above 0, not {value}")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How many replicas there are.

    Args:
        least, most: Ray keeps their number between these, by how many requests are on their way.
        gpus: of each replica.
    """

    least: int = 1
    most: int = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise UserError(f"replicas: from {self.least} to {self.most} is no range; the most must be the least or more")
