"""A request's body, as long as its sender takes no longer than is allowed."""

import asyncio

from starlette.requests import ClientDisconnect, Request

from .errors import ApiError

BODY_SECONDS = 60.0  # to send one


async def body(http: Request) -> bytes:
    """A request's body as it is.

    Raises:
        ApiError: it takes too long to arrive, or its sender leaves.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await http.body()
    except ClientDisconnect:
        raise ApiError(499, "the client has left") from None
    except TimeoutError:
        raise ApiError(408, f"the request did not arrive within {BODY_SECONDS:g} seconds", code="slow_request") from None
