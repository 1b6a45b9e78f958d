"""hibari: the fast English voice, a hundred times faster than real time on one core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from decoders.speech import SAMPLE_RATE, Finish, check_speed, chunks, pause_after, silence, trim
from decoders.spoken import spoken_english
from omni.types import AudioChunk, Capabilities, Clause, Pcm

_LONGEST = 400  # phonemes that the model takes at once


class HibariVoice:
    """English speech. The model is loaded with the first clause or by ``warm_up``.

    It begins everything with about 0.3 s of near-silence, which is cut; pauses follow punctuation.
    """

    @dataclass(frozen=True)
    class Config:
        """Options of ``HibariVoice``."""

        threads: int = 1
        """One takes a third longer than two, but two spin on and slow the LLM's next step."""
        seed: int | None = 0
        """Of its noise component; None for a different one every time."""
        finish: Finish = field(default_factory=Finish)

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or self.Config()
        self.capabilities = Capabilities(
            inputs=frozenset({"text"}),
            outputs=frozenset({"audio"}),
            sample_rate=SAMPLE_RATE,
            languages=frozenset({"en"}),
            voices=("heart",),
            streaming=True,
        )

    def speaks(self, language: str, voice: str | None = None) -> bool:
        """Whether it knows ``language``, with ``voice`` where one is wanted."""
        return language == "en" and (voice is None or voice in self.capabilities.voices)

    def speak(
        self, clause: Clause, *, voice: str | None = None, speed: float = 1.0
    ) -> Iterator[AudioChunk]:
        """Sound for one clause; nothing where there is nothing to say."""
        check_speed(speed)
        return chunks(self._parts(clause.text, speed), self._config.finish.piece)

    def warm_up(self) -> None:
        """Load the model and its dictionaries, and run them once (about 1 s)."""
        for _ in self.speak(Clause("I am ready, Xylo 3.")):
            pass

    def phonemes(self, text: str) -> str:
        """Phonemes of an English ``text`` in the alphabet that Kokoro shares."""
        words = spoken_english(text)
        return str(self._model.g2p(words)) if any(c.isalnum() for c in words) else ""

    def _parts(self, text: str, speed: float) -> Iterator[Pcm]:
        rng = np.random.default_rng(self._config.seed)
        pieces = split_phonemes(self.phonemes(text), _LONGEST)
        for piece in pieces:
            raw = self._model.from_ids(self._model.ids(piece), speed, rng)
            sound = trim(raw, self._config.finish)
            if len(sound):
                yield sound
                yield silence(pause_after(text if piece is pieces[-1] else piece) / speed)

    @cached_property
    def _model(self) -> Any:
        from hibari import Hibari

        return Hibari(threads=self._config.threads)


def split_phonemes(phonemes: str, longest: int) -> list[str]:
    """Cut a phoneme string into pieces of at most ``longest``, at punctuation or else at spaces."""
    pieces = []
    rest = phonemes.strip()
    while len(rest) > longest:
        head = rest[: longest + 1]
        cut = max(head.rfind(mark + " ") for mark in ".!?;:,—…") + 1
        if cut < longest // 4:
            cut = head.rfind(" ")
        cut = cut if cut > 0 else longest
        pieces.append(rest[:cut].strip())
        rest = rest[cut:].strip()
    return [piece for piece in (*pieces, rest) if piece]
