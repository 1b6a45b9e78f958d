"""Noise reduction before turn taking, by WebRTC's noise suppressor.

It is the ears that profit: in steady noise they notice the end of a turn sooner, and soft music
seldom starts one. The transcriber hears the sound as it came: Whisper was trained on noisy speech,
and every suppressor that was tried cost it words.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pywebrtc_audio import NoiseSuppressor

from encoders.vad import RATE, VadStream
from omni.types import Pcm

NoiseReduction = Literal["near_field", "far_field"]
"""How far the microphone is from the mouth."""

LEVELS: dict[NoiseReduction, int] = {"near_field": 1, "far_field": 3}
"""Of WebRTC's suppressor: 1 takes up to 12 dB from the noise, 3 up to 21 dB."""

FRAME = RATE // 100
_DELAY = 96  # samples: the suppressor's windows of 256 overlap by so much


class Denoiser:
    """The streaming state of one stream of sound at 16 kHz."""

    def __init__(self, kind: NoiseReduction) -> None:
        self._suppressor = NoiseSuppressor(RATE, 1, LEVELS[kind])
        self.reset()

    def reset(self) -> None:
        """Forget the noise and everything that was fed."""
        self._suppressor.reset()
        self._held = np.zeros(0, np.float32)
        self._early = _DELAY

    def feed(self, pcm: Pcm) -> Pcm:
        """Take (T,) samples; gives those cleaned ones (T',) that are certain by now.

        Output sample n is input sample n; at most 16 ms of them wait for the next feed.
        """
        held = np.concatenate([self._held, pcm.astype(np.float32, copy=False)])
        whole = len(held) // FRAME * FRAME
        self._held = held[whole:]
        if not whole:
            return held[:0]
        cleaned: Pcm = self._suppressor.process(held[:whole])
        early, self._early = self._early, 0
        return cleaned[early:]


class DenoisedVad:
    """Voice activity that is there in the sound as it came and in the denoised sound.

    Both must agree, since what a suppressor leaves of babble sounds more like speech than babble.
    """

    def __init__(self, kind: NoiseReduction, vad: VadStream) -> None:
        """``vad`` is a fresh one; it hears the denoised sound."""
        self.kind = kind
        self._denoiser = Denoiser(kind)
        self._vad = vad
        self._raw: list[float] = []
        self._denoised: list[float] = []

    def feed(self, pcm: Pcm, probabilities: list[float]) -> list[float]:
        """Take samples at 16 kHz and the ``probabilities`` of the frames that they completed.

        Gives those of the frames that were denoised by now, at most one frame later.
        """
        self._raw += probabilities
        self._denoised += self._vad.feed(self._denoiser.feed(pcm))
        both = [min(pair) for pair in zip(self._raw, self._denoised, strict=False)]
        del self._raw[: len(both)], self._denoised[: len(both)]
        return both

    def flush(self) -> list[float]:
        """The probabilities that still wait, as they came; nothing may be fed afterwards."""
        return self._raw
