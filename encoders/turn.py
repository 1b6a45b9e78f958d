"""Smart Turn v3: whether the speaker has finished, judged from the sound alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encoders.mel import HOP, RATE, whisper_mel
from encoders.vad import onnx_session
from omni.types import Pcm

_SECONDS = 8


class SmartTurn:
    """The end-of-turn model (github.com/pipecat-ai/smart-turn); serves all sessions."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options. ``threads``: of one decision."""

        threads: int = 2

    def __init__(self, path: Path, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self._session = onnx_session(path, self.config.threads)

    def probability(self, pcm: Pcm) -> float:
        """Probability in [0, 1] that the speaker has finished.

        ``pcm``: the turn so far, (T,) at 16 kHz, with the pause after it; its last 8 s count.
        """
        heard = pcm[-_SECONDS * RATE :].astype(np.float32, copy=False)
        window = np.pad(heard, (_SECONDS * RATE - len(heard), 0))
        window = (window - window.mean()) / np.sqrt(window.var() + 1e-7)
        features = whisper_mel(window, _SECONDS * RATE // HOP)
        return float(self._session.run(None, {"input_features": features[None]})[0][0, 0])
