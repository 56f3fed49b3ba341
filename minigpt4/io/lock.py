"""One writer at a time for a file or a folder, on one machine."""

import contextlib
import getpass
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from .cache_dir import cache_folder

if TYPE_CHECKING:
    from filelock import FileLock


def hold(place: str | os.PathLike, what: str) -> "FileLock":
    """A lock on a file or a folder, held until it is released or the process ends. It does not lie beside it, but in the cache
    folder, or with other temporary files where nothing can be written there.

    Args:
        what: who writes there, for the message: "a training", say.

    Raises:
        UserError: another process holds it.
    """
    from filelock import FileLock, Timeout

    name = hashlib.sha256(os.fsencode(os.path.realpath(place))).hexdigest()[:24]
    fault: OSError | None = None
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / f"{name}.lock")
            lock.acquire(timeout=0)
            return lock
        except Timeout:
            raise UserError(f"{Path(place)}: {what} is writing there already; wait for it, or name another place") from None
        except (OSError, NotImplementedError) as error:  # read-only, full, or a disk that knows no locks
            fault = error if isinstance(error, OSError) else OSError(str(error))
    assert fault is not None
    raise UserError(
        f"{cache_folder()}: no lock can be made there ({fault.strerror or fault}); name another cache in MINIGPT4_CACHE"
    ) from None


def _folders() -> Iterator[Path]:
    yield cache_folder() / "locks"
    user = "user"
    with contextlib.suppress(Exception):  # a number without a name in the system's list
        user = getpass.getuser()
    yield Path(tempfile.gettempdir()) / f"minigpt4-locks-{user}"
