"""Every error that a user of Omni can meet.

::

    OmniError
    ├── InputError            what was given is wrong: a file, an event, an option
    │   └── MediaError        a picture, recording or clip cannot be used
    ├── WeightsError          a weight file cannot be had or is not what it should be
    ├── StoreError            conversations cannot be kept, or what was kept cannot be read
    ├── MissingExtraError     an optional dependency is not installed
    ├── BusyError             the machine is full; try again later
    ├── ConnectionClosedError the other side of a session is gone
    │   └── RefusedError      it does not want the session (omni.client)
    ├── OmniServerError       the server refused something (omni.client)
    └── OmniTimeoutError      the server took too long (omni.client)

A message says what was wrong, what was expected and what to do.
"""

from __future__ import annotations


class OmniError(Exception):
    """Base of all errors that Omni raises on purpose."""


class InputError(OmniError):
    """What was given is wrong.

    ``param`` names the field or option at fault, ``code`` is a stable word for programs.
    """

    def __init__(
        self, message: str, *, param: str | None = None, code: str = "invalid_value"
    ) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class MediaError(InputError):
    """A picture, recording or clip cannot be used."""


class WeightsError(OmniError):
    """A weight file cannot be had, or is not what it should be."""


class StoreError(OmniError):
    """Conversations cannot be kept, or what was kept cannot be read."""


class MissingExtraError(OmniError):
    """An optional dependency is not installed; the message holds the pip command."""


class BusyError(OmniError):
    """The machine is full: the limit is in the message."""


class ConnectionClosedError(OmniError):
    """The other side of a session is gone."""
