"""What a server may fetch for its clients, and what not."""

import base64

import httpx
import pytest

from omni.errors import InputError
from runtime.api import media
from runtime.api.media import MediaSource

PUBLIC = "93.184.215.14"


def source(answer=None, *, hosts=("pictures.example",), addresses=None):
    """A source over a network of one function; ``seen`` holds its requests."""
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return answer(request) if answer else httpx.Response(200, content=b"picture")

    async def resolve(host: str, port: int) -> list[str]:
        return (addresses or {}).get(host, [PUBLIC])

    return MediaSource(hosts, resolve=resolve, transport=httpx.MockTransport(handle)), seen


async def test_data_urls_need_no_network():
    made, seen = source(hosts=())
    url = "data:image/png;base64," + base64.b64encode(b"abc").decode()
    assert await made.read(url, "url") == b"abc"
    assert not seen


async def test_an_allowed_host_is_asked_at_the_address_that_was_checked():
    made, seen = source()
    assert await made.read("https://Pictures.example:8443/a.jpg?x=1#part", "url") == b"picture"
    [request] = seen
    assert request.url == f"https://{PUBLIC}:8443/a.jpg?x=1"
    assert request.headers["host"] == "Pictures.example:8443"
    assert request.extensions["sni_hostname"] == "pictures.example"
    assert "cookie" not in request.headers
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://elsewhere.example/a.jpg", "unsupported_url"),
        ("http://pictures.example.evil.example/a.jpg", "unsupported_url"),
        ("http://pictures.example@evil.example/a.jpg", "unsupported_url"),
        ("http://127.0.0.1/a.jpg", "unsupported_url"),
        ("http://[::1]/a.jpg", "unsupported_url"),
        ("http://2130706433/", "unsupported_url"),
        ("ftp://pictures.example/a.jpg", "invalid_url"),
        ("file:///etc/passwd", "invalid_url"),
        ("http://", "invalid_url"),
        ("http://pictures.example:99999/", "invalid_url"),
        ("http://[", "invalid_url"),
        ("a.jpg", "invalid_url"),
    ],
)
async def test_other_addresses_are_refused_before_anything_is_sent(url, code):
    made, seen = source()
    with pytest.raises(InputError) as refused:
        await made.read(url, "image_url.url")
    assert (refused.value.code, refused.value.param) == (code, "image_url.url")
    assert not seen


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.8",
        "192.168.1.1",
        "169.254.169.254",
        "::1",
        "fd00::1",
        "::ffff:10.0.0.8",
    ],
)
async def test_a_name_that_leads_inside_is_refused_unless_the_address_is_allowed(address):
    addresses = {"pictures.example": [PUBLIC, address]}
    made, seen = source(addresses=addresses)
    with pytest.raises(InputError, match="not a public address"):
        await made.read("http://pictures.example/", "url")
    assert not seen
    made, seen = source(hosts=("pictures.example", address), addresses=addresses)
    assert await made.read("http://pictures.example/", "url") == b"picture"


async def test_an_address_of_the_own_network_can_be_allowed():
    made, seen = source(hosts=("[::1]",), addresses={"::1": ["::1"]})
    assert await made.read("http://[::1]:8000/a", "url") == b"picture"
    assert seen[0].url.host == "::1"


async def test_redirects_stay_on_their_host():
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/a":
            return httpx.Response(302, headers={"Location": "/b"})
        if request.url.path == "/out":
            return httpx.Response(302, headers={"Location": "http://169.254.169.254/"})
        if request.url.path == "/loop":
            return httpx.Response(302, headers={"Location": "/loop"})
        return httpx.Response(200, content=b"there")

    made, seen = source(answer)
    assert await made.read("http://pictures.example/a", "url") == b"there"
    with pytest.raises(InputError, match="another host"):
        await made.read("http://pictures.example/out", "url")
    assert all(request.url.host == PUBLIC for request in seen)
    with pytest.raises(InputError, match="redirects more than"):
        await made.read("http://pictures.example/loop", "url")


async def test_too_large_slow_and_failing_media_are_refused(monkeypatch):
    monkeypatch.setattr(media, "MAX_BYTES", 1000)

    async def endless():
        while True:
            yield b"x" * 400

    made, _ = source(lambda request: httpx.Response(200, content=endless()))
    with pytest.raises(InputError) as refused:
        await made.read("http://pictures.example/", "url")
    assert refused.value.code == "too_large"

    made, _ = source(lambda request: httpx.Response(404))
    with pytest.raises(InputError, match="status 404"):
        await made.read("http://pictures.example/", "url")

    def broken(request):
        raise httpx.ConnectError("no route")

    made, _ = source(broken)
    with pytest.raises(InputError, match="no route"):
        await made.read("http://pictures.example/", "url")
