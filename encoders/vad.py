"""Silero VAD: how likely it is that somebody speaks, every 32 ms.

The ONNX file lies inside the ``silero-vad`` package. It is found without importing that package,
whose import loads torch and may load torchaudio.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime as ort

from omni.errors import MissingExtraError
from omni.types import Pcm

RATE = 16000
FRAME = 512
_CONTEXT = 64


def silero_file() -> Path:
    """The model inside the installed package; MissingExtraError when it is not there."""
    spec = find_spec("silero_vad")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder) / "data" / "silero_vad.onnx"
        if file.is_file():
            return file
    raise MissingExtraError("voice activity needs its model: pip install 'silero-vad>=6.2.1'")


def onnx_session(model: Path | bytes, threads: int) -> ort.InferenceSession:
    """An ONNX Runtime session on the CPU whose threads sleep when there is nothing to do."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads would take the cores that the LLM needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


class SileroVad:
    """The model; one instance serves all sessions, each with its own :class:`VadStream`."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options. ``threads``: of one run; more than one is slower for so small a model."""

        threads: int = 1

    def __init__(self, path: Path | None = None, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self.session = onnx_session(path or silero_file(), self.config.threads)

    def stream(self) -> VadStream:
        """A fresh streaming state."""
        return VadStream(self.session)


class VadStream:
    """The state of one stream: the recurrent state, 64 samples of context, and what is left."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._rate = np.array(RATE, np.int64)
        self.reset()

    def reset(self) -> None:
        """Forget everything that was fed."""
        self._state = np.zeros((2, 1, 128), np.float32)
        self._held = np.zeros(_CONTEXT, np.float32)  # context, then samples of an unfinished frame

    def feed(self, pcm: Pcm) -> list[float]:
        """Take any number of samples at 16 kHz; one probability per finished 512-sample frame."""
        held = np.concatenate([self._held, pcm.astype(np.float32, copy=False)])
        frames = (len(held) - _CONTEXT) // FRAME
        probabilities = []
        for i in range(frames):
            window = held[None, i * FRAME : (i + 1) * FRAME + _CONTEXT]
            output, self._state = self._session.run(
                None, {"input": window, "state": self._state, "sr": self._rate}
            )
            probabilities.append(float(output[0, 0]))
        self._held = held[frames * FRAME :]
        return probabilities
