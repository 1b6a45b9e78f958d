"""Clauses -> sound: which voice speaks, how sound is cut and joined, when slow speech may start."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from omni.errors import InputError
from omni.types import AudioChunk, Capabilities, Clause, Pcm, SpeechDecoder

SAMPLE_RATE = 24_000
WARM_UP = {"zh": "你好。", "hi": "नमस्ते।"}
"""What is said to load a voice, by language; the others read Latin letters."""

_CLOSERS = " \"'”’»)]}」』）】》"


@dataclass(frozen=True)
class Finish:
    """How the raw sound of a voice becomes a clause that joins well with its neighbours."""

    quiet: float = 0.012
    """Amplitude below which the beginning and the end count as silence."""
    lead: float = 0.01
    """Seconds kept before the first sound ..."""
    tail: float = 0.06
    """... and after the last."""
    fade: float = 0.005
    """Seconds of fade at both ends, against clicks."""
    piece: float = 0.4
    """Seconds of sound per chunk."""


def trim(pcm: Pcm, finish: Finish) -> Pcm:
    """Cut the silence around the speech in ``pcm`` (T,), and fade what is left in and out."""
    # The loudest sample of every 5 ms; one sample alone may be noise.
    frame = SAMPLE_RATE // 200
    whole = len(pcm) // frame * frame
    peaks = np.abs(pcm[:whole]).reshape(-1, frame).max(axis=1) if whole else np.zeros(0)
    loud = np.flatnonzero(peaks > finish.quiet)
    if not len(loud):
        return np.zeros(0, np.float32)
    begin = max(0, loud[0] * frame - int(finish.lead * SAMPLE_RATE))
    end = min(len(pcm), (loud[-1] + 1) * frame + int(finish.tail * SAMPLE_RATE))
    out = np.array(pcm[begin:end], np.float32)
    size = min(int(finish.fade * SAMPLE_RATE), len(out) // 2)
    ramp = np.linspace(0, 1, size, endpoint=False, dtype=np.float32)
    out[:size] *= ramp
    out[len(out) - size :] *= ramp[::-1]
    return np.clip(out, -1, 1)


def pause_after(text: str) -> float:
    """Seconds of silence that the punctuation at the end of ``text`` asks for."""
    last = text.rstrip(_CLOSERS)[-1:]
    if last in ".!?。！？…｡" and last:
        return 0.28
    if last in ";:；：—–" and last:
        return 0.18
    if last in ",，、" and last:
        return 0.1
    return 0.03 if last else 0.0


def silence(seconds: float) -> Pcm:
    """``seconds`` of nothing at ``SAMPLE_RATE``."""
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def chunks(parts: Iterator[Pcm], piece: float) -> Iterator[AudioChunk]:
    """Cut sound into chunks of at most ``piece`` seconds; ``start`` counts from the first one."""
    start, size = 0, max(1, int(piece * SAMPLE_RATE))
    for part in parts:
        for at in range(0, len(part), size):
            pcm = part[at : at + size]
            yield AudioChunk(pcm, SAMPLE_RATE, start)
            start += len(pcm)


def check_speed(speed: float) -> None:
    """Raise InputError unless ``speed`` is between 0.25 and 4."""
    if not 0.25 <= speed <= 4:
        raise InputError(
            f"speed is {speed:g}; send a number from 0.25 (slow) to 4 (fast), 1 is normal",
            param="speed",
        )


class VoiceRouter:
    """Several speech decoders as one: the voice follows the language of the clause.

    The first decoder that speaks the language with the wanted voice is taken; where the wanted
    voice does not know the language, the first that speaks it with a voice of its own choice.
    """

    def __init__(self, decoders: Sequence[SpeechDecoder]) -> None:
        if not decoders:
            raise InputError("a voice router needs at least one speech decoder")
        self._decoders = tuple(decoders)
        languages = frozenset().union(*(d.capabilities.languages for d in self._decoders))
        voices = dict.fromkeys(v for d in self._decoders for v in d.capabilities.voices)
        self.capabilities = Capabilities(
            inputs=frozenset({"text"}),
            outputs=frozenset({"audio"}),
            sample_rate=SAMPLE_RATE,
            languages=languages,
            voices=tuple(voices),
            streaming=True,
        )

    def speaks(self, language: str, voice: str | None = None) -> bool:
        """Whether some voice knows ``language``; a ``voice`` that does not is replaced by one."""
        return self._pick(language, voice) is not None

    def speak(
        self, clause: Clause, *, voice: str | None = None, speed: float = 1.0
    ) -> Iterator[AudioChunk]:
        """Sound for one clause; nothing where no voice knows its language.

        Raises InputError for a voice that no decoder has, or a speed out of range.
        """
        check_speed(speed)
        if voice is not None and voice not in self.capabilities.voices:
            raise InputError(
                f"there is no voice {voice!r}; send one of {', '.join(self.capabilities.voices)}",
                param="voice",
            )
        picked = self._pick(clause.language, voice)
        if picked is None:
            return iter(())
        decoder, voice = picked
        return decoder.speak(clause, voice=voice, speed=speed)

    def warm_up(self, language: str = "en", voice: str | None = None) -> None:
        """Load what ``language`` needs, so that its first clause is as fast as the others."""
        for _ in self.speak(Clause(WARM_UP.get(language, "OK 1."), language), voice=voice):
            pass

    def _pick(self, language: str, voice: str | None) -> tuple[SpeechDecoder, str | None] | None:
        for wanted in dict.fromkeys((voice, None)):
            for decoder in self._decoders:
                if decoder.speaks(language, wanted):
                    return decoder, wanted
        return None


class StartBuffer:
    """Decides when speech that may be slower than real time can start to play.

    It knows the length of what is still to be made (estimated from the text) and how fast sound is
    made (measured), and says yes as soon as playing would not overtake making. Fast voices start
    with their first chunk. It reads no clock: the caller says how long the making took.
    """

    @dataclass(frozen=True)
    class Config:
        """Options of ``StartBuffer``."""

        margin: float = 1.15
        """How much slower than measured the rest may be made."""
        expected_factor: float = 1.0
        """Seconds of work per second of sound until something was measured."""
        longest_wait: float = 12.0
        """Seconds of sound in hand at which playing starts in any case."""

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or self.Config()
        self._pending: list[float] = []
        self._ready = 0.0
        self._made = 0.0
        self._work = 0.0
        self.started = False

    def expect(self, clause: Clause) -> None:
        """A clause waits to be spoken."""
        self._pending.append(speech_seconds(clause))

    def made(self, seconds: float, took: float) -> None:
        """``seconds`` of sound of the oldest waiting clause were made in ``took`` seconds."""
        self._ready += seconds
        self._made += seconds
        self._work += took
        if self._pending:
            self._pending[0] = max(0.0, self._pending[0] - seconds)

    def finish_clause(self) -> None:
        """The oldest waiting clause is complete."""
        if self._pending:
            self._pending.pop(0)

    @property
    def factor(self) -> float:
        """Seconds of work per second of sound, as measured so far."""
        return self._work / self._made if self._made else self._config.expected_factor

    def may_start(self) -> bool:
        """Whether playing can start now, and not stop before the end of all expected clauses."""
        if self.started:
            return True
        if self._ready <= 0:
            return False
        factor, margin = self.factor, self._config.margin
        in_time, work, sound = True, 0.0, self._ready
        for seconds in self._pending:
            # A clause can be played only when all of it is made, while those before it play.
            work += seconds * factor * margin
            in_time = in_time and work <= sound
            sound += seconds
        self.started = in_time or self._ready >= self._config.longest_wait
        return self.started


_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")


def speech_seconds(clause: Clause) -> float:
    """Roughly how long ``clause`` takes to say, its pause included."""
    wide = len(_WIDE.findall(clause.text))
    digits = sum(c.isdigit() for c in clause.text)
    others = len(clause.text) - wide - digits
    return 0.2 + wide * 0.19 + digits * 0.3 + others / 15 + pause_after(clause.text)
