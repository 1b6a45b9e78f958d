"""Media that a request brings along or points at: data URLs, and addresses that are allowed."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx

from omni.errors import InputError, MediaError
from runtime.wire import decode_data_url

MAX_BYTES = 50 * 1024 * 1024
"""Of one remote medium."""

TIMEOUT = 20.0
"""Seconds for all of it."""

MAX_REDIRECTS = 3

Resolve = Callable[[str, int], Awaitable[list[str]]]


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of ``host``; raises ``OSError``."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class MediaSource:
    """Reads media from data URLs, and from http(s) addresses on ``hosts`` only.

    A name that leads to a private address is refused: what a server can reach is not what its
    clients may. Such an address must be among ``hosts`` itself. The connection goes to the address
    that was checked, whatever the name leads to a moment later.
    """

    def __init__(
        self,
        hosts: Collection[str] = (),
        *,
        resolve: Resolve = resolve,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._hosts = frozenset(host.lower().strip("[]") for host in hosts)
        self._resolve = resolve
        self._transport = transport

    async def read(self, url: str, param: str) -> bytes:
        """The bytes behind ``url``; raises `InputError` that names ``param``."""
        if url.startswith("data:"):
            return await asyncio.to_thread(decode_data_url, url, param)
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._fetch(url, param)
        except (TimeoutError, httpx.HTTPError, OSError) as error:
            if isinstance(error, TimeoutError | httpx.TimeoutException):
                reason = f"it took more than {TIMEOUT:.0f} s"
            else:
                reason = str(error) or type(error).__name__
            raise MediaError(
                f"{param} could not be fetched ({reason}); send it as a data URL",
                param=param,
                code="fetch_failed",
            ) from None

    async def _fetch(self, url: str, param: str) -> bytes:
        # No proxy of the environment: it would resolve the name on its own.
        async with httpx.AsyncClient(
            transport=self._transport, trust_env=False, timeout=TIMEOUT
        ) as client:
            first = _parse(url, param)
            for _ in range(MAX_REDIRECTS + 1):
                parts = _parse(url, param)
                if parts.hostname != first.hostname:
                    raise _refused(f"it redirects to another host, {parts.hostname!r}", param)
                request = await self._request(client, parts, param)
                response = await client.send(request, stream=True, follow_redirects=False)
                try:
                    if response.is_redirect:
                        url = urljoin(url, response.headers["location"])
                        continue
                    if response.status_code != 200:
                        raise MediaError(
                            f"{param} could not be fetched: the host answered with status "
                            f"{response.status_code}",
                            param=param,
                            code="fetch_failed",
                        )
                    return await _body(response, param)
                finally:
                    await response.aclose()
        raise _refused(f"it redirects more than {MAX_REDIRECTS} times", param)

    async def _request(
        self, client: httpx.AsyncClient, parts: SplitResult, param: str
    ) -> httpx.Request:
        host = (parts.hostname or "").lower()
        if host not in self._hosts:
            raise _refused(
                f"the host {host!r} is not one that this server fetches from (--allow-media-host)",
                param,
            )
        port = parts.port or (443 if parts.scheme == "https" else 80)
        addresses = await self._resolve(host, port)
        for address in addresses:
            if address not in self._hosts and not ipaddress.ip_address(address).is_global:
                raise _refused(f"{host!r} leads to {address}, which is not a public address", param)
        url = httpx.URL(parts._replace(fragment="").geturl()).copy_with(host=addresses[0])
        return client.build_request(
            "GET",
            url,
            headers={"Host": parts.netloc.rpartition("@")[2], "Accept-Encoding": "identity"},
            extensions={"sni_hostname": host},
        )


def _parse(url: str, param: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        # A port that is none raises only when it is asked for.
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = None
    if not usable:
        raise InputError(
            f"{param} must be a data URL (data:image/jpeg;base64,…) or an http(s) address",
            param=param,
            code="invalid_url",
        )
    return parts


def _refused(why: str, param: str) -> InputError:
    return InputError(
        f"{param} is not fetched: {why}; send it as a data URL",
        param=param,
        code="unsupported_url",
    )


async def _body(response: httpx.Response, param: str) -> bytes:
    data = bytearray()
    stated = response.headers.get("content-length", "")
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) > MAX_BYTES or (stated.isdigit() and int(stated) > MAX_BYTES):
            raise MediaError(
                f"{param} is larger than {MAX_BYTES >> 20} MiB, the limit; send a smaller one",
                param=param,
                code="too_large",
            )
    return bytes(data)
