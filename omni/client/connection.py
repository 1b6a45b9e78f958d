"""A session: its WebSocket, the task that reads it, and how it goes on when the socket breaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any
from weakref import WeakSet

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from omni.client.errors import OmniServerError, OmniTimeoutError, RefusedError
from omni.client.events import Event, Mailbox
from omni.client.handshake import Server
from omni.client.outbox import Outbox
from omni.errors import BusyError, ConnectionClosedError, InputError, OmniError

log = logging.getLogger(__name__)

_MAX_UNREAD = 4096
_TRY_AGAIN_LATER = 1013
_LOST = (None, 1001, 1006, 1011, 1012, 1014)
"""Close codes after which the session may be resumed: the server went away without a no."""

FIRST_WAIT = 0.5
LONGEST_WAIT = 8.0
GIVE_UP = 120.0
"""Seconds: between tries to reconnect, which double, and until they end."""


class EventStream:
    """The events of a session, in order. A server error is raised, and the loop may then go on."""

    def __init__(self, inbox: Mailbox, raise_errors: bool) -> None:
        self._inbox = inbox
        self._raise_errors = raise_errors

    @property
    def dropped(self) -> int:
        """How many events of the session were dropped because nobody read them in time."""
        return self._inbox.dropped

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = await self._inbox.get()
        if event is None:
            raise StopAsyncIteration
        if self._raise_errors and event.type == "error":
            raise OmniServerError.from_wire(event.data.get("error"))
        return event


class Tap:
    """Every event from the moment it was opened; errors that concern its owner are raised."""

    def __init__(self, exclusive: bool) -> None:
        self.box = Mailbox()
        self.exclusive = exclusive
        self.sent: set[str] = set()
        """Ids of the client events whose errors are the owner's."""

    async def next(self) -> Event:
        """Wait for the next event; raise OmniServerError where it says that ours failed."""
        event = await self.box.get()
        if event is None:
            raise ConnectionClosedError("the session was closed while an answer was awaited")
        if event.type == "error":
            error = OmniServerError.from_wire(event.data.get("error"))
            # Some servers do not say which event failed; troubles of their own are not ours.
            nameless = error.event_id is None and error.kind != "server_error"
            if nameless or error.event_id in self.sent:
                raise error
        return event

    async def wait_for(self, kind: str, seconds: float) -> Event:
        """Wait for an event of type ``kind``; raise OmniTimeoutError when none comes."""
        try:
            async with asyncio.timeout(seconds):
                while (event := await self.next()).type != kind:
                    pass
                return event
        except TimeoutError as error:
            raise _no_answer(kind, seconds) from error


