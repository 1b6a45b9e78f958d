"""The server: sockets, limits and life cycle; everything else is behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket as sockets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

import omni
from omni.errors import BusyError, OmniError
from runtime.assembly import Assembly
from runtime.conversation import random_id
from runtime.engine import Engine
from runtime.session import RealtimeSession
from runtime.settings import Defaults

log = logging.getLogger(__name__)

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of one WebSocket message."""

LINGER = 3.0
"""Seconds after which a connection that was closed is cut, though its client has not read all."""


@dataclass(frozen=True)
class ServerConfig:
    """Where to listen and whom to serve.

    ``origins`` are web origins, such as ``https://example.org``, whose pages may connect besides
    the server's own; programs without an origin always may.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    origins: tuple[str, ...] = ()
    defaults: Defaults = field(default_factory=Defaults)
    engine: Engine.Config = field(default_factory=Engine.Config)


_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Hub:
    """The engine and the open sessions of one server."""

    def __init__(self, config: ServerConfig, build: Callable[[], Engine]) -> None:
        self.config = config
        self._build = build
        self.engine: Engine | None = None
        self.problem: str | None = None
        self.ready = asyncio.Event()
        self._sessions: set[RealtimeSession] = set()
        self._stopping = False

    @property
    def state(self) -> str:
        """``starting``, ``ready``, ``failed`` or ``stopping``."""
        if self._stopping:
            return "stopping"
        if self.problem is not None:
            return "failed"
        return "ready" if self.engine is not None else "starting"

    async def start(self) -> None:
        """Load and warm up the models; the server answers ``/health`` meanwhile."""

        def build() -> Engine:
            engine = self._build()
            engine.start()
            return engine

        try:
            self.engine = await asyncio.to_thread(build)
        except Exception as error:
            if isinstance(error, OmniError):
                self.problem = str(error)
            else:
                self.problem = f"{type(error).__name__}: {error}"
                log.exception("the models could not be started")
            raise
        finally:
            self.ready.set()
        defaults = replace(
            self.config.defaults,
            model=self.engine.parts.llm.name,
            voices=self.engine.parts.voice.capabilities.voices,
            languages=self.engine.parts.hearing.capabilities.languages,
        )
        self.config = replace(self.config, defaults=defaults)

    async def serve(self, socket: WebSocket) -> None:
        """Carry one session, once the models are ready."""
        await self.ready.wait()
        if self.engine is None or self._stopping:
            await socket.close(1013, "the server is not ready")
            return
        session = RealtimeSession(socket, self.engine, self.config.defaults)
        self._sessions.add(session)
        try:
            await session.run()
        except BusyError as error:
            full = {"type": "server_error", "code": "server_full", "message": str(error)}
            event = {"type": "error", "event_id": random_id("event"), "error": full}
            await socket.send_text(json.dumps(event))
            await socket.close(1013, "the server is full")
        finally:
            self._sessions.discard(session)

    async def close_sessions(self, reason: str) -> None:
        """End every session with a reason that its client can read; idempotent."""
        self._stopping = True
        await asyncio.gather(*(s.close(1001, reason) for s in list(self._sessions)))

    async def stop(self) -> None:
        """Stop the engine after the sessions."""
        await self.close_sessions("the server is shutting down")
        if self.engine is not None:
            await asyncio.to_thread(self.engine.close)


def create_app(config: ServerConfig, build: Callable[[], Engine]) -> FastAPI:
    """The application; ``build`` makes the engine, in a thread, once the server runs."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        hub = app.state.hub = Hub(config, build)
        starting = asyncio.create_task(hub.start(), name="start the models")
        starting.add_done_callback(_observed)
        try:
            yield
        finally:
            await asyncio.wait([starting])
            await hub.stop()

    app = FastAPI(title="Omni", version=omni.__version__, lifespan=lifespan)

    @app.get("/health")
    async def health() -> JSONResponse:
        """Whether the server can hold a conversation; 503 until it can."""
        hub: Hub = app.state.hub
        body: dict[str, Any] = {"status": hub.state, "version": omni.__version__}
        if hub.engine is not None:
            body |= {
                "model": hub.engine.parts.llm.name,
                "sessions": hub.engine.sessions,
                "max_sessions": hub.engine.config.max_sessions,
            }
        if hub.problem is not None:
            body["problem"] = hub.problem
        return JSONResponse(body, 200 if hub.state == "ready" else 503)

    @app.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        with contextlib.suppress(WebSocketDisconnect):  # gone before the session began
            if not _may_connect(socket, config):
                # Without this, any page that the user visits could listen in on a local server.
                await socket.close(1008, "this web origin may not connect; see --allow-origin")
                return
            offered = socket.scope.get("subprotocols") or []
            await socket.accept("realtime" if "realtime" in offered else None)
            hub: Hub = app.state.hub
            await hub.serve(socket)

    return app


def _observed(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


def _may_connect(socket: WebSocket, config: ServerConfig) -> bool:
    origin = socket.headers.get("origin")
    if origin is None or origin in config.origins or "*" in config.origins:
        return True
    try:
        page = urlsplit(origin)
    except ValueError:
        return False
    # A foreign name that was made to point at this machine is the page's own host, too: a server
    # for this machine alone answers only to this machine's names.
    if config.host in _LOOPBACK and page.hostname not in _LOOPBACK:
        return False
    return page.netloc == socket.headers.get("host")


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
