"""The microphone and the speaker of this machine, for voice in a terminal.

They need the extra ``audio`` (``pip install 'omni-assistant[audio]'``), on Linux also the system's
PortAudio (``apt install libportaudio2``).
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from omni.client.media import WIRE_RATE, float_to_pcm16, pcm16_to_float
from omni.errors import MediaError, MissingExtraError
from omni.types import AudioChunk

_PIECE = WIRE_RATE // 25  # 40 ms
_MOST_WAITING = 50  # pieces: 2 s


class Microphone:
    """What the microphone hears, in pieces of 40 ms at 24 kHz.

    >>> async with Microphone() as microphone:                # doctest: +SKIP
    ...     async for chunk in microphone:
    ...         await omni.send_audio(chunk)

    ``device`` is a name or number that ``python -m sounddevice`` lists, None the system's choice.
    Sound that nobody takes within two seconds is dropped, the oldest first, and counted in
    ``dropped``, in seconds. Leaving the block ends the iteration.
    """

    def __init__(self, device: int | str | None = None) -> None:
        self.dropped = 0.0
        self._device = device
        self._pieces: deque[bytes] = deque(maxlen=_MOST_WAITING)
        self._stream: Any = None
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Microphone:
        loop = asyncio.get_running_loop()

        def hear(data: Any, frames: int, time: Any, status: Any) -> None:
            loop.call_soon_threadsafe(self._take, bytes(data))

        self._stream = await asyncio.to_thread(_open, "RawInputStream", self._device, hear)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stream, self._stream = self._stream, None
        self._changed.set()
        await asyncio.to_thread(stream.close)

    def _take(self, data: bytes) -> None:
        if len(self._pieces) == _MOST_WAITING:
            self.dropped += len(self._pieces[0]) / 2 / WIRE_RATE
        self._pieces.append(data)
        self._changed.set()

    def __aiter__(self) -> AsyncIterator[AudioChunk]:
        return self

    async def __anext__(self) -> AudioChunk:
        while not self._pieces:
            if self._stream is None:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return AudioChunk(pcm16_to_float(self._pieces.popleft()), WIRE_RATE)


@dataclass(frozen=True, slots=True)
class Position:
    """How much of an item has been heard, in ms, and how much of it is still to come."""

    item_id: str
    heard_ms: int
    left_ms: int


class Speaker:
    """Plays what it is given, in order, and knows how much of each item was heard.

    >>> async with Speaker() as speaker:                      # doctest: +SKIP
    ...     speaker.play(event.audio_chunk(), event.item_id)

    ``device`` is as for :class:`Microphone`.
    """

    def __init__(self, device: int | str | None = None) -> None:
        self._device = device
        self._stream: Any = None
        self._lock = threading.Lock()
        self._queue: deque[tuple[str, bytearray]] = deque()
        self._item = ""
        self._played = 0  # samples of the item

    async def __aenter__(self) -> Speaker:
        self._stream = await asyncio.to_thread(_open, "RawOutputStream", self._device, self._fill)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stream, self._stream = self._stream, None
        await asyncio.to_thread(stream.close)

    def play(self, chunk: AudioChunk, item_id: str = "") -> None:
        """Add sound at 24 kHz of an item; it plays after all that is waiting."""
        if chunk.sample_rate != WIRE_RATE:
            raise MediaError(
                f"sound at {chunk.sample_rate} Hz; the speaker plays {WIRE_RATE} Hz", param="chunk"
            )
        data = float_to_pcm16(chunk.pcm)
        with self._lock:
            if self._queue and self._queue[-1][0] == item_id:
                self._queue[-1][1].extend(data)
            else:
                self._queue.append((item_id, bytearray(data)))

    def clear(self) -> Position | None:
        """Fall silent and say where: what ``truncate`` wants to know. None when it was silent."""
        with self._lock:
            position = self._position()
            self._queue.clear()
            self._item, self._played = "", 0
        return position

    @property
    def position(self) -> Position | None:
        """The item that is being played and how much of it was heard; None in silence."""
        with self._lock:
            return self._position()

    async def drain(self) -> None:
        """Wait until all has been played."""
        while self.position is not None:  # noqa: ASYNC110 - the device tells nobody
            await asyncio.sleep(0.05)
        await asyncio.sleep(self._latency)

    @property
    def _latency(self) -> float:
        """Seconds from the callback to the ear."""
        return float(self._stream.latency) if self._stream is not None else 0.0

    def _position(self) -> Position | None:
        if not self._queue:
            return None
        item, data = self._queue[0]
        played = self._played if item == self._item else 0
        heard = max(0, played - round(self._latency * WIRE_RATE))
        return Position(item, heard * 1000 // WIRE_RATE, len(data) * 500 // WIRE_RATE)

    def _fill(self, out: Any, frames: int, time: Any, status: Any) -> None:
        wanted = frames * 2
        written = 0
        with self._lock:
            while written < wanted and self._queue:
                item, data = self._queue[0]
                if item != self._item:
                    self._item, self._played = item, 0
                piece = bytes(data[: wanted - written])
                out[written : written + len(piece)] = piece
                written += len(piece)
                self._played += len(piece) // 2
                del data[: len(piece)]
                if not data:
                    self._queue.popleft()
        out[written:wanted] = bytes(wanted - written)


def _open(kind: str, device: int | str | None, callback: Any) -> Any:
    try:
        sounddevice: Any = importlib.import_module("sounddevice")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "the microphone and the speaker need sounddevice; "
            "run: pip install 'omni-assistant[audio]'"
        ) from error
    except OSError as error:  # how sounddevice says that the library is missing
        raise MissingExtraError(
            "sounddevice finds no PortAudio library; run: apt install libportaudio2, or the like "
            "of your system"
        ) from error
    try:
        stream = getattr(sounddevice, kind)(
            samplerate=WIRE_RATE,
            channels=1,
            dtype="int16",
            blocksize=_PIECE if kind == "RawInputStream" else 0,
            device=device,
            callback=callback,
        )
        stream.start()
    except (sounddevice.PortAudioError, ValueError) as error:
        what = "microphone" if kind == "RawInputStream" else "speaker"
        raise MediaError(
            f"the {what} cannot be opened ({error}); `python -m sounddevice` lists what there is: "
            "pass device=",
            param="device",
        ) from error
    return stream
