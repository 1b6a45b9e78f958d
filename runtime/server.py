"""The server: sockets, limits and life cycle; everything else is behind it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket as sockets
from collections.abc import AsyncIterator, Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

import omni
from runtime.api.docs import DESCRIPTION
from runtime.api.errors import add_handlers
from runtime.api.routes import router
from runtime.assembly import Assembly
from runtime.engine import Engine
from runtime.guard import Guard, Origins
from runtime.hub import Hub, ServerConfig

MAX_MESSAGE = 64 * 1024 * 1024
"""Bytes of one WebSocket message; more than an event may have, so that it gets an error event."""

LINGER = 3.0
"""Seconds after which a connection that was closed is cut, though its client has not read all."""


def create_app(config: ServerConfig, build: Callable[[], Engine]) -> FastAPI:
    """The application; ``build`` makes the engine, in a thread, once the server runs."""
    hub = Hub(config, build)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.create_task(hub.start(), name="start the models")
        starting.add_done_callback(_observed)
        tidying = asyncio.create_task(hub.tidy(), name="delete what is too old")
        try:
            yield
        finally:
            tidying.cancel()
            await asyncio.wait([starting, tidying])
            await hub.stop()

    app = FastAPI(
        title="Omni",
        version=omni.__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.hub = hub
    app.add_middleware(
        Guard, origins=Origins(config.host, config.origins), keys=hub.keys, metrics=hub.metrics
    )
    add_handlers(app, hub.metrics)

    @app.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        with contextlib.suppress(WebSocketDisconnect):  # gone before the session began
            offered = socket.scope.get("subprotocols") or []
            await socket.accept("realtime" if "realtime" in offered else None)
            await hub.serve(socket, socket.state.identity)

    app.include_router(router)
    return app


def _observed(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


class _Protocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, but no client can keep its connection by not reading."""

    def handle_text(self, event: Frame) -> None:
        # As bytes: what is no UTF-8 is answered by an error event, like what is no JSON.
        self.handle_bytes(event)

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.close":
            self.writable.set()  # closing does not wait for a client that has stopped reading
            self.loop.call_later(LINGER, self.transport.abort)
        await super().send(message)

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.loop.call_later(LINGER, self.transport.abort)


class Server(uvicorn.Server):
    """uvicorn, but sessions are told why they end, and the port is taken before models load."""

    def __init__(self, app: FastAPI, config: ServerConfig, listening: sockets.socket) -> None:
        certificate, key = config.tls or (None, None)
        super().__init__(
            uvicorn.Config(
                app,
                host=config.host,
                port=config.port,
                log_level="warning",
                ws=_Protocol,
                ws_max_size=MAX_MESSAGE,
                ws_ping_interval=20.0,
                ws_ping_timeout=20.0,
                timeout_graceful_shutdown=5,
                ssl_certfile=certificate,
                ssl_keyfile=key,
            )
        )
        self._app = app
        self._listening = listening

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to shut down; a second SIGINT does not wait for clients.

        Unlike uvicorn's, it does not raise the signal again afterwards: the exit code is 0.
        """
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def shutdown(self, sockets: list[sockets.socket] | None = None) -> None:
        """Close the sessions with a reason, then everything else."""
        await self._app.state.hub.close_sessions("the server is shutting down")
        await super().shutdown(sockets)

    def serve_forever(self) -> None:
        """Serve until SIGINT or SIGTERM, which are the normal ends of a server."""
        self.run(sockets=[self._listening])


def listen(host: str, port: int) -> sockets.socket:
    """Take the port now, so that a port in use is told before a minute of loading.

    Raises ``OSError``.
    """
    family = sockets.AF_INET6 if ":" in host else sockets.AF_INET
    listening = sockets.socket(family, sockets.SOCK_STREAM)
    listening.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    return listening


def build_engine(assembly: Assembly, config: ServerConfig) -> Callable[[], Engine]:
    """What `create_app` needs to build the real engine."""
    return lambda: Engine(assembly.build(), config.engine)
