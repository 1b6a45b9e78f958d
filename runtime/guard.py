"""The one door: web origins, keys, sizes of bodies and the count of requests."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.api.errors import describe_error, error_body
from runtime.auth import AuthError, Identity, Keys, bearer
from runtime.metrics import Metrics

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

MAX_BODY = 64 * 1024 * 1024
"""Bytes of a request."""

MAX_UPLOAD = 1024 * 1024 * 1024
"""Bytes of a recording that is sent to be transcribed; it goes to a file, not into memory."""

_UPLOADS = frozenset({"/v1/audio/transcriptions", "/v1/answers"})


class Origins:
    """Which web pages may use the server: its own, and those that are ``allowed``.

    Programs send no origin and always may. Without this, any page that the user visits could
    listen in on, or make use of, a server on the user's machine.
    """

    def __init__(self, host: str, allowed: Collection[str]) -> None:
        self.allowed = tuple(allowed)
        self._local = host in LOOPBACK

    def allow(self, headers: Headers) -> bool:
        """Whether the page that the request comes from may make it."""
        origin = headers.get("origin")
        if origin is None or origin in self.allowed or "*" in self.allowed:
            return True
        try:
            page = urlsplit(origin)
        except ValueError:
            return False
        # A foreign name that was made to point at this machine is the page's own host, too: a
        # server for this machine alone answers only to this machine's names.
        if self._local and page.hostname not in LOOPBACK:
            return False
        return page.netloc == headers.get("host")


class Guard:
    """ASGI middleware that lets in who may come; ``state.identity`` of the scope says who it is.

    With keys, ``/v1``, ``/metrics`` and ``/openapi.json`` ask for one.
    """

    def __init__(self, app: ASGIApp, *, origins: Origins, keys: Keys, metrics: Metrics) -> None:
        self._app = app
        self._cors = CORSMiddleware(
            self._http, allow_origins=origins.allowed, allow_methods=("*",), allow_headers=("*",)
        )
        self._origins = origins
        self._keys = keys
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or socket."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            await self._cors(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status, refused = time.monotonic(), 500, False

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            headers = Headers(scope=scope)
            limit = MAX_UPLOAD if scope["path"] in _UPLOADS else MAX_BODY
            if (problem := self._refusal(scope, headers, limit)) is not None:
                refused = True
                self._metrics.error(problem[1]["error"]["code"])
                await _refuse(sending, *problem)
            else:
                await self._app(scope, _limited(receive, limit), sending)
        finally:
            # A path that no route knows could be anything, and there would be too many of them.
            route = "refused" if refused else getattr(scope.get("route"), "path", "")
            if refused or route.startswith("/v1") or route == "/metrics":
                self._metrics.http(scope["method"], route, status, time.monotonic() - began)

    def _refusal(
        self, scope: Scope, headers: Headers, limit: int
    ) -> tuple[int, dict[str, Any], dict[str, str]] | None:
        if not self._origins.allow(headers):
            return 403, error_body(403, _FOREIGN, code="origin_not_allowed"), {}
        if _is_private(scope["path"]):
            try:
                self._identify(scope, bearer(headers))
            except AuthError as error:
                return describe_error(error)
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            return describe_error(_too_large(limit))
        return None

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if not self._origins.allow(headers):
            await send({"type": "websocket.close", "code": 1008, "reason": _FOREIGN})
            return
        try:
            token = bearer(headers, scope.get("subprotocols") or ())
            self._identify(scope, token, realtime=True)
        except AuthError as error:
            self._metrics.error("invalid_api_key")
            if "websocket.http.response" in scope.get("extensions", {}):
                await _refuse(send, *describe_error(error), kind="websocket.http.response")
            else:
                await send({"type": "websocket.close", "code": 1008, "reason": str(error)})
            return
        await self._app(scope, receive, send)

    def _identify(self, scope: Scope, token: str | None, *, realtime: bool = False) -> None:
        identity: Identity = self._keys.identify(token, realtime=realtime)
        scope.setdefault("state", {})["identity"] = identity


_FOREIGN = "this web origin may not use the server; see --allow-origin"


def _is_private(path: str) -> bool:
    return path == "/v1" or path.startswith("/v1/") or path in ("/metrics", "/openapi.json")


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"the body is larger than {limit >> 20} MiB, the limit; send less")


def _limited(receive: Receive, limit: int) -> Receive:
    """``receive`` that fails when the body, whatever its header says, grows past ``limit``."""
    received = 0

    async def receiving() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > limit:
                raise _too_large(limit)
        return message

    return receiving


async def _refuse(
    send: Send,
    status: int,
    body: dict[str, Any],
    headers: dict[str, str],
    kind: str = "http.response",
) -> None:
    data = json.dumps(body).encode()
    lines = {"content-type": "application/json", "content-length": str(len(data)), **headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in lines.items()]
    await send({"type": f"{kind}.start", "status": status, "headers": raw})
    await send({"type": f"{kind}.body", "body": data})
