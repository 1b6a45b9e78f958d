"""The way to a server: its address in any form, and opening a WebSocket there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI

from omni.client.errors import OmniTimeoutError, RefusedError
from omni.errors import BusyError, ConnectionClosedError, InputError

_MAX_MESSAGE = 64 * 2**20  # pictures in a reply are the largest


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is, and what it wants to know; ``timeout`` is in seconds."""

    url: str
    model: str = "omni"
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 10.0

    async def open(self, session_id: str | None = None) -> ClientConnection:
        """Open a WebSocket for a new session, or to go on with ``session_id``.

        Raises RefusedError when the server does not let this client in, BusyError when it is full,
        OmniTimeoutError and ConnectionClosedError when nothing answers.
        """
        uri = realtime_uri(self.url, self.model, session_id)
        local = urlsplit(uri).hostname in ("127.0.0.1", "localhost", "::1")
        try:
            return await open_websocket(
                uri,
                additional_headers=self.headers,
                max_size=_MAX_MESSAGE,
                compression=None,  # base64 of sound hardly shrinks, and costs time
                open_timeout=self.timeout,
                close_timeout=3,
                ping_timeout=60,  # a busy 2-core machine may answer late
                proxy=None if local else True,
            )
        except InvalidURI as error:
            raise InputError(f"{self.url} is not an address: {error}", param="url") from error
        except InvalidStatus as error:
            raise self._refusal(error.response.status_code) from error
        except TimeoutError as error:
            raise OmniTimeoutError(
                f"{self.url} opened no session in {self.timeout:g} s; it may still be loading its "
                "models: wait for /health to say ready, or pass a longer timeout"
            ) from error
        except (InvalidHandshake, EOFError) as error:
            raise ConnectionClosedError(
                f"what answers at {self.url} opens no WebSocket ({error}); check the address"
            ) from error
        except OSError as error:
            raise ConnectionClosedError(
                f"no server answers at {self.url}; start it with `omni serve`"
            ) from error

    def _refusal(self, status: int) -> Exception:
        if status in (429, 503):
            return BusyError(f"the server at {self.url} is full; try again later")
        said = f"{self.url} refused the session with HTTP {status}"
        if status in (401, 403):
            return RefusedError(f"{said}; check api_key")
        if status >= 500:  # a proxy whose server is not back yet
            return ConnectionClosedError(f"{said}; try again later")
        return RefusedError(f"{said}; is it an Omni server?")


def realtime_uri(url: str, model: str, session_id: str | None = None) -> str:
    """Turn a server's address into that of its realtime socket; InputError when it is none."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if parts.scheme not in schemes or not parts.hostname:
        raise InputError(
            f"{url!r} is not a server's address; expected one like http://127.0.0.1:7860",
            param="url",
        )
    path = parts.path.rstrip("/")
    if not path.endswith("/realtime"):
        path = path.removesuffix("/v1") + "/v1/realtime"
    query = dict(parse_qsl(parts.query)) or {"model": model}
    if session_id is not None:
        query["session_id"] = session_id
    return urlunsplit((schemes[parts.scheme], parts.netloc, path, urlencode(query), ""))
