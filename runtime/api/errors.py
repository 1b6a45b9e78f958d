"""Errors as OpenAI's clients expect them: ``{"error": {message, type, param, code}}``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from omni.errors import BusyError, InputError, OmniError
from runtime.auth import AuthError
from runtime.metrics import Metrics

log = logging.getLogger(__name__)

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_STATUS = {
    "too_large": 413,
    "model_not_found": 404,
    "session_not_found": 404,
    "media_not_found": 404,
}
RETRY_AFTER = {"Retry-After": "2"}


class ClientGoneError(Exception):
    """The client has closed the connection; nobody waits for the answer."""


class NotReadyError(OmniError):
    """The models are still loading, or the server is about to stop."""


def error_body(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The JSON of an error."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def describe_error(error: Exception) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers that say what ``error`` is."""
    match error:
        case AuthError():
            headers = {"WWW-Authenticate": "Bearer"}
            return 401, error_body(401, str(error), code="invalid_api_key"), headers
        case BusyError():
            return 429, error_body(429, str(error), code="server_full"), RETRY_AFTER
        case NotReadyError():
            return 503, error_body(503, str(error), code="not_ready"), RETRY_AFTER
        case InputError():
            status = _STATUS.get(error.code, 400)
            return status, error_body(status, str(error), param=error.param, code=error.code), {}
        case RequestValidationError():
            found = validation_error(error.errors(), {"body": error.body})
            return 400, error_body(400, str(found), param=found.param, code=found.code), {}
        case HTTPException(status_code=status):
            code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(status)
            return status, error_body(status, str(error.detail), code=code), {}
        case OmniError():
            return 500, error_body(500, str(error), code="server_error"), {}
        case _:
            return 500, error_body(500, "internal error; see the server's log"), {}


def validation_error(problems: Sequence[Mapping[str, Any]], root: Any) -> InputError:
    """The first problem that pydantic found in ``root``, with the path as a client knows it."""
    problem = problems[0]
    if problem["type"] == "json_invalid":
        reason = (problem.get("ctx") or {}).get("error", "")
        return InputError(f"the body is not valid JSON ({reason})", code="invalid_json")
    name = ".".join(_path(problem, root)[1:]) or None
    if name is None:
        wanted = "send a JSON object as the body, with 'Content-Type: application/json'"
        return InputError(wanted, code="invalid_body")
    if problem["type"] == "missing":
        return InputError(f"{name!r} is missing", param=name, code="missing_field")
    if problem["type"] == "extra_forbidden":
        return InputError(f"unknown field {name!r}", param=name, code="unknown_field")
    return InputError(f"{name}: {problem['msg']}", param=name)


def _path(problem: Mapping[str, Any], root: Any) -> list[str]:
    """Where in ``root`` the problem is, without the members of unions that pydantic also names."""
    path: list[str] = []
    here = root
    *inner, last = problem["loc"]
    for part in inner:
        there = _item(here, part)
        if isinstance(there, dict | list):
            path.append(str(part))
            here = there
    if problem["type"] in ("missing", "extra_forbidden") or _item(here, last) is not None:
        path.append(str(last))
    return path


def _item(here: Any, part: str | int) -> Any:
    try:
        return here[part]
    except (TypeError, KeyError, IndexError):
        return None


def add_handlers(app: FastAPI, metrics: Metrics) -> None:
    """Answer every error of a route in OpenAI's shape."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        status, body, headers = describe_error(error)
        if status >= 500 and not isinstance(error, OmniError):
            log.error("%s failed", request.url.path, exc_info=error)
        metrics.error(body["error"]["code"])
        return JSONResponse(body, status, headers)

    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=499)

    app.add_exception_handler(ClientGoneError, gone)
    for kind in (OmniError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)
