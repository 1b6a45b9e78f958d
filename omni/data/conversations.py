"""Conversations without media, and the same kind of questions asked aloud."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random

import numpy as np

from omni.data.knowledge import SPOKEN, choice, question
from omni.data.rooms import RATE, Place, record
from omni.data.sample import Medium, Message, Sample
from omni.data.speech import PARTS
from omni.data.texts import is_held_out, normal, sentences
from omni.data.voices import Voice, read

_LICENCE = "Apache-2.0 AND WordNet-3.0"


@dataclass(frozen=True, slots=True)
class Text:
    """Makes shards of questions and answers in text, single, in sequences and as choices."""

    part: str = "train"
    seed: int = 0
    size: int = 1024

    def __call__(self, shard: int) -> Iterator[Sample]:
        """The samples of a shard."""
        for number in range(shard * self.size, (shard + 1) * self.size):
            yield self.sample(number)

    def recipe(self) -> dict[str, object]:
        """What decides the samples, for the index."""
        return {"data": "text", "part": self.part, "seed": self.seed, "size": self.size}

    def sample(self, number: int) -> Sample:
        """Sample ``number``: a choice, a sentence to repeat or finish, or some questions."""
        random = Random(f"text {self.seed} {self.part} {number}")
        held_out = self.part != "train"
        draw = random.random()
        meta = {"source": "text", "licence": _LICENCE, "split": self.part, "seed": self.seed}
        if draw < 0.25:
            asked = [choice(random, held_out=held_out)]
        elif draw < 0.4:
            return self._sentence(number, random, held_out, meta)
        else:
            turns = 1 if held_out else random.randint(1, 3)
            asked = [question(random, held_out=held_out) for _ in range(turns)]
        messages = [
            message
            for q in asked
            for message in (Message("user", (q.text,)), Message("assistant", (q.answer,)))
        ]
        return Sample(
            id=f"text-{self.part}-{self.seed}-{number}",
            modality="text",
            messages=tuple(messages),
            meta={**meta, "about": [q.about for q in asked]},
            rejected=asked[-1].wrong,
        )

    def _sentence(
        self, number: int, random: Random, held_out: bool, meta: dict[str, object]
    ) -> Sample:
        text = random.choice(_examples(held_out))
        if random.random() < 0.5:
            asked, answer, about = f"Repeat this sentence: {text}", text, "repeating"
        else:
            words = text.split()
            cut = random.randint(len(words) // 2, len(words) - 1)
            asked = f"Finish this sentence: {' '.join(words[:cut])}"
            answer, about = text, "finishing"
        return Sample(
            id=f"text-{self.part}-{self.seed}-{number}",
            modality="text",
            messages=(Message("user", (asked,)), Message("assistant", (answer,))),
            meta={**meta, "about": [about]},
        )


@dataclass(frozen=True, slots=True)
class Questions:
    """Makes shards of spoken questions with short answers; its parts are those of speech."""

    part: str = "train"
    seed: int = 0
    size: int = 256

    def __call__(self, shard: int) -> Iterator[Sample]:
        """The samples of a shard."""
        for number in range(shard * self.size, (shard + 1) * self.size):
            yield self.sample(number)

    def recipe(self) -> dict[str, object]:
        """What decides the samples, for the index."""
        return {"data": "questions", "part": self.part, "seed": self.seed, "size": self.size}

    def sample(self, number: int) -> Sample:
        """Question ``number`` of the part, read by one of its voices."""
        family, held_out = PARTS[self.part]
        random = Random(f"questions {self.seed} {self.part} {number}")
        noise = np.random.default_rng(random.getrandbits(64))
        asked = question(random, held_out=held_out, kinds=SPOKEN)
        voice, place = Voice.draw(family, noise), Place.draw(noise)
        sound = read(asked.said, voice, noise)
        before, after = noise.uniform(0.05, 0.6), noise.uniform(0.1, 0.8)
        sound = record(sound, place, noise, before=before, after=after)
        return Sample(
            id=f"questions-{self.part}-{self.seed}-{number}",
            modality="audio",
            messages=(Message("user", (0,)), Message("assistant", (asked.answer,))),
            media=(Medium.audio(sound, RATE),),
            meta={
                "source": "questions",
                "licence": _LICENCE,
                "about": asked.about,
                "answer": asked.answer,
                "transcript": asked.text,
                "spoken": asked.said,
                "normal": normal(asked.said),
                "seconds": round(len(sound) / RATE, 3),
                "voice": voice.name,
                "pitch": voice.pitch,
                "throat": voice.throat,
                "noise": place.noise,
                "decay": place.decay,
                "split": self.part,
                "seed": self.seed,
            },
            rejected=asked.wrong,
        )


@cache
def _examples(held_out: bool) -> list[str]:
    return [s for s in sentences("examples") if is_held_out(s) == held_out]
