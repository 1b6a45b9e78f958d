"""What happens to a voice between the mouth and the microphone: room, noise, level, telephone.

Everything is a function of its arguments and the generator that it is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from omni.types import Pcm

RATE = 16_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a recording is made. ``noise`` is the signal-to-noise ratio in dB, None for none."""

    decay: float | None = None
    """Seconds in which a room's echo falls by 60 dB."""
    direct: float = 5.0
    """Level of the voice itself over its echo, in dB."""
    noise: float | None = None
    colour: float = 1.0
    """Slope of the noise: 0 white, 1 pink, 2 brown."""
    peak: float = 0.5
    telephone: bool = False

    @classmethod
    def draw(cls, random: Generator) -> Place:
        """Some place: a third are quiet rooms nearby, the rest echo, rustle or are a telephone."""
        plain = random.random() < 0.33
        return cls(
            decay=None if plain or random.random() < 0.4 else round(random.uniform(0.15, 0.8), 2),
            direct=round(random.uniform(-2, 12), 1),
            noise=None if plain and random.random() < 0.5 else round(random.uniform(5, 40), 1),
            colour=round(random.uniform(0, 2), 2),
            peak=round(10 ** random.uniform(-1.3, -0.05), 3),
            telephone=not plain and random.random() < 0.08,
        )


def record(voice: Pcm, place: Place, random: Generator, *, before: float, after: float) -> Pcm:
    """``voice`` (T,) at 16 kHz as it arrives, with seconds of silence ``before`` and ``after``."""
    out = np.pad(voice, (round(before * RATE), round(after * RATE)))
    if place.decay is not None:
        out = echo(out, place.decay, place.direct, random)
    if place.noise is not None:
        power = float(np.mean(np.square(voice))) or 1e-6
        level = np.sqrt(power / 10 ** (place.noise / 10))
        out = out + level * coloured(len(out), place.colour, random)
    if place.telephone:
        out = band(out, 300, 3400)
    return (out * (place.peak / max(float(np.abs(out).max()), 1e-4))).astype(np.float32)


def echo(voice: Pcm, decay: float, direct: float, random: Generator) -> Pcm:
    """``voice`` in a room: noise that dies away exponentially, ``direct`` dB below the voice."""
    time = np.arange(round(min(decay, 1.0) * RATE)) / RATE
    tail = random.standard_normal(len(time)) * np.exp(-6.91 * time / decay)
    tail[: round(0.003 * RATE)] = 0  # the first reflection comes from a metre away
    tail *= 10 ** (-direct / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    size = 1 << (len(voice) + len(tail)).bit_length()
    wet = np.fft.irfft(np.fft.rfft(voice, size) * np.fft.rfft(tail, size), size)
    out: Pcm = wet[: len(voice)].astype(np.float32)
    return out


def coloured(size: int, slope: float, random: Generator) -> Pcm:
    """Noise (size,) of power 1 that falls by ``slope`` times 3 dB an octave."""
    spectrum = np.fft.rfft(random.standard_normal(size))
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / RATE), 40.0)
    noise = np.fft.irfft(spectrum * frequency ** (-slope / 2), size)
    out: Pcm = (noise / np.sqrt(np.mean(noise**2))).astype(np.float32)
    return out


def band(sound: Pcm, low: float, high: float) -> Pcm:
    """Only what lies between two frequencies, with soft edges."""
    spectrum = np.fft.rfft(sound)
    frequency = np.fft.rfftfreq(len(sound), 1 / RATE)
    gain = 1 / (1 + (low / np.maximum(frequency, 1)) ** 8) / (1 + (frequency / high) ** 16)
    out: Pcm = np.fft.irfft(spectrum * gain, len(sound)).astype(np.float32)
    return out
