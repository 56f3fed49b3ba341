"""API keys: made at random, kept as hashes, compared in constant time.

A key has 256 random bits, so that a plain SHA-256 of it cannot be searched for; slow hashes are for passwords.
"""

import contextlib
import errno
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from ..errors import UserError
from .settings import LOOPBACK

_PREFIX = "mg4-"


class Keys:
    """The keys that a server knows.

    Args:
        hashes: by name, the SHA-256 of a key as 64 hexadecimal digits.
    """

    def __init__(self, hashes: Mapping[str, str]):
        self._hashes = dict(hashes)

    @classmethod
    def read(cls, file: Path) -> "Keys":
        """Keys from a file that `add_key` wrote.

        Raises:
            UserError: no such file, or something else in it.
        """
        try:
            lines = file.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{file}: cannot be read as a file of keys ({getattr(error, 'strerror', None) or 'no text'})"
            ) from None
        hashes: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            name, _, digest = line.partition(" ")
            if not re.fullmatch("[0-9a-f]{64}", digest.strip()):
                raise UserError(f"{file}, line {number}: not a name and the hash of a key; make keys with --new-key NAME")
            hashes[name] = digest.strip()
        if not hashes:
            raise UserError(f"{file}: holds no key; make one with --new-key NAME")
        return cls(hashes)

    def name_of(self, authorization: str) -> str | None:
        """Whose key an ``Authorization`` header holds; None for nobody's. Takes the same time whatever is wrong."""
        scheme, _, key = authorization.partition(" ")
        given, found = _hash(key.strip()), None
        for name, known in self._hashes.items():
            if hmac.compare_digest(given, known):
                found = name
        return found if scheme.lower() == "bearer" else None


def keys_for(host: str, file: Path | None) -> Keys | None:
    """The keys of a server at this address; None where everybody who reaches it may ask.

    Raises:
        UserError: others than this machine could reach it, and there are no keys.
    """
    if file is not None:
        return Keys.read(file)
    if host not in LOOPBACK:
        raise UserError(
            f"at {host}, others could ask too: give --keys FILE (make one with --new-key NAME), or stay at 127.0.0.1"
        )
    return None


def add_key(file: Path, name: str) -> str:
    """Make a key, add its hash to a file that its owner alone can read, and return the key: it is nowhere else.

    Raises:
        UserError: a name that is taken or is no word, or a file that cannot be written.
    """
    if not re.fullmatch(r"[\w.@-]{1,64}", name):
        raise UserError(f"{name!r}: a key's name is one word of letters, digits, and . @ - _")
    key = _PREFIX + secrets.token_urlsafe(32)
    before: int | None = None
    try:
        with open(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b", buffering=0) as lines:
            text = lines.read()
            if text.strip() and name in Keys.read(file)._hashes:
                raise UserError(f"{file}: there is a key of the name {name} already; take its line out first")
            before = len(text)
            gap = "" if not text or text.endswith(b"\n") else "\n"  # an editor may have left the last line without its end
            line = f"{gap}{name} {_hash(key)}\n".encode()
            if lines.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(lines.fileno())
    except OSError as error:
        if before is not None:
            with contextlib.suppress(OSError):  # half a line would keep the server from starting
                os.truncate(file, before)
        raise UserError(f"{file}: cannot write ({error.strerror}); the keys that were there are as they were") from None
    return key


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()
