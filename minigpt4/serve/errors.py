"""Errors as OpenAI's API gives them: a status, and ``{"error": {message, type, param, code}}``."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from ..engine.completion import EngineFull
from ..errors import UserError

log = logging.getLogger(__name__)

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class ApiError(Exception):
    """What a client is told.

    Args:
        param: the field of the request that is wrong, as a path (``messages[0].content``).
        code: a word for programs.
        retry_after: seconds after which it may be tried again.
        retry: whether the official client may try again by itself; as it likes when not given.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        retry: bool | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers: dict[str, str] = {}
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, round(retry_after)))
        if retry is not None:
            self.headers["x-should-retry"] = "true" if retry else "false"

    @property
    def body(self) -> dict[str, Any]:
        """As JSON."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """As an answer."""
        return JSONResponse(self.body, self.status, self.headers)


def as_api_error(error: Exception) -> ApiError:
    """What a client is told of any failure; of ours, nothing but that there was one."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, EngineFull):
        return ApiError(429, str(error), code="queue_full", retry_after=2)
    if isinstance(error, UserError):
        message = str(error)
        param = next((name for name in _PARAMS if message.startswith((f"{name} ", f"{name}="))), None)
        code = "context_length_exceeded" if "context" in message else None
        return ApiError(400, message, param=param, code=code)
    log.error("a request failed", exc_info=error)
    return ApiError(500, "the server failed at this request; its log says why", code="internal_error")


_PARAMS = (
    "n temperature top_p top_k seed stop logprobs max_new_tokens min_new_tokens repetition_penalty no_repeat_ngram_size "
    "num_beams length_penalty self_consistency mirrored zoom_in"
).split()


def invalid(error: ValidationError) -> ApiError:
    """The first thing that is wrong with a request. What was sent is not repeated: it may be a whole image."""
    first = min(error.errors(include_url=False, include_input=False), key=_gravity)
    where = path_of(first["loc"])
    if first["type"] == "extra_forbidden":
        return ApiError(
            400, f"{where}: this parameter is not supported; leave it out", param=where, code="unsupported_parameter"
        )
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON ({first['msg']})", code="invalid_json")
    if first["type"] == "missing":
        return ApiError(400, f"{where}: is missing", param=where, code="missing_required_parameter")
    if first["type"] == "union_tag_invalid":  # a message of another role, a part of another type
        where += f".{first['ctx']['discriminator'].strip(_QUOTE)}"
        tag, known = first["ctx"]["tag"][:100], first["ctx"]["expected_tags"]
        remedy = "; the models know no such role: say it in the user's text" if tag in ("system", "developer") else ""
        return ApiError(400, f"{where}: '{tag}' is not one of {known}{remedy}", param=where, code="invalid_value")
    said = first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{where}: {said}"[:500] if where else said[:500], param=where or None, code="invalid_value")


def _gravity(error: Mapping[str, Any]) -> tuple[int, int]:
    """Of a union, each branch has errors; what was meant is most likely the branch that was followed farthest."""
    return {"extra_forbidden": 0, "missing": 1}.get(error["type"], 2), -len(error["loc"])


_QUOTE = "'"  # in which pydantic puts names
_TAGS = frozenset("text image_url user assistant input_text input_image output_text message predicate choice score".split())


def path_of(loc: Sequence[int | str]) -> str:
    """``("messages", 0, "user", "content")`` -> ``messages[0].content``: what pydantic adds for unions is left out."""
    path = ""
    for place, step in enumerate(loc):
        if isinstance(step, int):
            path += f"[{step}]"
        elif "[" in step or step == "str":
            continue  # a branch of a union of types
        elif step in _TAGS and isinstance(loc[place - 1], int) and place + 1 < len(loc):
            continue  # a branch of a union by tag
        else:
            path += f".{step}" if path else step
    return path[:200]


async def on_api_error(request: Request, error: Exception) -> JSONResponse:
    """Handler of everything that goes wrong."""
    if isinstance(error, HTTPException):
        detail = {404: f"there is nothing at {request.url.path[:200]}", 405: f"{request.method} is not for this address"}
        answer = ApiError(
            error.status_code, detail.get(error.status_code, str(error.detail)), code=_CODES.get(error.status_code)
        )
        answer.headers |= dict(error.headers or {})
        return answer.response()
    return as_api_error(error).response()


_CODES = {404: "not_found", 405: "method_not_allowed"}
