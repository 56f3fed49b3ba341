"""Running the application: one process, which finishes what it has accepted when it is told to end."""

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette

from ..errors import UserError
from ..inference.assistant import Assistant
from .app import create_app
from .keys import keys_for
from .settings import LOOPBACK, Allowed, Scale


def run(
    name: str,
    load: Callable[[], Assistant],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    keys: Path | None = None,
    allow_hosts: Sequence[str] = (),
    allowed: Allowed = Allowed(),
    page: bool = False,
    scale: Scale | None = None,
    on_listening: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        host: an address of this machine. Any but its own loopback needs keys, as everybody could ask otherwise.
        port: 0 for one that is free.
        keys: file of API keys.
        scale: so many replicas by Ray Serve (`replicas`), in place of one system in this process.
        allow_hosts: names under which the server may be addressed, beside `host`.
        on_listening: called with the server's address.

    Raises:
        UserError: an address that cannot be had, no keys where they are needed, or what loading the model raises.
    """
    known = keys_for(host, keys)
    hosts = [*LOOPBACK, "[::1]", host, *allow_hosts] if host in LOOPBACK or allow_hosts else None
    guards: dict[str, Any] = {"allowed": allowed, "keys": known, "hosts": hosts, "page": page}
    listening = _listen(host, port)  # what is wrong with the address is said before anything is loaded
    app: Starlette
    if scale is None:
        app = create_app(name, load, **guards, on_failure=lambda: setattr(server, "should_exit", True))
    else:
        from .replicas import replicated_app

        app = replicated_app(name, load, scale, **guards)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        ws="none",
        server_header=False,
        date_header=True,
        log_level="warning",
        timeout_graceful_shutdown=max(1, round(allowed.seconds)),
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = uvicorn.Server(config)
    shown = f"[{host}]" if ":" in host else host
    on_listening(f"http://{shown}:{listening.getsockname()[1]}")
    server.run(sockets=[listening])
    if scale is None and app.state.served.failed is not None:
        raise app.state.served.failed


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()  # who comes before the server is ready waits
    except OSError as error:
        raise UserError(f"{host}:{port}: cannot listen there ({error.strerror or error}); name another --port") from None
    return listening
