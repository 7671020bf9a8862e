"""What the daemon answers over HTTP: JSON, also where something is wrong."""

from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

RETRY_AFTER: Final = 1
"""Seconds after which a sender may try again."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was not carried out: a stable word, and a sentence for people."""

    error: str
    message: str


def answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a value as JSON."""
    return answer_json(msgspec.json.encode(value), status, headers)


def answer_json(content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return what is JSON already."""
    # Nobody in between keeps it, and no browser takes it for anything else.
    kept = {"cache-control": "no-store", "x-content-type-options": "nosniff", **(headers or {})}
    return Response(content, status, kept, media_type="application/json")


def problem(status: int, error: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return why not."""
    return answer(Problem(error=error, message=message), status, headers)


def later(status: int, error: str, message: str) -> Response:
    """Return why not now; the same may be sent again."""
    return problem(status, error, message, {"retry-after": str(RETRY_AFTER)})


async def unserved(request: Request, error: Exception) -> Response:
    """Answer for a path or a method that is not served."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    words = {
        404: ("not_found", f"There is nothing at {request.url.path}; /openapi.json tells what there is."),
        405: ("method_not_allowed", f"{request.url.path} does not know the method {request.method}."),
    }
    found = words.get(status, ("not_possible", str(getattr(error, "detail", "")) or "The request cannot be served."))
    return problem(status, *found, headers=getattr(error, "headers", None))


async def broken(_request: Request, _error: Exception) -> Response:
    """Answer for a mistake of ours; what it was is in the log, and none of the sender's business."""
    return problem(500, "internal_error", "The daemon made a mistake; its log says which.")
