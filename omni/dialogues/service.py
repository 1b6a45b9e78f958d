"""What dialogues ask of a server over plain HTTP: voices, transcripts, embeddings."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from omni.client.media import WIRE_RATE, load_audio, pcm16_to_float, save_wav
from omni.dialogues import sound
from omni.errors import ConnectionClosedError, InputError, OmniError
from omni.types import AudioChunk, Pcm

BABBLE = (
    "I told them that the train would leave at nine, but nobody wanted to listen to me.",
    "We could have dinner at the place behind the market, they have the best soup in town.",
    "My sister bought a new bicycle last week, and she rides it to work every morning.",
    "The weather was awful on Sunday, so the children stayed at home and painted the wall.",
)
"""What the voices in the background say."""
BABBLE_SECONDS = 8.0


class Service:
    """A server's HTTP side. Speech is made once for each text, voice and speed, and kept."""

    def __init__(self, url: str, api_key: str | None, folder: Path, seconds: float = 120.0) -> None:
        """Take the settings; ``folder`` is where files of this run go.

        ``seconds`` is the longest time of one request.
        """
        self.url = url.rstrip("/").removesuffix("/v1")
        self.api_key = api_key
        self.folder = folder
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=seconds)
        self._speech = folder / "speech"
        self._speech.mkdir(parents=True, exist_ok=True)

    async def __aenter__(self) -> Service:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def health(self) -> Mapping[str, Any]:
        """What runs there; ConnectionClosedError when nothing answers or it is not ready."""
        response = await self._send("GET", "/health")
        said: Mapping[str, Any] = response.json()
        return said

    async def speak(self, text: str, voice: str, speed: float) -> Pcm:
        """The text as speech at 24 kHz; InputError when the server cannot say it so."""
        digest = hashlib.sha256(repr((text, voice, speed)).encode()).hexdigest()[:20]
        path = self._speech / f"{digest}.wav"
        if not path.exists():
            body = {"input": text, "voice": voice, "speed": speed, "response_format": "pcm"}
            response = await self._send("POST", "/v1/audio/speech", json=body)
            pcm = pcm16_to_float(response.content)
            await asyncio.to_thread(save_wav, path, AudioChunk(pcm, WIRE_RATE))
        chunk = await asyncio.to_thread(load_audio, path)
        return chunk.pcm

    async def babble(self, seed: int) -> Pcm:
        """Eight seconds of several voices at once, RMS 1."""
        listed = (await self._send("GET", "/v1/models")).json().get("data", ())
        voices = [voice for model in listed for voice in model.get("voices", ())] or ["auto"]
        said = [
            await self.speak(text, voices[index % len(voices)], 0.9 + 0.1 * index)
            for index, text in enumerate(BABBLE)
        ]
        return sound.babble(said, BABBLE_SECONDS, np.random.default_rng(seed))

    async def transcribe(self, recording: Path, language: str | None = None) -> str:
        """What the server hears in a recording."""
        data = {"response_format": "json"} | ({"language": language} if language else {})
        content = await asyncio.to_thread(recording.read_bytes)
        files = {"file": (recording.name, content, "audio/wav")}
        response = await self._send("POST", "/v1/audio/transcriptions", data=data, files=files)
        return str(response.json()["text"]).strip()

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Unit vectors of the texts' meanings, shape (texts, width)."""
        body = {"model": "omni", "input": list(texts), "encoding_format": "float"}
        response = await self._send("POST", "/v1/embeddings", json=body)
        rows = sorted(response.json()["data"], key=lambda row: row["index"])
        vectors = np.array([row["embedding"] for row in rows], np.float64)
        unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    async def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            response = await self._http.request(method, path, **content)
        except httpx.InvalidURL as error:
            raise InputError(f"{self.url} is not an address: {error}", param="url") from None
        except httpx.HTTPError as error:
            raise ConnectionClosedError(
                f"{self.url}{path} does not answer ({type(error).__name__}); is the server there? "
                "`omni serve` starts one"
            ) from None
        if response.status_code < 400:
            return response
        try:
            said = response.json()["error"]
            message, param = said["message"], said.get("param")
        except (ValueError, KeyError, TypeError):
            message, param = f"HTTP {response.status_code}", None
        if response.status_code == 404:
            message = f"the server has no {path} ({message})"
        kind = InputError if response.status_code < 500 else None
        if kind is None:
            raise ConnectionClosedError(f"{self.url}{path} failed: {message}")
        raise InputError(message, param=param)


READY_TIMEOUT = 900.0


@contextlib.contextmanager
def local_server(model: str | None = None) -> Iterator[str]:
    """A server in this process, on a free port, with the default weights; gives its address.

    Sessions are kept in a temporary directory, so that dialogues can leave and come back.
    """
    from omni.weights import DEFAULT_MODEL, ensure_all
    from runtime.assembly import Assembly
    from runtime.hub import ServerConfig
    from runtime.server import Server, build_engine, create_app, listen
    from runtime.store import Keep

    assembly = Assembly(model or DEFAULT_MODEL)
    ensure_all(assembly.weights)
    with tempfile.TemporaryDirectory(prefix="omni-") as folder:
        config = ServerConfig(keep=Keep(Path(folder), timedelta(days=1)))
        listening = listen("127.0.0.1", 0)
        application = create_app(config, build_engine(assembly, config))
        server = Server(application, config, listening)
        thread = threading.Thread(target=server.serve_forever, name="omni-server")
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            _wait_until_ready(url, thread, application)
            yield url
        finally:
            server.should_exit = True
            thread.join()
            listening.close()


def _wait_until_ready(url: str, thread: threading.Thread, application: Any) -> None:
    until = time.monotonic() + READY_TIMEOUT
    while True:
        hub = application.state.hub
        if hub.problem is not None or not thread.is_alive():
            raise OmniError(f"the server could not be started: {hub.problem or 'it has ended'}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                return
        if time.monotonic() > until:
            raise OmniError(f"the server was not ready after {READY_TIMEOUT:.0f} s")
        time.sleep(0.05)
