"""One WebSocket to ``/v1/realtime``: opening it, its reader task, and why it ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit
from weakref import WeakSet

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from omni.client.errors import OmniServerError, OmniTimeoutError
from omni.client.events import Event, Mailbox
from omni.errors import BusyError, ConnectionClosedError, InputError, OmniError

_MAX_MESSAGE = 64 * 2**20  # pictures in a reply are the largest
_MAX_UNREAD = 4096
_TRY_AGAIN_LATER = 1013


class EventStream:
    """The events of a session, in order. A server error is raised, and the loop may then go on."""

    def __init__(self, inbox: Mailbox, raise_errors: bool) -> None:
        self._inbox = inbox
        self._raise_errors = raise_errors

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
            if error.event_id is None or error.event_id in self.sent:
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
            raise OmniTimeoutError(
                f"no {kind} in {seconds:g} s; is it an Omni server, and does its /health say ready?"
            ) from error


class Connection:
    """An open session. Its one task reads the socket; :meth:`close` cancels it and waits for it."""

    def __init__(self, url: str, socket: ClientConnection) -> None:
        self.url = url
        self.session: Mapping[str, Any] = {}
        self._socket = socket
        self._closing = False
        self._inbox = Mailbox(_MAX_UNREAD)
        self._streams: WeakSet[EventStream] = WeakSet()
        self._taps: list[Tap] = []
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, url: str, model: str, headers: Mapping[str, str], seconds: float
    ) -> Connection:
        """Connect and wait for ``session.created``."""
        self = cls(url, await _handshake(url, realtime_uri(url, model), headers, seconds))
        try:
            with self.tap() as tap:
                self._reader = asyncio.create_task(self._read(), name="omni-client-reader")
                await tap.wait_for("session.created", seconds)
        except OmniServerError as error:
            await self.close()
            if error.code == "server_full":
                raise BusyError(str(error)) from None
            raise
        except BaseException:
            await self.close()
            raise
        return self

    @property
    def alive(self) -> bool:
        """Whether the other side is still there, as far as is known."""
        return self._reader is not None and not self._reader.done()

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
        """Send one client event and give back its ``event_id``."""
        event = {"event_id": f"event_{uuid.uuid4().hex}", **event}
        try:
            await self._socket.send(json.dumps(event))
        except ConnectionClosed as error:
            raise self._why_it_ended() from error
        return str(event["event_id"])

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

    async def _read(self) -> None:
        why: Callable[[], Exception] | None = self._why_it_ended
        try:
            async for message in self._socket:
                self._dispatch(Event.parse(message))
        except ConnectionClosed:
            pass
        except ValueError as error:
            text = f"{self.url} sent what is not a Realtime event ({error}); is it an Omni server?"

            def why() -> Exception:
                return ConnectionClosedError(text)

            await self._socket.close(1002)
        finally:
            for box in (self._inbox, *(tap.box for tap in self._taps)):
                box.close(None if self._closing else why)

    def _dispatch(self, event: Event) -> None:
        if event.type in ("session.created", "session.updated"):
            self.session = event.data["session"]
        for tap in self._taps:
            tap.box.put(event)
        if self._streams or not any(tap.exclusive for tap in self._taps):
            self._inbox.put(event)

    def _why_it_ended(self) -> OmniError:
        reason = self._socket.close_reason or "no reason given"
        if self._socket.close_code == _TRY_AGAIN_LATER:
            return BusyError(
                f"the server at {self.url} takes no session now ({reason}); try again later"
            )
        return ConnectionClosedError(
            f"the session with {self.url} has ended ({self._socket.close_code}: {reason}); "
            "connect() opens a new one, which does not remember this conversation"
        )


async def _handshake(
    url: str, uri: str, headers: Mapping[str, str], seconds: float
) -> ClientConnection:
    local = urlsplit(uri).hostname in ("127.0.0.1", "localhost", "::1")
    try:
        return await open_websocket(
            uri,
            additional_headers=headers,
            max_size=_MAX_MESSAGE,
            compression=None,  # base64 of sound hardly shrinks, and costs time
            open_timeout=seconds,
            close_timeout=3,
            ping_timeout=60,  # a busy 2-core machine may answer late
            proxy=None if local else True,
        )
    except InvalidURI as error:
        raise InputError(f"{url} is not an address: {error}", param="url") from error
    except InvalidStatus as error:
        status = error.response.status_code
        if status in (429, 503):
            raise BusyError(f"the server at {url} is full; try again later") from error
        hint = "check api_key" if status in (401, 403) else "is it an Omni server?"
        raise ConnectionClosedError(
            f"{url} refused the session with HTTP {status}; {hint}"
        ) from error
    except TimeoutError as error:
        raise OmniTimeoutError(
            f"{url} opened no session in {seconds:g} s; it may still be loading its models: "
            "wait for /health to say ready, or pass a longer timeout"
        ) from error
    except (InvalidHandshake, EOFError) as error:
        raise ConnectionClosedError(
            f"what answers at {url} opens no WebSocket ({error}); check the address"
        ) from error
    except OSError as error:
        raise ConnectionClosedError(
            f"no server answers at {url}; start it with `omni serve`"
        ) from error


def realtime_uri(url: str, model: str) -> str:
    """Turn a server's address into that of its realtime socket; InputError when it is none."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if parts.scheme not in schemes or not parts.hostname:
        raise InputError(
            f"{url!r} is not a server's address; expected one like http://127.0.0.1:7860",
            param="url",
        )
    path = parts.path.rstrip("/")
    if not path.endswith("/realtime"):
        path = path.removesuffix("/v1") + "/v1/realtime"
    query = parts.query or urlencode({"model": model})
    return urlunsplit((schemes[parts.scheme], parts.netloc, path, query, ""))
