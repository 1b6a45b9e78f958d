"""Play a recording to a session as a microphone would: in real time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np

from omni.client.asynchronous import AsyncOmniClient
from omni.client.media import AudioLike, to_chunk
from omni.types import AudioChunk


@dataclass(frozen=True, slots=True)
class Spoken:
    """When a recording was spoken, in seconds of :func:`time.monotonic`, as ``Event.received`` is.

    ``speech_end`` is when the last audible sample had been said; ``late`` by how much, in seconds,
    the slowest piece left after its time: with more than a few hundredths a measurement is worth
    little.
    """

    start: float
    speech_end: float
    late: float


def end_of_speech(chunk: AudioChunk, *, below_peak_db: float = 35.0) -> float:
    """Seconds from the beginning of ``chunk`` to the end of its last audible 10 ms."""
    frame = max(1, chunk.sample_rate // 100)
    count = len(chunk.pcm) // frame
    if count == 0:
        return chunk.seconds
    level = np.sqrt((chunk.pcm[: count * frame].reshape(count, frame) ** 2).mean(1))
    audible = np.flatnonzero(level > level.max() * 10 ** (-below_peak_db / 20))
    return float((audible[-1] + 1) * frame / chunk.sample_rate) if len(audible) else chunk.seconds


async def speak_in_real_time(
    client: AsyncOmniClient,
    audio: AudioLike,
    *,
    rate: int | None = None,
    tail_silence: float = 1.0,
    step: float = 0.032,
) -> Spoken:
    """Send a recording piece by piece, each when a microphone would have it, then silence.

    A piece leaves when its last sample has been spoken, so ``speech_end`` is exact. ``rate`` is
    that of a bare array; ``tail_silence`` and ``step``, the length of a piece, are in seconds. Run
    it as a task to read events meanwhile. A cancel stops between two pieces.
    """
    chunk = to_chunk(audio, rate)
    size = max(1, round(step * chunk.sample_rate))
    silence = np.zeros(round(tail_silence * chunk.sample_rate), np.float32)
    pcm = np.concatenate([chunk.pcm, silence])
    loop = asyncio.get_running_loop()
    start, late = loop.time(), 0.0
    for begin in range(0, len(pcm), size):
        piece = pcm[begin : begin + size]
        due = start + (begin + len(piece)) / chunk.sample_rate
        await asyncio.sleep(due - loop.time())
        late = max(late, loop.time() - due)
        await client.send_audio(AudioChunk(piece, chunk.sample_rate))
    return Spoken(start, start + end_of_speech(chunk), late)
