"""Where what can be made again is kept."""

import os
import sys
from pathlib import Path

from ..errors import UserError


def cache_folder() -> Path:
    """Where prepared parts are kept: ``$MINIGPT4_CACHE``, or the user's cache folder."""
    if chosen := os.environ.get("MINIGPT4_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "minigpt4"
    except RuntimeError:
        raise UserError("there is no home folder to keep the pocket model in; name another in MINIGPT4_CACHE") from None
