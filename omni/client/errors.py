"""Errors that only a client meets; the others are in :mod:`omni.errors`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omni.errors import ConnectionClosedError, OmniError


class OmniServerError(OmniError):
    """The server refused or failed something that was asked of it; the session goes on.

    ``code`` is a stable word for programs, ``param`` names the field at fault, ``kind`` is the
    wire's ``error.type``, and ``event_id`` the client event that the error answers; each is None
    where the server does not say.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str | None = None,
        event_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind
        self.event_id = event_id

    @classmethod
    def from_wire(cls, error: Mapping[str, Any] | None) -> OmniServerError:
        """Read the ``error`` object of an ``error`` event or of a failed response."""
        error = error or {}
        return cls(
            error.get("message") or error.get("code") or "the server failed and did not say why",
            code=error.get("code"),
            param=error.get("param"),
            kind=error.get("type"),
            event_id=error.get("event_id"),
        )


class OmniTimeoutError(OmniError, TimeoutError):
    """The server did not answer in the time given."""


class RefusedError(ConnectionClosedError):
    """The server ended or refused the session on purpose; trying again would not help."""
