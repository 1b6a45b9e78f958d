"""What of a conversation is kept, as effects of the machine, and what is given back later.

A record of an item is a JSON object (`runtime.items.Item.record`). Media have names of their own,
such as ``item_5f2a.0``, and are kept as files beside the records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omni.types import AudioChunk


@dataclass(frozen=True, slots=True)
class KeepSettings:
    """The session's settings as they are now."""

    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class KeepItem:
    """An item: a new one goes to place ``index`` of the conversation, a known one is replaced."""

    index: int
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DropItem:
    """An item was deleted, its media with it."""

    item_id: str


@dataclass(frozen=True, slots=True)
class KeepMedia:
    """A medium of an item: an encoded picture as it came, or sound."""

    item_id: str
    name: str
    content: bytes | AudioChunk


@dataclass(frozen=True, slots=True)
class KeepInput:
    """The user's sound from ``start`` to ``end`` seconds of the session's input, as a medium."""

    item_id: str
    name: str
    start: float
    end: float


Record = KeepSettings | KeepItem | DropItem | KeepMedia | KeepInput


@dataclass(frozen=True, slots=True)
class Saved:
    """A session as the store gives it back; ``items`` are records in their order.

    ``media`` has, by name, the content of those parts whose record says ``"ready": false``: the
    server was stopped before it had heard or seen them.
    """

    id: str
    conversation_id: str
    settings: dict[str, Any]
    items: tuple[dict[str, Any], ...]
    media: Mapping[str, bytes | AudioChunk] = field(default_factory=dict)
