"""Server events against ``openai.types.realtime``, strictly: nothing missing, nothing unknown."""

from __future__ import annotations

import re
import typing
from typing import Any, Literal

from openai.types import realtime as rt
from pydantic import BaseModel, ConfigDict, TypeAdapter

EXTENSIONS = frozenset(
    {
        "session.id",
        "session.object",
        "session.temperature",
        "session.top_p",
        "session.seed",
        "session.audio.input.transcription.partial",
        "clause",
        "response.timings",
        "response.warnings",
        "response.usage.dropped_messages",
        "response.status_details.error.message",
    }
)
"""Fields of ours beyond the types, by their path in the event; ``docs/protocol.md`` has them."""


def members(union: Any) -> dict[str, type[BaseModel]]:
    """The classes of a union of events, by the ``type`` that each has."""
    classes = typing.get_args(typing.get_args(union)[0])
    return {typing.get_args(c.model_fields["type"].annotation)[0]: c for c in classes}


CLIENT = members(rt.RealtimeClientEvent)
SERVER = members(rt.RealtimeServerEvent)


class PartialTranscript(BaseModel):
    """Our own event, for those who ask for it."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["input_audio_buffer.partial_transcript"]
    event_id: str
    item_id: str
    transcript: str


_TYPES = {**SERVER, "input_audio_buffer.partial_transcript": PartialTranscript}
_ADAPTERS = {kind: TypeAdapter(event) for kind, event in _TYPES.items()}


def checked(event: dict[str, Any]) -> BaseModel:
    """The typed event; raises where it lacks a field, has a wrong type or an undocumented field."""
    assert event.get("type") in _TYPES, f"no server event: {event.get('type')!r}"
    typed = _ADAPTERS[event["type"]].validate_python(event, strict=True)
    unknown = set(_unknown(typed, "")) - EXTENSIONS
    assert not unknown, f"{event['type']} has undocumented fields: {sorted(unknown)}"
    return typed


def _unknown(value: Any, path: str) -> typing.Iterator[str]:
    if isinstance(value, BaseModel):
        for name in value.model_extra or ():
            yield f"{path}.{name}".lstrip(".")
        for name in type(value).model_fields:
            yield from _unknown(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for part in value:
            yield from _unknown(part, path)


def resolves(param: str, event: Any) -> bool:
    """Whether ``param`` leads into ``event``, or to a field that is missing in an object there."""
    inner = event
    for key in re.split(r"\.", param):
        if isinstance(inner, list):
            if not key.isdigit() or int(key) >= len(inner):
                return False
            inner = inner[int(key)]
        elif isinstance(inner, dict):
            if key not in inner:
                return True
            inner = inner[key]
        else:
            return False
    return True
