"""Server events as they come off the wire, and the box in which they wait for their reader."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from omni.client.media import WIRE_RATE, pcm16_to_float
from omni.types import AudioChunk


@dataclass(frozen=True, slots=True)
class Event:
    """One server event: its ``type``, and its fields in ``data`` or as attributes.

    ``received`` is the moment of arrival in seconds of :func:`time.monotonic`.

    >>> Event("response.output_text.delta", {"delta": "Hel"}).delta
    'Hel'
    """

    type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    received: float = field(default_factory=time.monotonic, compare=False)

    def __getattr__(self, name: str) -> Any:
        """Look a field up; AttributeError lists those that the event has."""
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self.data[name]
        except KeyError:
            fields = ", ".join(self.data) or "no fields"
            raise AttributeError(f"{self.type} has no field {name!r}; it has {fields}") from None

    @classmethod
    def parse(cls, message: str | bytes) -> Event:
        """Read one WebSocket message; ValueError when it is not an event."""
        data = json.loads(message)
        if not isinstance(data, dict) or not isinstance(data.get("type"), str):
            raise ValueError("not a Realtime event: an object with a `type` was expected")
        return cls(data.pop("type"), data)

    def audio_chunk(self) -> AudioChunk:
        """Decode the sound of a ``response.output_audio.delta``: float32 mono at 24 kHz."""
        return AudioChunk(pcm16_to_float(base64.b64decode(self.data["delta"])), WIRE_RATE)


class Mailbox:
    """Events waiting for a reader. Past ``limit`` unread events the oldest are dropped."""

    def __init__(self, limit: int | None = None) -> None:
        self._events: deque[Event] = deque(maxlen=limit)
        self._changed = asyncio.Event()
        self._closed = False
        self._error: Callable[[], Exception] | None = None

    def put(self, event: Event) -> None:
        """Add an event at the end."""
        self._events.append(event)
        self._changed.set()

    def close(self, error: Callable[[], Exception] | None = None) -> None:
        """No more will come; once it is empty, readers get ``error()`` or the end of the stream."""
        self._closed, self._error = True, error
        self._changed.set()

    async def get(self) -> Event | None:
        """Wait for the next event; None at the end. A cancelled get takes nothing."""
        while not self._events:
            if self._closed:
                if self._error is not None:
                    raise self._error()
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._events.popleft()
