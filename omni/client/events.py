"""Server events as they come off the wire, and the box in which they wait for their reader."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from omni.client.media import WIRE_RATE, pcm16_to_float
from omni.types import AudioChunk, ToolCall

if TYPE_CHECKING:
    from openai.types.realtime import RealtimeServerEvent


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its ``type``, and its fields in ``data`` or as attributes.

    The types are those of the Realtime protocol. Two are this client's own:
    ``client.disconnected`` (``code``, ``reason``) when the connection is lost, and
    ``client.reconnected`` when the session goes on (``resent``: ids of the events that were sent
    again; ``broken``: ids of the ``response.create`` events whose answers broke off); between them
    the server tells all items of the conversation anew.
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

    @property
    def words(self) -> str | None:
        """More of the answer's words, spoken or written; None in events that bring none."""
        if self.type in ("response.output_text.delta", "response.output_audio_transcript.delta"):
            return str(self.data["delta"])
        return None

    @property
    def sound(self) -> AudioChunk | None:
        """More of the answer's sound; None in events that bring none."""
        return self.audio_chunk() if self.type == "response.output_audio.delta" else None

    @property
    def tool_call(self) -> ToolCall | None:
        """The call of a tool that is now complete; None in events that complete none."""
        if self.type != "response.output_item.done":
            return None
        return function_call(self.data["item"])

    def audio_chunk(self) -> AudioChunk:
        """Decode the sound of a ``response.output_audio.delta``: float32 mono at 24 kHz."""
        return AudioChunk(pcm16_to_float(base64.b64decode(self.data["delta"])), WIRE_RATE)

    def typed(self) -> RealtimeServerEvent:
        """The same event as a class of ``openai.types.realtime``, for type checkers and editors.

        Loads the ``openai`` package, which takes a moment the first time. Raises LookupError for
        events that are not in the protocol.
        """
        from openai.types import realtime

        for kind in get_args(get_args(realtime.RealtimeServerEvent)[0]):
            if self.type in get_args(kind.model_fields["type"].annotation):
                event: RealtimeServerEvent = kind.construct(type=self.type, **self.data)
                return event
        raise LookupError(f"{self.type} is no server event of openai.types.realtime; read .data")


def function_call(item: Mapping[str, Any]) -> ToolCall | None:
    """The call that a whole ``function_call`` item holds; None for any other item."""
    if item.get("type") != "function_call" or item.get("status", "completed") != "completed":
        return None
    return ToolCall(str(item["call_id"]), str(item["name"]), item.get("arguments") or "{}")


class Mailbox:
    """Events waiting for a reader. Past ``limit`` unread events the oldest are dropped."""

    def __init__(self, limit: int | None = None) -> None:
        self._events: deque[Event] = deque(maxlen=limit)
        self._changed = asyncio.Event()
        self._closed = False
        self._error: Callable[[], Exception] | None = None
        self.dropped = 0
        """How many events were dropped unread."""

    def put(self, event: Event) -> None:
        """Add an event at the end."""
        self.dropped += len(self._events) == self._events.maxlen
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
