"""Whisper's encoder read by a CTC adapter: words without a decoder that writes one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from omni.adapters.audio import load_adapter, stretches

STATE = 0.02
"""Seconds of one state of Whisper's encoder."""


def short_window(seconds: float) -> float:
    """Seconds that the encoder reads for so much sound: only a decoder needs silence behind it."""
    return max(2.0, seconds + 0.5)


@dataclass(frozen=True, slots=True)
class Heard:
    """Units (numbers of the adapter's), with the second at which each is heard and how likely."""

    units: list[int]
    starts: list[float]
    likely: list[float]


class Ear:
    """An audio adapter in use. Any thread may call it."""

    def __init__(self, path: Path) -> None:
        """``path`` of what `omni.adapters.audio.save_adapter` wrote. Raises `WeightsError`."""
        self._adapter, self._texts, self.card = load_adapter(path)
        self.languages = frozenset(self.card["languages"].split())

    @torch.inference_mode()
    def hear(self, states_TE: NDArray[np.float32]) -> Heard:
        """What is said in states of the encoder."""
        states_1TE = torch.from_numpy(np.ascontiguousarray(states_TE, np.float32))[None]
        log_1SU, _ = self._adapter(states_1TE, torch.tensor([len(states_TE)]))
        found = stretches(log_1SU[0])
        likely = [float(log_1SU[0, begin:end, unit].max().exp()) for unit, begin, end in found]
        step = STATE * self._adapter.config.stride
        return Heard(
            [unit - 1 for unit, _, _ in found],
            [begin * step for _, begin, _ in found],
            likely,
        )

    def text(self, units: Sequence[int]) -> str:
        """The words that units (numbers in `Heard.units`) spell."""
        return b"".join(self._texts[unit] for unit in units).decode("utf-8", "replace")
