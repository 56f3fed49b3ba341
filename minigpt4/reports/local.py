"""Pages that people work with, served to this machine alone: nothing comes from elsewhere, no other site decides anything."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UserError

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def local_app(page: Path, header: str) -> Any:
    """An ASGI application with the files of a page, its ``index.html`` at ``/``; what it asks for is added to it.

    Args:
        page: a folder with ``index.html``, a style sheet and a script.
        header: that the page's script sends with every POST, which the script of another page cannot.

    Raises:
        UserError: fastapi is missing.
    """
    try:
        from fastapi import FastAPI, HTTPException, Request, Response
        from fastapi.responses import FileResponse, JSONResponse
        from starlette.middleware.trustedhost import TrustedHostMiddleware
    except ImportError:
        raise UserError("this page needs fastapi: pip install 'minigpt4[serve]'") from None

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    parts = {path.name for path in page.iterdir() if path.suffix in (".js", ".css")}

    @app.middleware("http")
    async def guarded(request: Request, proceed: Any) -> Any:
        if request.method == "POST" and request.headers.get(header) != "1":
            return JSONResponse({"error": "this comes from another page"}, 403)  # which cannot set this header here
        response = await proceed(request)
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    @app.get("/")
    def index() -> FileResponse:
        return FileResponse(page / "index.html")

    @app.get("/{name}.{ending}", response_model=None)
    def part(name: str, ending: str) -> Response:
        if (name, ending) == ("favicon", "ico"):
            return Response(status_code=204)  # browsers ask for one
        if f"{name}.{ending}" not in parts:
            raise HTTPException(404)
        return FileResponse(page / f"{name}.{ending}", headers={"Cache-Control": "no-cache"})

    return app


def serve_here(app: Any, port: int, told: Callable[[str], object]) -> None:
    """Serve an application on this machine alone until it is stopped.

    Args:
        told: called with the address once the page is there to be opened.

    Raises:
        UserError: uvicorn is missing, or the port is taken.
    """
    try:
        import uvicorn
    except ImportError:
        raise UserError("this page needs uvicorn: pip install 'minigpt4[serve]'") from None
    import socket

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError as error:
        raise UserError(f"port {port} cannot be used ({error.strerror}); choose another with --port") from None
    told(f"http://127.0.0.1:{listener.getsockname()[1]}/")
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
