"""One place of the engine, taken for the time of one request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from omni import events as ev
from runtime.api.errors import ClientGoneError, NotReadyError
from runtime.engine import Engine
from runtime.hub import Hub

T = TypeVar("T")
Piece = str | bytes
_END = object()


def ready_hub(request: Request) -> Hub:
    """The hub; `NotReadyError` while its models load."""
    hub: Hub = request.app.state.hub
    if hub.engine is None or hub.state != "ready":
        raise NotReadyError(
            f"the server is {hub.state}; try again in a moment, GET /health says when it is ready"
        )
    return hub


class Slot:
    """A session of the engine. Use it as a context manager: leaving it ends what still runs.

    Entering raises `BusyError` when all sessions are taken.
    """

    def __init__(self, hub: Hub) -> None:
        assert hub.engine is not None
        self.hub = hub
        self.engine: Engine = hub.engine
        self._id = f"http_{secrets.token_hex(8)}"
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[ev.OutputEvent] = asyncio.Queue()

    def __enter__(self) -> Slot:
        self.engine.open(self._id, self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.release(self._id)

    def _listen(self, event: ev.OutputEvent) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: the server has stopped
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def answer(self, start: ev.Start) -> AsyncIterator[ev.OutputEvent]:
        """The events of an answer up to its `ResponseDone`."""
        self.engine.submit(self._id, start)
        while True:
            event = await self._events.get()
            yield event
            if isinstance(event, ev.ResponseDone):
                return

    async def run(self, work: Callable[[], T]) -> T:
        """Do ``work``, which blocks, in a thread."""
        return await self._loop.run_in_executor(self.hub.pool, work)

    async def each(self, items: Iterator[T]) -> AsyncIterator[T]:
        """The items, each made in a thread when it is asked for."""
        while (item := await self.run(partial(next, items, _END))) is not _END:
            yield item


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, but cancel it and raise `ClientGoneError` when the client goes away.

    The body of the request must have been read.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait([working, watching], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGoneError
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Stream(StreamingResponse):
    """Sends ``pieces`` as they come; they are closed in any case, sent or not.

    Made by `begin`, which waits for the first piece: what fails before it gets its own status.
    """

    def __init__(self, first: Piece, pieces: AsyncGenerator[Piece], **options: Any) -> None:
        super().__init__(_chain(first, pieces), **options)
        self._pieces = pieces

    @classmethod
    async def begin(cls, request: Request, pieces: AsyncGenerator[Piece], **options: Any) -> Stream:
        """Wait for the first piece; `ClientGoneError` when the client does not."""
        return cls(await while_connected(request, _first(pieces)), pieces, **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._pieces.aclose()


async def _first(pieces: AsyncGenerator[Piece]) -> Piece:
    return await anext(pieces)


async def _chain(first: Piece, rest: AsyncGenerator[Piece]) -> AsyncIterator[Piece]:
    yield first
    async for piece in rest:
        yield piece


def server_sent(data: Mapping[str, Any] | str) -> str:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"data: {text}\n\n"
