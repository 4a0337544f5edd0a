"""What every route of the server needs of HTTP: bodies, clients that hang up, errors.

body = await read_body(request)
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ccai_core.serve_requests import ApiError

_MOST_BODY_BYTES = 8 * 2**20


async def read_body(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
        ApiError: 413, it is too large.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BODY_BYTES:
            raise ApiError(413, f"The body is larger than {_MOST_BODY_BYTES} bytes.")
    return bytes(body)


async def disconnected(request: Request) -> None:
    """Return when the client hangs up; its body has been read, so nothing else can come."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def refusal(error: ApiError) -> JSONResponse:
    """Return an error as OpenAI says it."""
    return JSONResponse(error.body, error.status, error.headers)


async def http_error(request: Request, error: Exception) -> Response:
    """Say what Starlette refuses (no such route, wrong method) as OpenAI does."""
    if not isinstance(error, HTTPException):
        raise error
    return refusal(ApiError(error.status_code, error.detail, headers=error.headers))


async def fault(request: Request, error: Exception) -> Response:
    """Tell the client no more than that something broke; the traceback goes to the log."""
    return refusal(ApiError(500, "A fault of the server; its log says more."))