class Connection:
    """An open session. Its one task reads the socket; :meth:`close` cancels it and waits for it.

    When the socket breaks, the task opens another one for the same session, unless ``reconnect``
    is False; senders wait meanwhile.
    """

    def __init__(self, server: Server, reconnect: bool) -> None:
        self.session: Mapping[str, Any] = {}
        self.active_response: str | None = None
        """Id of the answer that the server is making."""
        self._server = server
        self._reconnect = reconnect
        self._socket: ClientConnection
        self._closing = False
        self._online = asyncio.Event()
        self._over = False
        self._problem: str | None = None
        self._outbox = Outbox()
        self._inbox = Mailbox(_MAX_UNREAD)
        self._streams: WeakSet[EventStream] = WeakSet()
        self._taps: list[Tap] = []
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, server: Server, session_id: str | None, reconnect: bool) -> Connection:
        """Connect and wait for ``session.created``, of ``session_id`` where one is given."""
        self = cls(server, reconnect)
        self._socket = await self._greet(session_id)
        self._online.set()
        self._reader = asyncio.create_task(self._run(), name="omni-client-reader")
        return self

    @property
    def alive(self) -> bool:
        """Whether the session goes on, as far as is known, though its socket may be broken."""
        return self._reader is not None and not self._reader.done()

    @property
    def online(self) -> bool:
        """Whether an event that is sent now leaves at once."""
        return self.alive and self._online.is_set()

    @property
    def session_id(self) -> str | None:
        """The id by which the session can be resumed."""
        return self.session.get("id")

    async def close(self) -> None:
        """End the session; every reader comes to its end."""
        self._closing = True
        try:
            await self._socket.close()
        finally:
            if self._reader is not None:
                self._reader.cancel()
                await asyncio.wait([self._reader])

    async def send(self, event: Mapping[str, Any]) -> str:
        """Send one client event and give back its ``event_id``.

        It waits while the socket's buffer is full and while the connection is being restored.
        """
        event = {"event_id": f"event_{uuid.uuid4().hex}", **event}
        event_id = str(event["event_id"])
        text = json.dumps(event)
        while True:
            socket = await self._ready()
            kept = self._outbox.note(event)
            try:
                await socket.send(text)
                return event_id
            except ConnectionClosed as error:
                if not self._resumable(socket):
                    raise self._why_it_ended() from error
                if self._socket is socket:
                    self._online.clear()
            if kept:  # the reader sees to it
                await self._ready()
                return event_id

    async def _ready(self) -> ClientConnection:
        await self._online.wait()
        if self._over:
            raise self._why_it_ended()
        return self._socket

    def events(self, raise_errors: bool) -> EventStream:
        """Read what nobody has read yet, and all that follows."""
        stream = EventStream(self._inbox, raise_errors)
        self._streams.add(stream)
        return stream

    @contextlib.contextmanager
    def tap(self, exclusive: bool = False) -> Iterator[Tap]:
        """Listen from now on; an exclusive tap keeps events from an inbox that nobody reads."""
        tap = Tap(exclusive)
        self._taps.append(tap)
        if self._reader is not None and not self.alive:
            tap.box.close(self._why_it_ended)
        try:
            yield tap
        finally:
            self._taps.remove(tap)

    # The task that reads

    async def _run(self) -> None:
        try:
            while True:
                await self._read(self._socket)
                if not self._resumable(self._socket):
                    break
                self._online.clear()
                self.active_response = None
                code, reason = self._socket.close_code, self._socket.close_reason
                log.info("the connection to %s is lost (%s %s)", self._server.url, code, reason)
                self._dispatch(Event("client.disconnected", {"code": code, "reason": reason}))
                await self._resume()
        except OmniError as error:
            self._problem = str(error)
        finally:
            self._over = True
            self._online.set()
            for box in (self._inbox, *(tap.box for tap in self._taps)):
                box.close(None if self._closing else self._why_it_ended)

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for message in socket:
                self._dispatch(Event.parse(message))
        except ConnectionClosed:
            pass
        except ValueError as error:
            await socket.close(1002)
            raise self._babble(error) from error

    def _resumable(self, socket: ClientConnection) -> bool:
        return bool(
            self._reconnect
            and not self._closing
            and not self._over
            and self.session_id
            and socket.close_code in _LOST
        )

    async def _resume(self) -> None:
        """Go on with the session over a new socket; raises the reason when that cannot be."""
        loop = asyncio.get_running_loop()
        until = loop.time() + GIVE_UP
        why = f"{self._socket.close_code}: {self._socket.close_reason or 'no reason given'}"
        lost = f"session {self.session_id} with {self._server.url} was lost ({why})"
        wait = FIRST_WAIT
        while True:
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, LONGEST_WAIT)
            try:
                socket = await self._greet_again()
                try:
                    resent, broken = await self._catch_up(socket)
                except BaseException:
                    await socket.close()
                    raise
                break
            except (RefusedError, OmniServerError, InputError) as error:
                raise ConnectionClosedError(f"{lost}, and cannot be resumed: {error}") from error
            except (OmniError, ConnectionClosed) as error:
                if loop.time() > until:
                    raise ConnectionClosedError(
                        f"{lost}, and could not be resumed within {GIVE_UP:g} s: {error}"
                    ) from error
        self._socket = socket
        log.info("the connection to %s is restored", self._server.url)
        came_back = {"session_id": self.session_id, "resent": resent, "broken": broken}
        self._dispatch(Event("client.reconnected", came_back))
        self._online.set()

    async def _greet_again(self) -> ClientConnection:
        try:
            return await self._greet(self.session_id)
        except OmniServerError as error:
            if error.code != "session_not_found" or not self._outbox.empty:
                raise
        # Servers do not keep sessions in which nothing was said; then a new one is as good.
        socket = await self._greet(None)
        self._outbox.restart(f"event_{uuid.uuid4().hex}")
        return socket

    async def _greet(self, session_id: str | None) -> ClientConnection:
        socket = await self._server.open(session_id)
        try:

            def greeted(event: Event) -> bool:
                if event.type == "error":
                    error = OmniServerError.from_wire(event.data.get("error"))
                    raise BusyError(str(error)) if error.code == "server_full" else error
                return event.type == "session.created"

            hello = await self._receive(socket, greeted, "session.created")
            if session_id is not None and hello.data["session"].get("id") != session_id:
                raise RefusedError(
                    f"{self._server.url} opened a new session instead of {session_id}; it does not "
                    "know how to resume one"
                )
            self._dispatch(hello)
        except BaseException:
            await socket.close()
            raise
        return socket

    async def _catch_up(self, socket: ClientConnection) -> tuple[list[str], list[str]]:
        """Read what the server tells anew, then send it what it lacks; see `Outbox.resume`."""
        marker = f"event_{uuid.uuid4().hex}"
        # What it has, it tells before it answers; this answer is known by the marker.
        question = {"type": "conversation.item.retrieve", "item_id": "none", "event_id": marker}
        await socket.send(json.dumps(question))

        def answered(event: Event) -> bool:
            mine = event.type == "error" and event.data["error"].get("event_id") == marker
            if not mine:
                self._dispatch(event)
            return mine

        await self._receive(socket, answered, "answer")
        missing, broken = self._outbox.resume()
        for event in missing:
            await socket.send(json.dumps(event))
        return [event["event_id"] for event in missing], broken

    async def _receive(
        self, socket: ClientConnection, last: Callable[[Event], bool], what: str
    ) -> Event:
        """Read events until one is the ``last``."""
        try:
            async with asyncio.timeout(self._server.timeout):
                while True:
                    event = Event.parse(await socket.recv())
                    if last(event):
                        return event
        except TimeoutError as error:
            raise _no_answer(what, self._server.timeout) from error
        except ConnectionClosed as error:
            raise self._closed(socket) from error
        except ValueError as error:
            raise self._babble(error) from error

    def _dispatch(self, event: Event) -> None:
        self._outbox.acknowledge(event)
        if event.type in ("session.created", "session.updated"):
            self.session = event.data["session"]
        elif event.type == "response.created":
            self.active_response = event.data["response"]["id"]
        elif event.type == "response.done":
            self.active_response = None
        for tap in self._taps:
            tap.box.put(event)
        if self._streams or not any(tap.exclusive for tap in self._taps):
            self._inbox.put(event)

    # Why it ended

    def _why_it_ended(self) -> OmniError:
        if self._problem is not None:
            return ConnectionClosedError(self._problem)
        return self._closed(self._socket)

    def _closed(self, socket: ClientConnection) -> OmniError:
        reason = socket.close_reason or "no reason given"
        url = self._server.url
        if socket.close_code == _TRY_AGAIN_LATER:
            return BusyError(
                f"the server at {url} takes no session now ({reason}); try again later"
            )
        kind = ConnectionClosedError if socket.close_code in _LOST else RefusedError
        return kind(
            f"the session with {url} has ended ({socket.close_code}: {reason}); connect() opens a "
            "new one, which does not remember this conversation"
        )

    def _babble(self, error: ValueError) -> OmniError:
        return RefusedError(
            f"{self._server.url} sent what is not a Realtime event ({error}); is it an Omni server?"
        )


def _no_answer(kind: str, seconds: float) -> OmniTimeoutError:
    return OmniTimeoutError(
        f"no {kind} in {seconds:g} s; is it an Omni server, and does its /health say ready?"
    )
