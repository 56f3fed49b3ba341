"""Fetching an image from an address, and from no address that is not public.

A name is resolved once, all its addresses are checked, and the connection is made to the very address that was checked; a
redirect is a new address and checked as such.
"""

import http.client
import ipaddress
import socket
import ssl
import time
from urllib.parse import urljoin, urlsplit

from ..errors import UserError

_REDIRECTS = 3
_UNICAST = ipaddress.ip_network("2000::/3")  # of IPv6, what is given out; all else is local, a way to IPv4, or nobody's
_DOCUMENTATION = ipaddress.ip_network("3fff::/20")  # not known to every Python
_PIECE = 64 * 1024


def fetch(url: str, most_bytes: int, seconds: float) -> bytes:
    """What is at an address.

    Raises:
        UserError: it is no public address, is not there, is too large, or takes too long.
    """
    deadline = time.monotonic() + seconds
    for _ in range(_REDIRECTS + 1):
        found = _get(url, most_bytes, deadline)
        if isinstance(found, bytes):
            return found
        url = urljoin(url, found)
    raise UserError("the image's address redirects too often")


def _get(url: str, most_bytes: int, deadline: float) -> bytes | str:
    """The content, or where it is said to be instead."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.username is not None:
        raise UserError("an image's address must be a plain http or https address")
    port = port or (443 if parts.scheme == "https" else 80)
    address = public_address(host, port)
    connection = _Pinned(host, port, address, parts.scheme == "https", _left(deadline))
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("GET", path, headers={"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "minigpt4"})
        answer = connection.getresponse()
        if answer.status in (301, 302, 303, 307, 308) and (where := answer.getheader("Location")):
            return where
        if answer.status != 200:
            raise UserError(f"the image's address answers with status {answer.status}")
        content = bytearray()
        while piece := answer.read1(_PIECE):
            content += piece
            if len(content) > most_bytes:
                raise UserError(f"the image at that address has more than the {most_bytes:,} bytes allowed")
            connection.set_timeout(_left(deadline))
        return bytes(content)
    except (OSError, http.client.HTTPException, UnicodeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError("the image's address cannot be read") from None
    finally:
        connection.close()


def public_address(host: str, port: int) -> str:
    """The address that a name stands for.

    Raises:
        UserError: it stands for none, or one of them is not public.
    """
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        raise UserError("the host in the image's address cannot be found") from None
    if not found or not all(is_public(str(address)) for address in found):
        raise UserError("the image's address is not a public one")
    return str(sorted(found, key=lambda address: ":" in str(address))[0])


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet, also where it wraps another one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip not in _UNICAST or ip in _DOCUMENTATION:
            return False
        if ip.sixtofour is not None or ip.teredo is not None:
            return False
    return ip.is_global and not ip.is_multicast


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise UserError("the image's address takes too long to answer")
    return left


class _Pinned(http.client.HTTPConnection):
    """A connection to an address that was checked, whatever the name would stand for by now."""

    def __init__(self, host: str, port: int, address: str, secure: bool, timeout: float):
        super().__init__(host, port, timeout=timeout)
        self._address, self._secure = address, secure

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._secure:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)

    def set_timeout(self, seconds: float) -> None:
        """For what is read from now on."""
        if self.sock is not None:
            self.sock.settimeout(seconds)
