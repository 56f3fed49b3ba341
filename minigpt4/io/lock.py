"""One writer at a time for a file or a folder, on one machine."""

import hashlib
import os
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import UserError
from .cache_dir import cache_folder


def hold(place: str | os.PathLike, what: str) -> FileLock:
    """A lock on a file or a folder, held until it is released or the process ends. It lies in the cache folder, not beside it.

    Args:
        what: who writes there, for the message: "a training", say.

    Raises:
        UserError: another process holds it.
    """
    name = hashlib.sha256(os.fsencode(os.path.realpath(place))).hexdigest()[:24]
    folder = cache_folder() / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{name}.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{Path(place)}: {what} is writing there already; wait for it, or name another place") from None
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); name another cache in MINIGPT4_CACHE") from None
    return lock
