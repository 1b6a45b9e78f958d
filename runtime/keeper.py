"""What one connection keeps of its session, on the way to the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.media import Resampler
from omni import events as ev
from omni.types import AudioChunk, Pcm
from runtime.archive import Begin, Entry
from runtime.records import KeepInput, KeepMedia, KeepSettings, Record
from runtime.store import SessionStore, Ticket

MAX_UNKEPT = 64
"""Records of one session that may wait for the disk, after which its client waits."""


class InputSound:
    """The user's sound as far as it may still be asked for, as 16-bit samples.

    Positions are seconds of the session's input. The conversation bounds what waits in it.
    """

    def __init__(self) -> None:
        self._pieces: deque[tuple[float, int, NDArray[np.int16]]] = deque()
        """Where each begins, its rate, its samples."""
        self._end = 0.0

    def append(self, chunk: AudioChunk) -> None:
        """Take in more sound."""
        pcm = np.clip(np.rint(chunk.pcm * 32768.0), -32768, 32767).astype(np.int16)
        self._pieces.append((self._end, chunk.sample_rate, pcm))
        self._end += chunk.seconds

    def discard(self, before: float) -> None:
        """Drop the pieces that end before ``before``."""
        while self._pieces:
            start, rate, pcm = self._pieces[0]
            if start + len(pcm) / rate > before:
                return
            self._pieces.popleft()

    def slice(self, start: float, end: float) -> AudioChunk:
        """The sound between two positions as far as it is there, at the rate that came last."""
        out_rate = self._pieces[-1][1] if self._pieces else 24_000
        found: list[Pcm] = []
        for begin, rate, pcm in self._pieces:
            first, last = round((start - begin) * rate), round((end - begin) * rate)
            if last <= 0 or first >= len(pcm):
                continue
            piece = pcm[max(0, first) : last].astype(np.float32) / 32768.0
            if rate != out_rate:  # the client has changed the format in the middle
                resampler = Resampler(rate, out_rate)
                found += [resampler.feed(piece), resampler.flush()]
            else:
                found.append(piece)
        return AudioChunk(np.concatenate(found) if found else np.zeros(0, np.float32), out_rate)


class Keeper:
    """Hands the records of one session to ``store``; ``failed`` is told when one is not kept.

    Settings wait for the first item: a session in which nothing was said leaves nothing behind.
    ``begun`` says that the store has the session already. ``failed`` is called from any thread.
    """

    def __init__(
        self,
        store: SessionStore,
        session_id: str,
        conversation_id: str,
        owner: str | None,
        failed: Callable[[BaseException], None],
        *,
        begun: bool = False,
    ) -> None:
        self._store = store
        self._session_id = session_id
        self._conversation_id = conversation_id
        self._owner = owner
        self._failed = failed
        self._settings: dict[str, Any] = {}
        self._begin: Ticket | None = None
        if begun:
            self._begin = Ticket()
            self._begin.set_result(None)
        self._sound = InputSound()
        self._unkept: deque[Ticket] = deque()

    def put(self, record: Record) -> Ticket | None:
        """Hand over a record; None: there is nothing to wait for."""
        if isinstance(record, KeepSettings):
            self._settings = record.settings
            if self._begin is None:
                return None
        if self._begin is None or (self._begin.done() and self._begin.exception() is not None):
            self._begin = self._hand_over(Begin(self._conversation_id, self._owner, self._settings))
        if isinstance(record, KeepInput):
            sound = self._sound.slice(record.start, record.end)
            if not len(sound.pcm):
                return None
            record = KeepMedia(record.item_id, record.name, sound)
        return self._hand_over(record)

    def follow(self, command: ev.Command) -> None:
        """Take in what the user's sound is, from the commands to the engine."""
        if isinstance(command, ev.Append):
            self._sound.append(command.chunk)
        elif isinstance(command, ev.Discard):
            self._sound.discard(command.before)

    async def settle(self, most: int = MAX_UNKEPT) -> None:
        """Wait until at most ``most`` records wait for the disk."""
        while len(self._unkept) > most:
            await self._store.durable(self._unkept.popleft())

    def _hand_over(self, entry: Entry) -> Ticket:
        while self._unkept and self._unkept[0].done():
            self._unkept.popleft()
        ticket = self._store.put(self._session_id, entry)
        self._unkept.append(ticket)
        ticket.add_done_callback(self._look)
        return ticket

    def _look(self, ticket: Ticket) -> None:
        if (error := ticket.exception()) is not None:
            self._failed(error)
