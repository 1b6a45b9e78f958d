"""One WebSocket: the socket's text in, the conversation's events out, and nobody else harmed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from omni import events as ev
from omni.errors import StoreError
from runtime.conversation import Conversation, random_id
from runtime.engine import Engine
from runtime.host import Effect
from runtime.keeper import Keeper
from runtime.metrics import Metrics
from runtime.records import KeepItem, Record
from runtime.settings import Defaults
from runtime.store import SessionStore, Ticket
from runtime.wire import Event

log = logging.getLogger(__name__)

HIGH_WATER = 32 * 1024 * 1024
"""Bytes that may wait for a slow client before it is let go."""

FLUSH = 1.0
"""Seconds in which a session that is ended may still take what was sent to it."""

MAX_UNREAD_MEDIA = 16
"""Recordings and pictures of one session that may wait for their encoders."""


class RealtimeSession:
    """Carries one conversation over ``socket``, which is accepted already.

    With a ``store`` the conversation is kept for ``owner``; ``session_id`` is of one that was kept
    and goes on. ``initial_session`` is applied to a new one as its first ``session.update``.
    """

    def __init__(
        self,
        socket: WebSocket,
        engine: Engine,
        defaults: Defaults,
        *,
        store: SessionStore | None = None,
        session_id: str | None = None,
        owner: str | None = None,
        initial_session: dict[str, Any] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._socket = socket
        self._engine = engine
        self._defaults = defaults
        self._store = store
        self._resumes = session_id
        self._owner = owner
        self._initial_session = initial_session
        self._metrics = metrics
        self.conversation = Conversation(defaults)
        self._keeper: Keeper | None = None
        self._told_not_kept = False
        self._outbox: asyncio.Queue[tuple[str, Ticket | None] | None] = asyncio.Queue()
        self._waiting_bytes = 0
        self._closing: tuple[int, str] | None = None
        self._stopping = asyncio.Event()
        self._over = False
        self._closed = asyncio.Event()
        self._heard = asyncio.Event()

    @property
    def id(self) -> str:
        """The id of the session, which a resumed one brings along."""
        return self._resumes or self.conversation.id

    async def run(self) -> None:
        """Serve until either side closes. Cancelling it ends the session and frees its states.

        Raises `BusyError` when the engine has no room.
        """
        try:
            if await self._prepare():
                await self._serve()
            if self._closing is not None:
                with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                    await self._socket.close(*self._closing)
        finally:
            if self._store is not None:
                self._store.release(self.id, self)
            self._closed.set()

    async def _prepare(self) -> bool:
        """Take over the session that is to go on; False when there is none."""
        store, saved = self._store, None
        if self._resumes is not None:
            try:
                if store is not None and await store.load(self._resumes, self._owner) is not None:
                    await store.claim(self._resumes, self)
                    # Again: only now all that the other connection had to keep is in it.
                    saved = await store.load(self._resumes, self._owner)
            except StoreError as error:
                log.error("%s cannot be resumed: %s", self._resumes, error)
            if saved is None:
                await self._refuse()
                return False
            self.conversation = Conversation(self._defaults, saved)
        elif store is not None:
            await store.claim(self.id, self)
        if store is not None:
            loop = asyncio.get_running_loop()

            def failed(error: BaseException) -> None:
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._not_kept, error)

            conversation_id = self.conversation.conversation_id
            self._keeper = Keeper(
                store, self.id, conversation_id, self._owner, failed, begun=saved is not None
            )
        return self._closing is None

    async def _refuse(self) -> None:
        message = (
            f"there is no session {self._resumes!r} here: nothing was said in it, it was deleted, "
            "or the server keeps none; connect without session_id to begin a new one"
        )
        error = {"type": "invalid_request_error", "code": "session_not_found", "message": message}
        event = {"event_id": random_id("event"), "error": {**error, "param": "session_id"}}
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await self._socket.send_text(json.dumps({"type": "error", **event}))
        self._closing = (1008, "session_not_found")

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()

        def listener(event: ev.OutputEvent) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is gone: the server has stopped
                loop.call_soon_threadsafe(self._on_engine, event)

        self._engine.open(self.id, listener)
        log.info("%s %s", self.id, "goes on" if self._resumes else "opened")
        try:
            self._carry_out(self.conversation.open())
            if self._initial_session is not None and self._resumes is None:
                update = {"type": "session.update", "session": self._initial_session}
                self._carry_out(self.conversation.receive(json.dumps(update)))
            tasks = [
                asyncio.create_task(work, name=f"{self.id} {name}")
                for name, work in (
                    ("reader", self._read()),
                    ("writer", self._write()),
                    ("closer", self._give_up()),
                )
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
                    log.error("%s failed", self.id, exc_info=result)
                    self._closing = self._closing or (1011, "internal error")
        finally:
            self._over = True
            self._engine.release(self.id)
            await self._keep_unfinished()
            log.info("%s closed", self.id)

    async def close(self, code: int, reason: str) -> None:
        """End the session from the server's side and wait for it.

        What was sent already still goes out, as far as the client takes it soon.
        """
        self._stop(code, reason)
        await self._closed.wait()

    def _stop(self, code: int, reason: str) -> None:
        if self._closing is None:
            self._closing = (code, reason)
            self._outbox.put_nowait(None)
            self._stopping.set()

    async def _give_up(self) -> None:
        await self._stopping.wait()
        # The writer ends the session sooner, unless the client has stopped reading.
        await asyncio.sleep(FLUSH)

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            data = text if text is not None else message.get("bytes") or b""
            self._carry_out(self.conversation.receive(data))
            # A client that sends faster than we hear, see and keep waits here, and its socket too.
            while self._overloaded:
                self._heard.clear()
                await self._heard.wait()
            if self._keeper is not None:
                await self._keeper.settle()

    @property
    def _overloaded(self) -> bool:
        backlog = self._engine.backlog(self.id)
        unread = self.conversation.unread_media
        return backlog > self._engine.config.max_backlog or unread > MAX_UNREAD_MEDIA

    async def _write(self) -> None:
        while (entry := await self._outbox.get()) is not None:
            text, ticket = entry
            if ticket is not None and self._store is not None:
                await self._store.durable(ticket)
            await self._socket.send_text(text)
            self._waiting_bytes -= len(text)

    def _on_engine(self, event: ev.OutputEvent) -> None:
        self._heard.set()
        if not self._over:
            self._carry_out(self.conversation.handle(event))

    def _carry_out(self, effects: list[Effect]) -> None:
        if self._closing is not None:
            return
        ticket: Ticket | None = None
        events: list[tuple[Event, bool]] = []
        recorded = False
        for effect in effects:
            if isinstance(effect, dict):
                events.append((effect, recorded))
            elif isinstance(effect, Record):
                recorded = True
                if self._keeper is not None:
                    ticket = self._keeper.put(effect) or ticket
            else:
                if self._keeper is not None:
                    self._keeper.follow(effect)
                if self._metrics is not None and isinstance(effect, ev.Append):
                    self._metrics.heard(effect.chunk.seconds)
                self._engine.submit(self.id, effect)
        for event, waits in events:
            self._send(event, ticket if waits else None)
        if self._waiting_bytes > HIGH_WATER:
            self._stop(1008, "the client reads too slowly")

    def _send(self, event: Event, ticket: Ticket | None = None) -> None:
        """Send an event, once what it acknowledges is durable."""
        if self._metrics is not None:
            if event["type"] == "response.done":
                self._metrics.response_done(event["response"])
            elif event["type"] == "error":
                self._metrics.error(event["error"].get("code"))
        text = json.dumps(event, ensure_ascii=False)
        self._waiting_bytes += len(text)
        self._outbox.put_nowait((text, ticket))

    def _not_kept(self, error: BaseException) -> None:
        if self._told_not_kept or self._over:
            return
        self._told_not_kept = True
        log.error("%s is not kept: %s", self.id, error)
        message = (
            "the server cannot keep what is said (its log says why); the session goes on, but may "
            "be incomplete when it is resumed"
        )
        problem = {"type": "server_error", "code": "not_kept", "message": message}
        self._send({"type": "error", "event_id": random_id("event"), "error": problem})

    async def _keep_unfinished(self) -> None:
        """Keep an answer in progress as far as it came, and wait for the disk."""
        if self._keeper is None:
            return
        for index, item in enumerate(self.conversation.items):
            if item.status == "in_progress":
                self._keeper.put(KeepItem(index, item.record()))
        await self._keeper.settle(0)
