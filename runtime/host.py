"""What the parts of a conversation need of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from omni import events as ev
from omni.errors import InputError
from omni.types import Span
from runtime.records import Record
from runtime.settings import Settings
from runtime.wire import Event

Effect = Event | ev.Command | Record
"""An event for the client, a command for the engine, or something to keep."""


class Host(Protocol):
    """Gives the session's settings and takes effects, which are carried out in their order."""

    settings: Settings
    clock: Callable[[], float]
    new_id: Callable[[str], str]

    def send(self, kind: str, **fields: object) -> None:
        """Send an event to the client."""
        ...

    def refuse(self, error: InputError, event_id: str | None = None) -> None:
        """Tell the client that something could not be done."""
        ...

    def do(self, effect: ev.Command | Record) -> None:
        """Give the engine a command, or have something kept."""
        ...


class HearingHost(Host, Protocol):
    """What hearing tells about turns."""

    def interrupt(self) -> None:
        """The user speaks: an answer in progress ends."""
        ...

    def read_ahead(self, heard: Span) -> None:
        """The user may have said this, and nothing more."""
        ...

    def take_turn(
        self,
        item_id: str,
        key: str,
        heard: Span | None,
        *,
        sound: tuple[float, float],
        stamps: dict[str, float],
        answer: bool,
    ) -> None:
        """A turn is over; its transcript is ``heard``, or comes with ``key``.

        ``sound`` is where it lies in the input, ``stamps`` are the times of its stages.
        """
        ...
