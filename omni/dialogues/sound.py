"""What a user's sound goes through: pauses, noise, echo, lost and late packets. Pure functions.

All sound is float32 mono at 24 kHz, in frames of 20 ms as a telephone sends them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from omni.client.media import WIRE_RATE as RATE
from omni.dialogues.format import Loss
from omni.types import Pcm

FRAME = RATE // 50
"""Samples in one frame."""
NORMAL_LEVEL = 10 ** (-26 / 20)
"""RMS of speech as telephony takes it (-26 dB of full scale, ITU-T P.56), where none is heard."""
_AUDIBLE = 10 ** (-35 / 20)
_STALL_RATE = 0.05


def spans(pcm: Pcm, gap: float = 0.2) -> list[tuple[float, float]]:
    """Begin and end in seconds of what is audible: within 35 dB of the loudest frame.

    Gaps shorter than ``gap`` seconds do not count.
    """
    level = _levels(pcm)
    audible = np.flatnonzero(level > max(level.max(initial=0) * _AUDIBLE, 1e-4))
    found: list[tuple[float, float]] = []
    for frame in audible.tolist():
        begin, end = frame * FRAME / RATE, (frame + 1) * FRAME / RATE
        if found and begin - found[-1][1] < gap:
            found[-1] = (found[-1][0], end)
        else:
            found.append((begin, end))
    return found


def speech_level(pcm: Pcm) -> float:
    """RMS of the audible frames; 0 where there are none."""
    level = _levels(pcm)
    active = level[level > max(level.max(initial=0) * _AUDIBLE, 1e-4)]
    return float(np.sqrt((active**2).mean())) if len(active) else 0.0


def _levels(pcm: Pcm) -> Pcm:
    count = -(-len(pcm) // FRAME)
    frames = np.pad(pcm, (0, count * FRAME - len(pcm))).reshape(count, FRAME)
    levels: Pcm = np.sqrt((frames**2).mean(1))
    return levels


def noise(kind: Literal["white", "pink"], seconds: float, rng: np.random.Generator) -> Pcm:
    """Noise of RMS 1: of equal power at all frequencies, or of equal power in each octave."""
    made: NDArray[Any] = rng.standard_normal(round(seconds * RATE))
    if kind == "pink":
        spectrum = np.fft.rfft(made)
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        spectrum[0] = 0
        made = np.fft.irfft(spectrum, len(made))
    made /= np.sqrt((made**2).mean())
    return made.astype(np.float32)


def babble(voices: Sequence[Pcm], seconds: float, rng: np.random.Generator) -> Pcm:
    """Voices that all speak at once, over and over, equally loud; RMS 1."""
    mixed = np.zeros(round(seconds * RATE), np.float32)
    for voice in voices:
        looped = np.resize(np.roll(voice, int(rng.integers(len(voice)))), len(mixed))
        mixed += looped / max(speech_level(voice), 1e-6)
    mixed /= max(float(np.sqrt((mixed**2).mean())), 1e-6)
    return mixed


def noise_gain(level: float, snr: float) -> float:
    """By what to multiply noise of RMS 1, so that speech of that level is ``snr`` dB above it."""
    return (level or NORMAL_LEVEL) * 10 ** (-snr / 20)


def slice_looped(track: Pcm, begin: int, count: int) -> Pcm:
    """``count`` samples from ``begin`` on of a track that starts again at its end."""
    part: Pcm = np.take(track, np.arange(begin, begin + count), mode="wrap")
    return part


class Line:
    """The way to the server: frames get lost, and come late and in bursts."""

    def __init__(self, loss: Loss | None, jitter: float, rng: np.random.Generator) -> None:
        self._loss, self._jitter, self._rng = loss, jitter, rng
        self._last = np.zeros(FRAME, np.float32)
        self._waiting: list[Pcm] = []
        self._stalled_until = 0.0

    def feed(self, frame: Pcm, now: float, *, flush: bool = False) -> list[Pcm]:
        """Take the frame of this moment; give those that arrive now, with ``flush`` all."""
        if self._loss is None or self._rng.random() >= self._loss.rate:
            self._last = frame
            self._waiting.append(frame)
        elif self._loss.concealed:
            self._last = self._last * np.float32(0.5)
            self._waiting.append(self._last)
        stalls = self._jitter and self._rng.random() < _STALL_RATE
        if stalls and len(self._waiting) < 2:  # nothing waits longer than one stall
            self._stalled_until = now + self._rng.uniform(0, self._jitter)
        if now < self._stalled_until and not flush:
            return []
        arrived, self._waiting = self._waiting, []
        return arrived


@dataclass(slots=True)
class _Played:
    key: str
    begin: float
    pcm: Pcm

    @property
    def end(self) -> float:
        return self.begin + len(self.pcm) / RATE


class Loudspeaker:
    """Plays answers as they come, one piece behind the other, and knows what was heard when.

    Times are in seconds of any clock that the caller keeps to.
    """

    def __init__(self) -> None:
        self._played: list[_Played] = []

    def play(self, key: str, pcm: Pcm, now: float) -> None:
        """Play more of the answer ``key``, after what is still to be played."""
        self._played.append(_Played(key, max(now, self.end), pcm))

    def stop(self, now: float) -> None:
        """Fall silent; what was not heard yet will not be."""
        for piece in self._played:
            kept = max(0, round((now - piece.begin) * RATE))
            piece.pcm = piece.pcm[:kept]

    @property
    def end(self) -> float:
        """When all that came so far has been played."""
        return self._played[-1].end if self._played else 0.0

    def begin(self, key: str) -> float | None:
        """When the answer began to be heard; None: it has no sound."""
        return next((p.begin for p in self._played if p.key == key and len(p.pcm)), None)

    def heard(self, key: str, now: float) -> float:
        """Seconds of the answer that have been heard."""
        return sum(
            min(max(0.0, now - piece.begin), len(piece.pcm) / RATE)
            for piece in self._played
            if piece.key == key
        )

    def during(self, begin: float, count: int) -> Pcm:
        """The ``count`` samples that are heard from that moment on."""
        mixed = np.zeros(count, np.float32)
        for piece in self._played:
            offset = round((begin - piece.begin) * RATE)
            if -count < offset < len(piece.pcm):
                part = piece.pcm[max(0, offset) : offset + count]
                at = max(0, -offset)
                mixed[at : at + len(part)] += part
        return mixed

    def recorded(self, keys: Collection[str]) -> tuple[float, Pcm] | None:
        """When the first of those answers began, and all that is heard of them; None: nothing."""
        pieces = [p for p in self._played if p.key in keys and len(p.pcm)]
        if not pieces:
            return None
        begin = pieces[0].begin
        sound = np.zeros(round((pieces[-1].end - begin) * RATE) + 1, np.float32)
        for piece in pieces:
            at = round((piece.begin - begin) * RATE)
            sound[at : at + len(piece.pcm)] = piece.pcm[: len(sound) - at]
        return begin, sound
