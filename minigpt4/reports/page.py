"""HTML pages made of a template and values; every value is escaped (jinja2 with autoescape)."""

import base64
import io
import os
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import UserError
from ..io.atomic import saying, write_text


def page(template: str, **values: Any) -> str:
    """The page of a template in `templates/`.

    Raises:
        UserError: jinja2 is not installed.
    """
    return _environment().get_template(template).render(**values)


def check_pages() -> None:
    """Raises UserError where pages cannot be made, before something is worked out to be shown on one."""
    _environment()


def write_page(path: str | os.PathLike, template: str, **values: Any) -> None:
    """Write the page of a template; an older file stays until the new one is whole."""
    text = page(template, **values)
    with saying(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text.encode(errors="xmlcharrefreplace").decode())  # half a character in a name


def thumbnail(image: Image.Image, side: int = 320) -> str:
    """A small copy of an image as a data URI."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@cache
def _environment() -> Any:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise UserError("pages need jinja2: pip install 'minigpt4[report]'") from None
    loader = PackageLoader("minigpt4.reports")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    return environment
