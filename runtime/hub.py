"""What the routes of one server share: the engine, the open sessions, keys and figures."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastapi import WebSocket

from omni.errors import BusyError, OmniError
from omni.search import Index
from runtime.api.spoken import SpokenAnswers
from runtime.auth import Identity, Keys
from runtime.conversation import random_id
from runtime.engine import Engine
from runtime.metrics import Metrics
from runtime.search import CacheFigures, open_index
from runtime.search_tool import find
from runtime.session import RealtimeSession
from runtime.settings import Defaults
from runtime.store import Keep, SessionStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerConfig:
    """Where to listen and whom to serve.

    ``origins`` are web origins, such as ``https://example.org``, whose pages may connect besides
    the server's own; programs without an origin always may. ``keep`` None: nothing is kept. With
    ``api_keys`` only those who have one are served. Media at remote addresses are fetched from
    ``media_hosts`` only. ``tls`` are the files of a certificate and its key.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    origins: tuple[str, ...] = ()
    defaults: Defaults = field(default_factory=Defaults)
    engine: Engine.Config = field(default_factory=Engine.Config)
    keep: Keep | None = None
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    media_hosts: tuple[str, ...] = ()
    tls: tuple[Path, Path] | None = None
    index: Path | None = None
    """Of what `omni.search` finds."""


class Hub:
    """The engine and the open sessions of one server."""

    def __init__(self, config: ServerConfig, build: Callable[[], Engine]) -> None:
        self.config = config
        self._build = build
        self.engine: Engine | None = None
        self.store = SessionStore(config.keep) if config.keep is not None else None
        self.keys = Keys(config.api_keys)
        self.metrics = Metrics(lambda: 0 if self.engine is None else self.engine.sessions)
        self.spoken = SpokenAnswers()
        self.pool = ThreadPoolExecutor(config.engine.max_sessions + 4, "omni-http")
        """For what HTTP requests wait for: files, the device, the voices."""
        self.embedding = asyncio.Lock()
        """Texts of one request at a time, so that the others keep their threads."""
        self.index: Index | None = None
        """Of what can be found, once the server is ready."""
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
        """Open the store, load and warm up the models; ``/health`` is answered meanwhile."""

        def build() -> Engine:
            if self.store is not None:
                self.store.start()
            if self.config.index is not None:
                self.index = open_index(self.config.index)
                self.metrics.registry.register(CacheFigures(self.index))
                find(self.index, "warm up")
            engine = self._build()
            engine.index = self.index
            engine.start()
            return engine

        try:
            self.engine = await asyncio.to_thread(build)
        except Exception as error:
            if isinstance(error, OmniError):
                self.problem = str(error)
            else:
                self.problem = f"{type(error).__name__}: {error}"
                log.exception("the server could not be started")
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

    async def tidy(self) -> None:
        """Delete sessions that are too old, every hour, until cancelled."""
        await self.ready.wait()
        if self.store is not None and self.problem is None:
            await self.store.keep_tidy()

    async def serve(self, socket: WebSocket, identity: Identity) -> None:
        """Carry one session, once the models are ready."""
        await self.ready.wait()
        if self.engine is None or self._stopping:
            await socket.close(1013, "the server is not ready")
            return
        session = RealtimeSession(
            socket,
            self.engine,
            self.config.defaults,
            store=self.store,
            session_id=socket.query_params.get("session_id"),
            owner=identity.owner,
            initial_session=identity.session,
            metrics=self.metrics,
        )
        self._sessions.add(session)
        self.metrics.session()
        try:
            await session.run()
        except BusyError as error:
            full = {"type": "server_error", "code": "server_full", "message": str(error)}
            event = {"type": "error", "event_id": random_id("event"), "error": full}
            self.metrics.error("server_full")
            await socket.send_text(json.dumps(event))
            await socket.close(1013, "the server is full")
        finally:
            self._sessions.discard(session)

    async def close_sessions(self, reason: str) -> None:
        """End every session with a reason that its client can read; idempotent."""
        self._stopping = True
        await asyncio.gather(*(s.close(1001, reason) for s in list(self._sessions)))

    async def stop(self) -> None:
        """Stop the engine after all that asks it for something."""
        await self.close_sessions("the server is shutting down")
        await asyncio.to_thread(self.pool.shutdown, cancel_futures=True)
        if self.engine is not None:
            await asyncio.to_thread(self.engine.close)
        if self.store is not None:
            await asyncio.to_thread(self.store.close)
