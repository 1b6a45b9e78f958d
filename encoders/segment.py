"""Where to cut long sound: at pauses, so that no word is cut in two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.vad import FRAME, RATE, VadStream
from omni.types import AudioChunk, Pcm

_PAD = 8  # frames of 32 ms kept around speech: consonants are softer than the VAD hears
_SPEECH = 0.35


@dataclass(frozen=True, slots=True)
class Piece(AudioChunk):
    """Sound with speech in it; ``levels``: how likely somebody speaks, every 32 ms of it."""

    levels: tuple[float, ...] = ()


def quietest(levels: NDArray[np.float32], begin: int, end: int, width: int = 20) -> int:
    """Index in [``begin``, ``end``) in the middle of the quietest run of ``width`` levels."""
    part = levels[begin:end]
    width = max(1, min(width, len(part)))
    means = np.convolve(part, np.ones(width) / width, mode="valid")
    return begin + int(np.argmin(means)) + width // 2


def speech_pieces(
    sound: Iterable[Pcm], vad: VadStream, max_seconds: float = 8.0
) -> Iterator[Piece]:
    """Cut ``sound`` (16 kHz, piece by piece) into chunks of at most ``max_seconds``.

    Cuts lie in pauses, or at the least likely speech where somebody speaks without any. Pieces
    without speech are left out, and so is silence before and after it. Memory holds one piece.
    """
    limit = int(max_seconds * RATE) // FRAME
    held = np.zeros(0, np.float32)
    levels: list[float] = []
    start = 0
    for pcm in sound:
        for begin in range(0, len(pcm), limit * FRAME):
            part = pcm[begin : begin + limit * FRAME]
            held = np.concatenate([held, part])
            levels += vad.feed(part)
            while len(levels) >= limit:
                cut = _cut(np.array(levels[:limit], np.float32))
                yield from _spoken(held[: cut * FRAME], levels[:cut], start)
                held, levels = held[cut * FRAME :], levels[cut:]
                start += cut * FRAME
    # Sound shorter than a frame is left to the listener.
    yield from _spoken(held, levels or [1.0], start)


def _cut(levels: NDArray[np.float32]) -> int:
    """Where to cut a full window: the longest pause in its second half, else the quietest place."""
    half = len(levels) // 2
    best, best_length, begin = 0, 0, half
    for i in range(half, len(levels) + 1):
        if i == len(levels) or levels[i] >= _SPEECH:
            if i - begin > best_length:
                best, best_length = (begin + i) // 2, i - begin
            begin = i + 1
    return best if best_length >= 6 else quietest(levels, half, len(levels), 6)


def _spoken(pcm: Pcm, levels: list[float], start: int) -> Iterator[Piece]:
    """``pcm`` without the silence around its speech; nothing where there is no speech."""
    speech = np.flatnonzero(np.array(levels) >= _SPEECH)
    if len(speech) and len(pcm):
        first = max(0, int(speech[0]) - _PAD)
        last = int(speech[-1]) + 1 + _PAD
        end = len(pcm) if last >= len(levels) else last * FRAME
        begin = first * FRAME
        # A copy, since a view would keep all that was held around it.
        yield Piece(pcm[begin:end].copy(), RATE, start + begin, tuple(levels[first:last]))
