"""One WebSocket: the socket's text in, the conversation's events out, and nobody else harmed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging

from fastapi import WebSocket, WebSocketDisconnect

from omni import events as ev
from omni.types import AudioChunk
from runtime.conversation import Conversation, Effect
from runtime.engine import Engine
from runtime.settings import Defaults
from runtime.wire import encode_audio

log = logging.getLogger(__name__)

HIGH_WATER = 32 * 1024 * 1024
"""Bytes that may wait for a slow client before it is let go."""

FLUSH = 1.0
"""Seconds in which a session that is ended may still take what was sent to it."""

MAX_UNREAD_MEDIA = 16
"""Recordings and pictures of one session that may wait for their encoders."""


class RealtimeSession:
    """Carries one conversation over ``socket``, which is accepted already."""

    def __init__(self, socket: WebSocket, engine: Engine, defaults: Defaults) -> None:
        self._socket = socket
        self._engine = engine
        self.conversation = Conversation(defaults)
        self._outbox: asyncio.Queue[str | None] = asyncio.Queue()
        self._waiting_bytes = 0
        self._closing: tuple[int, str] | None = None
        self._stopping = asyncio.Event()
        self._closed = asyncio.Event()
        self._heard = asyncio.Event()

    async def run(self) -> None:
        """Serve until either side closes. Cancelling it ends the session and frees its states.

        Raises `BusyError` when the engine has no room.
        """
        loop = asyncio.get_running_loop()

        def listener(event: ev.OutputEvent) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is gone: the server has stopped
                loop.call_soon_threadsafe(self._on_engine, event)

        session_id = self.conversation.id
        self._engine.open(session_id, listener)
        log.info("%s opened", session_id)
        try:
            self._carry_out(self.conversation.open())
            tasks = [
                asyncio.create_task(work, name=f"{session_id} {name}")
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
                    log.error("%s failed", session_id, exc_info=result)
                    self._closing = self._closing or (1011, "internal error")
            if self._closing is not None:
                with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                    await self._socket.close(*self._closing)
        finally:
            self._engine.release(session_id)
            self._closed.set()
            log.info("%s closed", session_id)

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
            # A client that sends faster than we hear and see waits here, and its socket with it.
            while self._overloaded:
                self._heard.clear()
                await self._heard.wait()

    @property
    def _overloaded(self) -> bool:
        backlog = self._engine.backlog(self.conversation.id)
        unread = self.conversation.unread_media
        return backlog > self._engine.config.max_backlog or unread > MAX_UNREAD_MEDIA

    async def _write(self) -> None:
        while (text := await self._outbox.get()) is not None:
            await self._socket.send_text(text)
            self._waiting_bytes -= len(text)

    def _on_engine(self, event: ev.OutputEvent) -> None:
        self._heard.set()
        if not self._closed.is_set():
            self._carry_out(self.conversation.handle(event))

    def _carry_out(self, effects: list[Effect]) -> None:
        if self._closing is not None:
            return
        for effect in effects:
            if isinstance(effect, dict):
                text = json.dumps(effect, ensure_ascii=False, default=_on_wire)
                self._waiting_bytes += len(text)
                self._outbox.put_nowait(text)
            else:
                self._engine.submit(self.conversation.id, effect)
        if self._waiting_bytes > HIGH_WATER:
            self._stop(1008, "the client reads too slowly")


def _on_wire(value: object) -> str:
    if isinstance(value, AudioChunk):
        return encode_audio(value)
    raise TypeError(f"{type(value).__name__} does not go over the wire")
