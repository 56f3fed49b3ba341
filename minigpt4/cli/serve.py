"""The commands that serve: an API for programs, a page for people."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UserError
from .options import SYSTEM, Group, System, import_quickly, options
from .terminal import remark, say_line

_LIMITS = "Limits"
_ACCESS = "Access"
_RAY = "Several replicas"
Host = Annotated[
    str, typer.Option(help="Address to listen at; others than this machine's own need --keys.", rich_help_panel=_ACCESS)
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.", rich_help_panel=_ACCESS)]
KeyFile = Annotated[
    Path | None, typer.Option(help="File of API keys (hashed); only who has one may ask.", rich_help_panel=_ACCESS)
]
NewKey = Annotated[
    str | None, typer.Option(metavar="NAME", help="Make a key, add it to --keys, print it, and leave.", rich_help_panel=_ACCESS)
]
Name = Annotated[str | None, typer.Option(help="What clients call the model; as --model says when not given.")]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(help="A name under which the server may be addressed, beside its own.", rich_help_panel=_ACCESS),
]
RemoteImages = Annotated[
    bool, typer.Option("--remote-images", help="Fetch images from public addresses too.", rich_help_panel=_ACCESS)
]
PerMinute = Annotated[int, typer.Option(min=0, help="Requests of one key in a minute; 0: any.", rich_help_panel=_LIMITS)]
PerKey = Annotated[int, typer.Option(min=1, help="Requests of one key at a time.", rich_help_panel=_LIMITS)]
Seconds = Annotated[float, typer.Option(min=1, help="Longest time for one answer.", rich_help_panel=_LIMITS)]
ImageMegapixels = Annotated[float, typer.Option(min=0.01, max=100, help="Largest image.", rich_help_panel=_LIMITS)]
Images = Annotated[int, typer.Option(min=1, help="Images in one request.", rich_help_panel=_LIMITS)]

ByRay = Annotated[
    bool, typer.Option("--ray", help="Answer by replicas that Ray Serve starts and replaces.", rich_help_panel=_RAY)
]
Replicas = Annotated[int | None, typer.Option(min=1, help="So many at least; 1 when not given.", rich_help_panel=_RAY)]
MaxReplicas = Annotated[
    int | None, typer.Option(min=1, help="And up to so many while there is much to do.", rich_help_panel=_RAY)
]

SERVER = Group(
    {
        "host": (Host, "127.0.0.1"),
        "port": (Port, 8000),
        "name": (Name, None),
        "keys": (KeyFile, None),
        "new_key": (NewKey, None),
        "allow_host": (AllowHost, None),
        "remote_images": (RemoteImages, False),
        "per_minute": (PerMinute, 0),
        "per_key": (PerKey, 64),
        "seconds": (Seconds, 300.0),
        "image_megapixels": (ImageMegapixels, 50.0),
        "images": (Images, 16),
        "ray": (ByRay, False),
        "replicas": (Replicas, None),
        "max_replicas": (MaxReplicas, None),
    },
    dict,
)


@options(system=SYSTEM, server=SERVER)
def serve(
    page: Annotated[bool, typer.Option("--page", help="Serve the page for people too, at /.")] = False,
    *,
    system: System,
    server: dict[str, Any],
) -> None:
    """Answer over HTTP, as the OpenAI API does."""
    _serve(system, page=page, **server)


@options(system=SYSTEM, server=SERVER)
def web(*, system: System, server: dict[str, Any]) -> None:
    """The page: photos, questions and boxes in a browser (serve --page)."""
    _serve(system, page=True, **server)


def _serve(system: System, *, page: bool, host: str, port: int, name: str | None, **given: Any) -> None:
    keys: Path | None = given["keys"]
    if given["new_key"] is not None:
        if keys is None:
            raise UserError("--new-key needs --keys FILE, where its hash is kept")
        from ..serve.keys import add_key

        say_line(add_key(keys, given["new_key"]))
        return
    from ..serve.keys import keys_for

    scale = _scale(system, given["ray"], given["replicas"], given["max_replicas"])
    keys_for(host, keys)  # what is wrong with them is said before anything is loaded
    import_quickly()
    try:
        from ..serve.run import run
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "pydantic", "prometheus_client", "starlette"):
            raise
        raise UserError(f"serving needs the package {error.name}; install it with: pip install 'minigpt4[serve]'") from None
    from ..serve.settings import Allowed

    allowed = Allowed(
        seconds=given["seconds"],
        image_pixels=int(given["image_megapixels"] * 1e6),
        images=given["images"],
        per_minute=given["per_minute"],
        requests_per_key=given["per_key"],
        remote_images=given["remote_images"],
    )

    def ready(address: str) -> None:
        remark(f"{'The page' if page else 'The API'}: {address}{'' if page else '/v1'}  (stop with Ctrl-C)")

    run(
        name or Path(system.model).name or system.model,
        system.load,
        host=host,
        port=port,
        keys=keys,
        allow_hosts=given["allow_host"] or (),
        allowed=allowed,
        page=page,
        scale=scale,
        on_listening=ready,
    )


def _scale(system: System, by_ray: bool, least: int | None, most: int | None) -> Any:
    """How many replicas; None for one system in this process."""
    from ..serve.settings import Scale

    if not by_ray:
        if least or most:
            raise UserError(f"{'--replicas' if least else '--max-replicas'} goes with --ray")
        return None
    try:
        import ray.serve  # noqa: F401
    except ModuleNotFoundError:
        raise UserError("replicas need Ray Serve; install it with: pip install 'minigpt4[ray]'") from None
    least = least or 1
    gpus = 0
    if system.device != "cpu":
        import torch

        gpus = 1 if torch.cuda.is_available() else 0
    return Scale(least=least, most=most or least, gpus=gpus)
