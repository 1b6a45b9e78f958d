"""The audio formats of the wire: 16-bit PCM at 24 kHz, and G.711 at 8 kHz as telephones send it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.media import Resampler
from omni.errors import InputError
from omni.types import AudioChunk
from runtime.wire import refuse_unknown

SPEECH_RATE = 24_000
"""Hertz of the speech that answers are made of."""


def _mu_law() -> NDArray[np.int16]:
    """The 16-bit sample of each mu-law byte (ITU-T G.711, table 2; 14-bit values, times 4)."""
    code = ~np.arange(256) & 0xFF
    size = ((2 * (code & 15) + 33) << (code >> 4 & 7)) - 33
    return (4 * np.where(code & 0x80, -size, size)).astype(np.int16)


def _a_law() -> NDArray[np.int16]:
    """The 16-bit sample of each A-law byte (ITU-T G.711, table 1; 13-bit values, times 8)."""
    code = np.arange(256) ^ 0x55  # even bits are inverted on the line
    step, segment = 2 * (code & 15) + 1, code >> 4 & 7
    size = np.where(segment, (step + 32) << np.maximum(segment - 1, 0), step)
    return (8 * np.where(code & 0x80, size, -size)).astype(np.int16)


_LAWS = {"audio/pcmu": _mu_law(), "audio/pcma": _a_law()}
_ORDERS = {name: np.argsort(law, kind="stable").astype(np.uint8) for name, law in _LAWS.items()}
# Where one value gives way to the next: half way, which are the decision values of G.711.
_BOUNDS = {
    name: (law[_ORDERS[name]][1:].astype(np.int32) + law[_ORDERS[name]][:-1]) / 2
    for name, law in _LAWS.items()
}


@dataclass(frozen=True, slots=True)
class WireFormat:
    """How mono sound travels: ``rate`` in hertz, ``width`` in bytes of a sample."""

    name: str = "audio/pcm"
    rate: int = SPEECH_RATE
    width: int = 2

    @classmethod
    def of(cls, value: Any, param: str = "format") -> WireFormat:
        """The format that ``{"type": …, "rate": …}`` asks for; None asks for PCM.

        Raises `InputError` that names ``param``.
        """
        if value is None:
            return FORMATS["audio/pcm"]
        if not isinstance(value, Mapping):
            raise InputError(
                f"{param} must be an object such as {{'type': 'audio/pcm'}}, not {short(value)}",
                param=param,
                code="unsupported_format",
            )
        refuse_unknown(value, ("rate", "type"), param, "it")
        name, rate = value.get("type"), value.get("rate")
        wire = FORMATS.get("audio/pcm" if name is None else name) if _is_name(name) else None
        if wire is None:
            raise InputError(
                f"{param}.type must be one of {', '.join(map(repr, FORMATS))}, not {short(name)}",
                param=f"{param}.type",
                code="unsupported_format",
            )
        if rate is not None and (isinstance(rate, bool) or rate != wire.rate):
            raise InputError(
                f"{param}.rate must be {wire.rate} for {wire.name}, not {short(rate)}; resample "
                "the sound, or leave the rate out",
                param=f"{param}.rate",
                code="unsupported_format",
            )
        return wire

    @property
    def wire(self) -> dict[str, Any]:
        """The object that names this format; `of` reads it."""
        return {"type": self.name} | ({"rate": self.rate} if self.name == "audio/pcm" else {})

    def decode(self, data: bytes, param: str = "audio") -> AudioChunk:
        """Sound of whole samples; raises `InputError` that names ``param`` for half ones."""
        if len(data) % self.width:
            raise InputError(
                f"{param} holds {len(data)} bytes, which is no whole number of "
                f"{8 * self.width}-bit samples; send {self.name}: {8 * self.width}-bit "
                f"little-endian mono at {self.rate} Hz",
                param=param,
                code="invalid_audio",
            )
        if self.name == "audio/pcm":
            samples = np.frombuffer(data, "<i2")
        else:
            samples = _LAWS[self.name][np.frombuffer(data, np.uint8)]
        return AudioChunk(samples.astype(np.float32) / 32768.0, self.rate)

    def encode(self, chunk: AudioChunk) -> bytes:
        """The bytes of sound that is at this format's rate already; what is too loud is clipped."""
        if chunk.sample_rate != self.rate:
            raise ValueError(f"{self.name} carries {self.rate} Hz, not {chunk.sample_rate} Hz")
        samples = np.clip(np.rint(chunk.pcm * 32768.0), -32768, 32767)
        if self.name == "audio/pcm":
            return bytes(samples.astype("<i2"))
        nearest = np.searchsorted(_BOUNDS[self.name], samples, side="right")
        return bytes(_ORDERS[self.name][nearest])


def _is_name(value: object) -> bool:
    return value is None or isinstance(value, str)


FORMATS = {
    "audio/pcm": WireFormat(),
    "audio/pcmu": WireFormat("audio/pcmu", 8_000, 1),
    "audio/pcma": WireFormat("audio/pcma", 8_000, 1),
}
"""By the ``type`` that names them on the wire."""


class SpeechEncoder:
    """The speech of one answer, chunk by chunk, in the format of the wire."""

    def __init__(self, wire: WireFormat) -> None:
        self.format = wire
        self._resampler = Resampler(SPEECH_RATE, wire.rate)

    def encode(self, chunk: AudioChunk) -> bytes:
        """More of the answer, at 24 kHz. The last milliseconds of it may come with the next."""
        if chunk.sample_rate != SPEECH_RATE:
            raise ValueError(f"speech is made at {SPEECH_RATE} Hz, not {chunk.sample_rate} Hz")
        return self._encoded(self._resampler.feed(chunk.pcm))

    def flush(self) -> bytes:
        """The rest of the answer; the encoder then is as new."""
        return self._encoded(self._resampler.flush())

    def _encoded(self, pcm: NDArray[np.float32]) -> bytes:
        return self.format.encode(AudioChunk(pcm, self.format.rate))
