"""The store of a server: conversations are kept as they happen, without anyone waiting.

One thread owns the `Archive`. What sessions hand over while it writes is written next, all in one
transaction, so that a slow disk makes the groups larger and not the queue longer.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from omni.errors import StoreError
from runtime.archive import ANYONE, Archive, Entry, Medium, Summary
from runtime.records import Saved
from runtime.worker import Worker

log = logging.getLogger(__name__)
T = TypeVar("T")

TIDY = 3600.0
"""Seconds between two looks for sessions that are too old."""

Ticket = Future[None]
"""Done when what was put is durable; its exception is a `StoreError`."""


@dataclass(frozen=True)
class Keep:
    """Where sessions are kept, and how long after their last word; None: forever."""

    directory: Path
    retention: timedelta | None = None


class Holder(Protocol):
    """The connection that carries a session."""

    async def close(self, code: int, reason: str) -> None:
        """End it and wait until all of its state was put into the store."""
        ...


class SessionStore:
    """Keeps sessions as ``keep`` says.

    ``clock`` gives seconds since 1970. Its coroutines raise `StoreError`.
    """

    def __init__(self, keep: Keep, *, clock: Callable[[], float] = time.time) -> None:
        self._keep = keep
        self._clock = clock
        self._archive: Archive | None = None
        self._worker = Worker("store", lambda job: job())
        self._lock = threading.Lock()
        self._pending: list[tuple[str, Entry, Ticket]] = []
        self._holders: dict[str, Holder] = {}

    def start(self) -> None:
        """Open the directory, look whether it is sound, and delete what is too old.

        Raises `StoreError`.
        """
        self._archive = Archive(self._keep.directory, check=True, clock=self._clock)
        self._tidy()
        self._worker.start()

    def close(self) -> None:
        """Write what was put and close; put nothing afterwards."""
        if self._archive is not None:
            self._worker.stop()
            self._archive.close()
            self._archive = None

    # What sessions do

    def put(self, session_id: str, entry: Entry) -> Ticket:
        """Hand over an entry; never blocks. Entries become durable in the order of their puts."""
        ticket = Ticket()
        ticket.set_running_or_notify_cancel()  # who stops waiting does not take it back
        with self._lock:
            self._pending.append((session_id, entry, ticket))
            first = len(self._pending) == 1
        if first:
            self._worker.put(self._write)
        return ticket

    async def durable(self, ticket: Ticket) -> bool:
        """Wait for a ticket; False: it could not be kept. Cancelling takes nothing back."""
        if not ticket.done():
            waiting = asyncio.wrap_future(ticket)
            waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.wait([waiting])
        return ticket.exception() is None

    async def claim(self, session_id: str, holder: Holder) -> None:
        """Make ``holder`` the one that carries the session; whoever did so before is closed."""
        while (other := self._holders.get(session_id)) is not None:
            await other.close(4001, "the session goes on over another connection")
        self._holders[session_id] = holder

    def release(self, session_id: str, holder: Holder) -> None:
        """End a claim; nothing when it is another's by now."""
        if self._holders.get(session_id) is holder:
            del self._holders[session_id]
            self._worker.put(self._scrub)

    # What is asked

    async def load(self, session_id: str, owner: str | None = ANYONE) -> Saved | None:
        """See `Archive.load`; all that was put before is in it."""
        return await self._ask(lambda archive: archive.load(session_id, owner))

    async def sessions(
        self, owner: str | None = ANYONE, *, limit: int = -1, offset: int = 0
    ) -> list[Summary]:
        """See `Archive.sessions`."""
        return await self._ask(lambda archive: archive.sessions(owner, limit=limit, offset=offset))

    async def media(self, session_id: str, owner: str | None = ANYONE) -> list[Medium]:
        """See `Archive.media`."""
        return await self._ask(lambda archive: archive.media(session_id, owner))

    async def export(self, session_id: str, owner: str | None = ANYONE) -> dict[str, Any] | None:
        """See `Archive.export`."""
        return await self._ask(lambda archive: archive.export(session_id, owner))

    async def delete(self, ids: Iterable[str], owner: str | None = ANYONE) -> list[str]:
        """See `Archive.delete`; what is said in a deleted session from now on is not kept."""
        chosen = list(ids)
        return await self._ask(lambda archive: archive.delete(chosen, owner))

    async def keep_tidy(self) -> None:
        """Look every hour for what is too old, until cancelled."""
        while True:
            await asyncio.sleep(TIDY)
            try:
                await self._ask(lambda _: self._tidy())
            except StoreError as error:
                log.warning("old sessions could not be deleted: %s", error)

    # The thread

    async def _ask(self, question: Callable[[Archive], T]) -> T:
        assert self._archive is not None
        return await asyncio.wrap_future(self._worker.call(partial(question, self._archive)))

    def _tidy(self) -> None:
        assert self._archive is not None
        retention, before = self._keep.retention, None
        if retention is not None:
            before = self._clock() - retention.total_seconds()
        gone = self._archive.tidy(before, spare=list(self._holders))
        if gone:
            log.info("%d sessions were older than %s and are deleted", len(gone), retention)

    def _scrub(self) -> None:
        assert self._archive is not None
        self._archive.scrub()

    def _write(self) -> None:
        assert self._archive is not None
        with self._lock:
            batch, self._pending = self._pending, []
        try:
            outcome = self._archive.write([(session, entry) for session, entry, _ in batch])
        except Exception as error:
            log.exception("keeping failed")
            outcome = [StoreError(f"keeping failed: {type(error).__name__}: {error}")] * len(batch)
        for (_, _, ticket), wrong in zip(batch, outcome, strict=True):
            if wrong is None:
                ticket.set_result(None)
            else:
                ticket.set_exception(wrong)
