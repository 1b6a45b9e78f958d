"""The voices that read: hibari in many shapes, which is fast, and Kokoro's voices, which are slow.

hibari has one voice. It makes a spectrum and a pitch, so that other voices are that spectrum
stretched (a longer or shorter throat) under another pitch. Kokoro's voices are other people;
some of them are only ever heard in tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import soxr
from numpy.random import Generator
from numpy.typing import NDArray
from safetensors.numpy import save_file

from omni.data.rooms import RATE
from omni.data.sets import require
from omni.types import Pcm

TRAINED = (
    "af_alloy", "af_aoede", "af_bella", "af_heart", "af_jessica", "af_kore", "af_nova", "af_sarah",
    "af_sky", "am_adam", "am_echo", "am_fenrir", "am_liam", "am_onyx", "am_puck", "bf_alice",
    "bf_isabella", "bm_daniel", "bm_fable", "bm_george",
)  # fmt: skip
HELD_OUT = (
    "af_nicole", "af_river", "am_eric", "am_michael", "bf_emma", "bf_lily", "bm_lewis", "am_santa"
)  # fmt: skip
"""Voices of Kokoro that training never hears."""
_SOURCE = 24_000
Family = Literal["hibari", "kokoro", "held out"]


@dataclass(frozen=True, slots=True)
class Voice:
    """Who reads, and how: ``pace`` times the usual speed.

    ``pitch`` and ``throat`` multiply hibari's pitch and the frequencies of its spectrum; Kokoro's
    voices take only a ``pitch``, by resampling.
    """

    name: str
    pace: float = 1.0
    pitch: float = 1.0
    throat: float = 1.0

    @classmethod
    def draw(cls, family: Family, random: Generator) -> Voice:
        """Some voice of a family."""
        pace = round(float(np.clip(random.normal(1.0, 0.14), 0.7, 1.45)), 2)
        if family == "hibari":
            pitch = round(float(2 ** random.uniform(-0.85, 0.5)), 3)
            # Low voices mostly have long throats.
            throat = round(float(np.clip(pitch**0.22 * random.normal(1, 0.05), 0.8, 1.2)), 3)
            return cls("heart", pace, pitch, throat)
        names = TRAINED if family == "kokoro" else HELD_OUT
        pitch = round(float(random.uniform(0.94, 1.06)), 3) if family == "kokoro" else 1.0
        return cls(str(random.choice(names)), pace, pitch)


def read(text: str, voice: Voice, random: Generator) -> Pcm:
    """``text`` read aloud, float32 (T,) at 16 kHz, silence cut at both ends."""
    if voice.name == "heart":
        sound, rate = _hibari(text, voice, random), float(_SOURCE)
    else:
        sound, rate = _kokoro(text, voice.name, voice.pace / voice.pitch), _SOURCE * voice.pitch
    out: Pcm = soxr.resample(sound, rate, RATE)
    return out


def _hibari(text: str, voice: Voice, random: Generator) -> Pcm:
    from hibari import dsp

    from decoders.speech import Finish, trim
    from decoders.voices import split_phonemes

    reader = _reader()
    parts = []
    for piece in split_phonemes(reader.phonemes(text), 400):
        ids = np.asarray([_model().ids(piece)], np.int64)
        speed = np.asarray([voice.pace], np.float32)
        outputs = _model().sess.run(None, {"ids": ids, "speed": speed})
        *spectra, f0 = (o[0] for o in outputs)
        shaped = [stretch(s, voice.throat) for s in spectra]
        parts.append(dsp.synth(*shaped, f0 * np.float32(voice.pitch), random))
    return trim(np.concatenate(parts or [np.zeros(0, np.float32)]), Finish())


def stretch(spectrum_FT: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """A spectrum (F, T) whose content at f moves to ``factor`` times f."""
    if factor == 1.0:
        return spectrum_FT
    place = np.minimum(np.arange(len(spectrum_FT)) / factor, len(spectrum_FT) - 1)
    low = place.astype(np.int64)
    high = np.minimum(low + 1, len(spectrum_FT) - 1)
    part = (place - low).astype(np.float32)[:, None]
    return spectrum_FT[low] * (1 - part) + spectrum_FT[high] * part


def _kokoro(text: str, name: str, pace: float) -> Pcm:
    from omni.types import Clause

    pace = min(max(pace, 0.5), 2.0)
    sound = list(_slow().speak(Clause(text, "en"), voice=name, speed=pace))
    return np.concatenate([chunk.pcm for chunk in sound] or [np.zeros(0, np.float32)])


@cache
def _reader() -> Any:
    from decoders.voices import HibariVoice

    return HibariVoice()


@cache
def _model() -> Any:
    from hibari import Hibari

    return Hibari(threads=1)


@cache
def _slow() -> Any:
    from decoders.kokoro import KokoroVoice
    from omni.weights import ensure

    folder = require(["kokoro-voices"])["kokoro-voices"]
    with TemporaryDirectory() as scratch:
        table = Path(scratch) / "voices.safetensors"
        save_file({n: _style(folder, n) for n in (*TRAINED, *HELD_OUT)}, table)
        voice = KokoroVoice(
            ensure("kokoro-82m"),
            english=_reader().phonemes,
            voices=table,
            config=KokoroVoice.Config(threads=1),
        )
        voice.warm_up("en")  # reads the table
    return voice


def _style(folder: Path, name: str) -> NDArray[np.float32]:
    path = folder / "kokoro-js" / "package" / "voices" / f"{name}.bin"
    return np.fromfile(path, np.float32).reshape(-1, 256)
