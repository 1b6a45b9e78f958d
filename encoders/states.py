"""What frozen encoders make of media before anything is read off it: the input of adapters."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from encoders.audio import WhisperEncoder
from encoders.ear import short_window
from encoders.mel import HOP, RATE, whisper_mel
from omni.data.sample import Medium
from omni.errors import MediaError
from omni.weights import ensure


class WhisperStates:
    """The last states of whisper-base's encoder, as the runtime computes them (int8)."""

    version = "1"

    def __init__(self, threads: int = 1) -> None:
        config = WhisperEncoder.Config(threads=threads)
        self._whisper = WhisperEncoder(ensure("whisper-base"), config)

    def features(self, medium: Medium) -> NDArray[np.float32]:
        """States (T, 512), one every 20 ms; MediaError for sound that does not fit one window."""
        pcm = medium.sound(RATE).pcm
        seconds = len(pcm) / RATE
        if seconds > 28:
            raise MediaError(f"a recording of {seconds:.0f} s is longer than a window of 28 s")
        needed = math.ceil(len(pcm) / HOP / 2)
        frames = 2 * math.ceil(50 * short_window(needed / 50))
        return self._whisper.model.states(whisper_mel(pcm, frames))[:needed]


def whisper_states() -> WhisperStates:
    """For a recipe: ``encoders={"audio": "encoders.states:whisper_states"}``."""
    return WhisperStates()
