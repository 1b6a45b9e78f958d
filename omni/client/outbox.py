"""What was sent and not yet acknowledged: what has to be sent again when a session is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omni.client.events import Event

_ITEM_EVENTS = ("conversation.item.added", "conversation.item.created", "conversation.item.done")


class Outbox:
    """Remembers items, settings and wishes for an answer until the server has taken them.

    An item is acknowledged when the server tells it, settings by ``session.updated``, a
    ``response.create`` by the first output of its answer. Sound is not kept: what was said into a
    lost connection is lost. No I/O happens here.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Mapping[str, Any]] = {}
        self._responses: dict[str, str] = {}
        """Ids of responses that are being made -> ids of the events that asked for them."""
        self._settings: dict[str, Any] = {}
        """All settings that the server took, merged."""
        self._answered = False
        """Whether the last item of the conversation is the assistant's."""
        self.empty = True
        """Whether nothing was said yet, as far as the server told."""

    def note(self, event: Mapping[str, Any]) -> bool:
        """Take an event that is about to be sent; whether it is kept until it is acknowledged."""
        kind = event["type"]
        if kind == "response.cancel":
            self._drop("response.create")
        kept = kind in ("session.update", "response.create") or (
            kind == "conversation.item.create" and bool(event["item"].get("id"))
        )
        if kept:
            self._waiting[event["event_id"]] = event
        return kept

    def acknowledge(self, event: Event) -> None:
        """Take a server event."""
        data = event.data
        if event.type in _ITEM_EVENTS:
            item = data["item"]
            self.empty = False
            if event.type != "conversation.item.done":
                call = item.get("type") == "function_call"
                self._answered = call or item.get("role") == "assistant"
            self._drop("conversation.item.create", item.get("id"))
        elif event.type == "session.created":
            self._answered = False
        elif event.type == "session.updated":
            for event_id in self._find("session.update")[:1]:
                self._settings = _merge(self._settings, self._waiting.pop(event_id)["session"])
        elif event.type == "response.created":
            for event_id, sent in self._waiting.items():
                if sent["type"] == "response.create" and event_id not in self._responses.values():
                    self._responses[data["response"]["id"]] = event_id
                    break
        elif event.type == "response.output_item.added":
            self._waiting.pop(self._responses.get(data["response_id"], ""), None)
        elif event.type == "response.done":
            self._waiting.pop(self._responses.pop(data["response"].get("id"), ""), None)
        elif event.type == "error":
            self._waiting.pop((data.get("error") or {}).get("event_id") or "", None)

    def resume(self) -> tuple[list[Mapping[str, Any]], list[str]]:
        """After the server has told all items: what it lacks, in order, and whose answers broke.

        An answer that had not begun is asked for again unless the conversation ends with one. The
        other ids are of ``response.create`` events whose answers will not come to their end.
        """
        broken = [
            event_id for event_id in self._responses.values() if event_id not in self._waiting
        ]
        self._responses.clear()
        missing = any(e["type"] == "conversation.item.create" for e in self._waiting.values())
        if self._answered and not missing:
            broken += self._drop("response.create")
        return list(self._waiting.values()), broken

    def restart(self, event_id: str) -> None:
        """A new session takes the place of an empty one: it lacks all settings, too."""
        if self._settings:
            event = {"event_id": event_id, "type": "session.update", "session": self._settings}
            self._waiting = {event_id: event, **self._waiting}

    def _find(self, kind: str, item_id: str | None = None) -> list[str]:
        return [
            event_id
            for event_id, event in self._waiting.items()
            if event["type"] == kind and (item_id is None or event["item"]["id"] == item_id)
        ]

    def _drop(self, kind: str, item_id: str | None = None) -> list[str]:
        found = self._find(kind, item_id)
        for event_id in found:
            del self._waiting[event_id]
        return found


def _merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
