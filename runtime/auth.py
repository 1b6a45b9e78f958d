"""Who asks: API keys, and short-lived client secrets that carry the settings of a session."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni.errors import InputError, OmniError

KEYS_VARIABLE = "OMNI_API_KEYS"
"""The environment variable with keys, separated by commas."""

SUBPROTOCOL = "openai-insecure-api-key."
"""How a browser, which cannot set headers, sends its key when it opens a WebSocket."""

SECRET_PREFIX = "ek_"
MAX_SECRETS = 10_000
"""Client secrets that may be valid at one time."""


class AuthError(OmniError):
    """The API key or client secret is missing, wrong or too old."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. ``owner`` names an API key by a hash; None: the server has no keys.

    ``session`` holds the settings that a client secret was made with; None: no secret was given.
    """

    owner: str | None = None
    session: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Secret:
    identity: Identity
    expires_at: int


class Keys:
    """The keys of a server, as hashes; without any, everybody may ask for everything.

    ``clock`` gives seconds since 1970.
    """

    def __init__(self, keys: Iterable[str] = (), *, clock: Callable[[], float] = time.time) -> None:
        self._keys = [_digest(key) for key in keys]
        self._secrets: dict[bytes, _Secret] = {}
        self._clock = clock

    @property
    def required(self) -> bool:
        """Whether a key is asked for."""
        return bool(self._keys)

    def issue(self, session: Mapping[str, Any], seconds: int, owner: str | None) -> tuple[str, int]:
        """A new client secret and when it ends, in seconds since 1970."""
        now = self._clock()
        self._secrets = {k: s for k, s in self._secrets.items() if s.expires_at > now}
        if len(self._secrets) >= MAX_SECRETS:
            del self._secrets[next(iter(self._secrets))]
        value = SECRET_PREFIX + secrets.token_urlsafe(24)
        expires_at = int(now) + seconds
        self._secrets[_digest(value)] = _Secret(Identity(owner, dict(session)), expires_at)
        return value, expires_at

    def identify(self, token: str | None, *, realtime: bool = False) -> Identity:
        """Who ``token`` belongs to; client secrets open only a ``realtime`` session.

        Raises `AuthError`.
        """
        if token is not None and token.startswith(SECRET_PREFIX):
            secret = self._secrets.get(_digest(token))
            if secret is None or secret.expires_at <= self._clock():
                raise AuthError(
                    "the client secret is unknown or has expired; ask for a new one with "
                    "POST /v1/realtime/client_secrets"
                )
            if not realtime:
                raise AuthError("client secrets open /v1/realtime only; send an API key")
            return secret.identity
        if not self._keys:
            return Identity()
        if token is None:
            raise AuthError("an API key is needed; send it as 'Authorization: Bearer KEY'")
        given = _digest(token)
        # All are compared, so that the time says nothing about which one is near.
        if not any([hmac.compare_digest(given, key) for key in self._keys]):
            raise AuthError(
                "the API key is wrong; send one that the server was started with (--api-key)"
            )
        return Identity(given.hex()[:16])


def bearer(headers: Mapping[str, str], subprotocols: Sequence[str] = ()) -> str | None:
    """The key or secret in the ``Authorization`` header or among the offered subprotocols."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and token.strip():
        return token.strip()
    for offered in subprotocols:
        if offered.startswith(SUBPROTOCOL):
            return offered.removeprefix(SUBPROTOCOL)
    return None


def read_keys(given: Iterable[str], file: Path | None) -> tuple[str, ...]:
    """The keys of the command line, of ``file`` (one a line) and of the environment.

    Raises `InputError` for a key that cannot be one and for a file that cannot be read.
    """
    keys = [*given, *os.environ.get(KEYS_VARIABLE, "").split(",")]
    if file is not None:
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeError) as error:
            raise InputError(
                f"cannot read the keys in {file} ({error}); expected a text file, one key a line",
                param="api_key_file",
            ) from None
        keys += [line for line in lines if not line.lstrip().startswith("#")]
    keys = [key.strip() for key in keys if key.strip()]
    for key in keys:
        if not key.isascii() or not key.isprintable() or set(key) & set(" ,;\"'"):
            raise InputError(
                "an API key has characters that a header cannot carry; use letters, digits and "
                "'-', '_' or '.'",
                param="api_key",
            )
        if key.startswith(SECRET_PREFIX):
            raise InputError(
                f"an API key must not begin with {SECRET_PREFIX!r}: so do client secrets",
                param="api_key",
            )
    return tuple(dict.fromkeys(keys))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
