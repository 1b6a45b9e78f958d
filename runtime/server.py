"""The server: sockets, limits and life cycle; everything else is behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket as sockets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, WebSocket
from fastapi.responses import JSONResponse

import omni
from omni.errors import BusyError
from runtime.assembly import Assembly
from runtime.engine import Engine
from runtime.session import RealtimeSession
from runtime.settings import Defaults

log = logging.getLogger(__name__)

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of one WebSocket message."""


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
            self.problem = f"{type(error).__name__}: {error}"
            log.exception("the models could not be started")
            raise
        finally:
            self.ready.set()
        defaults = replace(
            self.config.defaults,
            model=self.engine.parts.llm.name,
            voices=self.engine.parts.voice.capabilities.voices,
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
            await socket.send_text(json.dumps({"type": "error", "event_id": "full", "error": full}))
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
        if not _may_connect(socket, config.origins):
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


def _may_connect(socket: WebSocket, origins: tuple[str, ...]) -> bool:
    origin = socket.headers.get("origin")
    if origin is None or origin in origins or "*" in origins:
        return True
    return urlsplit(origin).netloc == socket.headers.get("host")


class Server(uvicorn.Server):
    """uvicorn, but sessions are told why they end, and the port is taken before models load."""

    def __init__(self, app: FastAPI, config: ServerConfig, listening: sockets.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=config.host,
                port=config.port,
                log_level="warning",
                ws="websockets-sansio",
                ws_max_size=MAX_MESSAGE,
                ws_ping_interval=20.0,
                ws_ping_timeout=20.0,
                timeout_graceful_shutdown=5,
            )
        )
        self._app = app
        self._listening = listening

    async def shutdown(self, sockets: list[sockets.socket] | None = None) -> None:
        """Close the sessions with a reason, then everything else."""
        await self._app.state.hub.close_sessions("the server is shutting down")
        await super().shutdown(sockets)

    def serve_forever(self) -> None:
        """Serve until SIGINT or SIGTERM."""
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
