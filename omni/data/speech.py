"""Speech with its words: sentences read by our own voices, in rooms, noise and on the telephone.

Every sample is a function of the seed, the part and its number, so that making can be repeated,
resumed by shard and shared among processes. What tests hear is kept from training by sentence (a
hash of its words) and by voice (some of Kokoro's voices read only tests).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

from omni.data.phrases import phrase
from omni.data.rooms import RATE, Place, record
from omni.data.sample import Medium, Message, Sample
from omni.data.sets import require, set_of
from omni.data.shards import Index, Shard, make_shards
from omni.data.texts import SOURCES, is_held_out, normal, sentences
from omni.data.voices import Family, Voice, read
from omni.errors import InputError

PARTS: dict[str, tuple[Family, bool]] = {
    "train": ("hibari", False),
    "train_voices": ("kokoro", False),
    "held_out": ("hibari", True),
    "held_out_voices": ("held out", True),
}
"""Folder of each part, who reads it, and whether its sentences are those kept for tests."""

SECONDS = 3.4
"""About how long a sample is."""
REQUESTS = (
    "Write down what was said.",
    "Repeat what I said, word for word.",
    "What did I say?",
    "Transcribe this.",
    "Please repeat that.",
)
_SHARES = {
    "phrases": 0.4,
    "examples": 0.2,
    "fortunes": 0.12,
    "glosses": 0.12,
    "bible": 0.1,
    "jargon": 0.04,
    "devil": 0.02,
}


@dataclass(frozen=True, slots=True)
class Speech:
    """Makes the shards of one part; called with the number of a shard."""

    part: str
    seed: int = 0
    size: int = 256

    def __call__(self, shard: int) -> Iterator[Sample]:
        """The samples of a shard; those that no voice can read are left out."""
        for number in range(shard * self.size, (shard + 1) * self.size):
            sample = self.sample(number)
            if sample is not None:
                yield sample

    def shards(self, hours: float) -> int:
        """How many shards hold about so much."""
        return max(1, math.ceil(hours * 3600 / SECONDS / self.size))

    def recipe(self) -> dict[str, object]:
        """What decides the samples, for the index."""
        return {"data": "speech", "part": self.part, "seed": self.seed, "size": self.size}

    def sample(self, number: int) -> Sample | None:
        """Sample ``number`` of the part; None where a voice makes nothing of it."""
        family, held_out = PARTS[self.part]
        random = Random(f"speech {self.seed} {self.part} {number}")
        noise = np.random.default_rng(random.getrandbits(64))
        source, written, said = _text(random, held_out)
        voice, place = Voice.draw(family, noise), Place.draw(noise)
        sound = read(said, voice, noise)
        if not 0.3 <= len(sound) / RATE <= 25:
            return None
        before, after = noise.uniform(0.05, 0.6), noise.uniform(0.1, 0.8)
        sound = record(sound, place, noise, before=before, after=after)
        return Sample(
            id=f"speech-{self.part}-{self.seed}-{number}",
            modality="audio",
            messages=(
                Message("user", (0, random.choice(REQUESTS))),
                Message("assistant", (written,)),
            ),
            media=(Medium.audio(sound, RATE),),
            meta={
                "source": source,
                "licence": set_of(SOURCES[source]).licence if source in SOURCES else "Apache-2.0",
                "transcript": written,
                "spoken": said,
                "normal": normal(said),
                "seconds": round(len(sound) / RATE, 3),
                "voice": voice.name,
                "pace": voice.pace,
                "pitch": voice.pitch,
                "throat": voice.throat,
                "decay": place.decay,
                "noise": place.noise,
                "telephone": place.telephone,
                "split": self.part,
                "seed": self.seed,
            },
        )


def make_speech(
    directory: Path,
    hours: float,
    *,
    part: str = "train",
    seed: int = 0,
    workers: int = 1,
    done: Callable[[Shard], None] = lambda shard: None,
) -> Index:
    """Make about ``hours`` of one of `PARTS` in its folder below ``directory``, or go on making.

    Asking for more hours adds shards. Raises `InputError` for a part that does not exist, for sets
    that were not pulled, and for a folder that holds data of another seed.
    """
    if part not in PARTS:
        raise InputError(f"speech has no part {part!r}; it has: {', '.join(PARTS)}", param="part")
    family = PARTS[part][0]
    require([*SOURCES.values(), *(["kokoro-voices"] if family != "hibari" else [])])
    make = Speech(part, seed, size=256 if family == "hibari" else 64)
    return make_shards(
        make,
        directory / part,
        make.shards(hours),
        recipe=make.recipe(),
        workers=workers,
        done=done,
    )


def _text(random: Random, held_out: bool) -> tuple[str, str, str]:
    """(source, as it is written, as it is said)."""
    while True:
        source = random.choices(list(_SHARES), list(_SHARES.values()))[0]
        if source == "phrases":
            break
        if found := _sentences(source, held_out):
            text = random.choice(found)
            return source, text, text
    while True:
        written, said = phrase(random)
        if is_held_out(said) == held_out:
            return source, written, said


@cache
def _sentences(source: str, held_out: bool) -> Sequence[str]:
    return [s for s in sentences(source) if is_held_out(s) == held_out]
