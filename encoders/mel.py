"""Whisper's log-mel spectrogram, computed while the sound arrives.

Same numbers as ``transformers.WhisperFeatureExtractor``: 25 ms Hann windows every 10 ms, centred
with reflection at both ends, 80 Slaney mel bands, log10, the range cut to 8 decades below the
loudest, then ``(x + 4) / 4``. Only that last step depends on the whole and waits until it is read.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from omni.types import Pcm

RATE = 16000
HOP = 160
N_FFT = 400
N_MELS = 80
_HALF = N_FFT // 2
_FLOOR = 1e-10

Mel = NDArray[np.float32]


@cache
def mel_filters(bands: int = N_MELS) -> Mel:
    """The mel filter bank, shape (201, ``bands``): Slaney's scale and area normalisation."""
    linear_end = 1000.0 * 3 / 200  # the mel scale is linear up to 1 kHz and logarithmic above
    log_step = np.log(6.4) / 27.0
    top = linear_end + np.log(RATE / 2 / 1000.0) / log_step
    mels = np.linspace(0.0, top, bands + 2)
    edges = np.where(
        mels < linear_end, mels * 200 / 3, 1000.0 * np.exp(log_step * (mels - linear_end))
    )
    bins = np.linspace(0, RATE / 2, N_FFT // 2 + 1)
    width = np.diff(edges)
    slopes = edges[None, :] - bins[:, None]
    rising, falling = -slopes[:, :-2] / width[:-1], slopes[:, 2:] / width[1:]
    filters = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))
    return filters.astype(np.float32)


@cache
def _hann() -> NDArray[np.float32]:
    return np.hanning(N_FFT + 1)[:-1].astype(np.float32)


def _log_mel(padded: Pcm) -> Mel:
    """Log10 mel of every whole window in ``padded``, shape (frames, 80)."""
    windows = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP]
    spectrum = np.fft.rfft(windows * _hann(), axis=-1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    logs: Mel = np.log10(np.maximum(power @ mel_filters(), np.float32(_FLOOR)))
    return logs


def normalise(frames: Mel) -> Mel:
    """The step that needs the whole: (frames, 80) log10 mel -> (80, frames) in Whisper's range."""
    clamped = np.maximum(frames, frames.max() - 8.0)
    return np.ascontiguousarray(((clamped + 4.0) / 4.0).T, dtype=np.float32)


def whisper_mel(pcm: Pcm, frames: int) -> Mel:
    """Offline: ``pcm`` (T,) at 16 kHz, zeros behind it or cut to ``frames``; shape (80, frames)."""
    whole = np.zeros(frames * HOP, np.float32)
    whole[: len(pcm)] = pcm[: len(whole)]
    return normalise(_log_mel(np.pad(whole, _HALF, mode="reflect"))[:frames])


class MelStream:
    """The growing spectrogram of the sound fed since the last reset, and that sound itself.

    Memory grows by 36 kB per second of sound; :meth:`crop` is what bounds it.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything that was fed."""
        self._pcm = np.zeros(RATE, np.float32)
        self._mel = np.zeros((RATE // HOP, N_MELS), np.float32)
        self._samples = 0
        self._frames = 0

    @property
    def pcm(self) -> Pcm:
        """The sound so far (T,), a view."""
        return self._pcm[: self._samples]

    @property
    def seconds(self) -> float:
        """Duration of the sound so far."""
        return self._samples / RATE

    def levels(self) -> Mel:
        """Loudness of every finished frame: mean log10 mel, shape (frames,)."""
        levels: Mel = self._mel[: self._frames].mean(axis=1)
        return levels

    def feed(self, pcm: Pcm) -> None:
        """Take (T,) samples at 16 kHz and compute the frames that they complete."""
        end = self._samples + len(pcm)
        self._pcm = _grown(self._pcm, self._samples, end)
        self._pcm[self._samples : end] = pcm
        self._samples = end
        # Frame t reads samples [160 t - 200, 160 t + 200); the first two read their reflection.
        ready = (end - _HALF) // HOP + 1 if end > _HALF else 0
        if ready > self._frames:
            self._mel = _grown(self._mel, self._frames, ready)
            self._mel[self._frames : ready] = self._window(self._frames, ready, self.pcm)
            self._frames = ready

    def read(self, frames: int, end: int | None = None) -> Mel:
        """Whisper's input, shape (80, ``frames``): the sound, with digital silence behind it.

        With ``end`` only the first ``end`` frames are taken of the sound.
        """
        heard = self._mel[: min(frames, self._frames if end is None else end)]
        if end is None:
            # Windows over the end of the sound see zeros behind it.
            last = min(frames, -(-(self._samples + _HALF) // HOP))
            if last > self._frames:
                padded = np.concatenate([self.pcm, np.zeros(N_FFT + _HALF, np.float32)])
                heard = np.concatenate([heard, self._window(self._frames, last, padded)])
        out = np.full((frames, N_MELS), np.log10(_FLOOR), np.float32)
        out[: len(heard)] = heard
        return normalise(out)

    def crop(self, samples: int) -> int:
        """Drop the first ``samples``, rounded down to whole frames; gives how many were dropped."""
        frames = min(samples, self._samples) // HOP
        dropped = frames * HOP
        if dropped <= 0:
            return 0
        rest = self.pcm[dropped:].copy()
        kept = self._mel[frames : self._frames].copy()
        self.reset()
        self._pcm, self._samples = rest, len(rest)
        # What comes first is reflected, as if nothing had been before it.
        self._frames = len(kept)
        if self._frames:
            kept[:2] = self._window(0, min(2, self._frames), rest)
        self._mel = kept
        return dropped

    def _window(self, begin: int, end: int, pcm: Pcm) -> Mel:
        """Frames ``begin`` to ``end`` of ``pcm``, reflected at its start."""
        first, last = begin * HOP - _HALF, (end - 1) * HOP + _HALF
        if first < 0:
            if len(pcm) <= _HALF:
                pcm = np.concatenate([pcm, np.zeros(_HALF + 1, np.float32)])
            return _log_mel(np.concatenate([pcm[-first:0:-1], pcm[:last]]))
        return _log_mel(pcm[first:last])


def _grown(array: NDArray[np.float32], used: int, needed: int) -> NDArray[np.float32]:
    """``array`` with room for ``needed`` rows; doubles, so that feeding stays linear."""
    if needed <= len(array):
        return array
    bigger = np.zeros((max(needed, 2 * len(array)), *array.shape[1:]), np.float32)
    bigger[:used] = array[:used]
    return bigger
