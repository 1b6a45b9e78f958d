"""Whisper through CTranslate2: sound -> words, as fast as a conversation needs.

Whisper was trained on 30 s windows, and encoding one costs most of a second on two cores. Short
windows are enough when silence follows the speech inside them; without that silence the decoder
loops. So a window is as short as :class:`WhisperEncoder.Config` allows, the output is checked for
loops, and a suspicious one is decoded again from a longer window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from encoders.ear import Ear, short_window
from encoders.mel import HOP, RATE, Mel, MelStream, whisper_mel
from encoders.segment import Piece, quietest, speech_pieces
from encoders.vad import SileroVad
from encoders.whisper import Attempt, Whisper, Window
from encoders.words import later, segments, within_speech, words
from omni.errors import InputError, MediaError
from omni.types import AudioChunk, Capabilities, Pcm, Run, Transcript, call

_FRAMES_PER_SECOND = RATE // HOP
_WINDOW = 30 * _FRAMES_PER_SECOND
STEP = 50
"""Frames: where many pieces are decoded, their windows are multiples of it, so that they match."""
_NO_SPACES = {"zh", "ja", "th", "lo", "my", "yue"}


class WhisperEncoder:
    """A Whisper model in CTranslate2's format; one instance serves all sessions."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        A window is the speech and ``margin`` seconds of silence, at least ``min_seconds``; the
        ``safe_`` pair is used when the first output looks wrong. At most ``max_seconds`` of speech
        are decoded at once: in longer windows Whisper skips whole
        sentences. ``languages`` limits what may be detected; empty means all. ``workers`` threads
        may use the model at a time, each with ``threads`` of its own.
        """

        compute_type: str = "int8"
        threads: int = 2
        workers: int = 1
        min_seconds: float = 6.0
        margin: float = 2.0
        safe_min_seconds: float = 10.0
        safe_margin: float = 4.0
        max_seconds: float = 8.0
        tokens_per_second: float = 5.0
        extra_tokens: int = 12
        no_speech: float = 0.6
        low_confidence: float = 0.5
        sure_language: float = 0.5
        languages: tuple[str, ...] = ()

    def __init__(self, path: Path, config: Config | None = None, ear: Ear | None = None) -> None:
        """With an ``ear`` its languages are heard without Whisper's decoder."""
        self.config = config or self.Config()
        self.model = Whisper(
            path,
            compute_type=self.config.compute_type,
            threads=self.config.threads,
            workers=self.config.workers,
            allowed=self.config.languages,
            sure=self.config.sure_language,
            ear=ear,
        )
        self._vad = SileroVad()
        self.capabilities = Capabilities(
            inputs=frozenset({"audio"}),
            bridge="text",
            sample_rate=RATE,
            languages=frozenset(self.model.languages),
            streaming=True,
        )

    def stream(self) -> WhisperStream:
        """A fresh streaming state."""
        return WhisperStream(self)

    def transcribe(self, chunk: AudioChunk, language: str | None = None) -> Transcript:
        """The words of one utterance that is at hand as a whole."""
        stream = self.stream()
        stream.feed(chunk)
        return stream.transcribe(language)

    def transcribe_long(
        self,
        sound: AudioChunk | Iterable[AudioChunk],
        language: str | None = None,
        *,
        times: bool = False,
    ) -> Transcript:
        """The words of a recording of any length, cut at pauses into pieces."""
        seconds = 0.0

        def counted() -> Iterator[AudioChunk]:
            nonlocal seconds
            for chunk in (sound,) if isinstance(sound, AudioChunk) else sound:
                seconds += chunk.seconds
                yield chunk

        parts = list(self.transcribe_windows(counted(), language, times=times))
        return joined(parts, seconds, language)

    def transcribe_windows(
        self,
        sound: Iterable[AudioChunk],
        language: str | None = None,
        *,
        times: bool = False,
        run: Run = call,
    ) -> Iterator[Transcript]:
        """A transcript of each piece of speech, as soon as it is read from ``sound``.

        Only the work inside ``run`` needs the model; with ``times`` words and segments carry their
        seconds of the whole recording.
        """
        code = self.language_code(language) if language else None
        heard = None
        for piece in self.pieces(sound):
            decode = partial(self.decode, partial(whisper_mel, piece.pcm), piece.pcm)
            part = run(partial(decode, code, heard, times=times, levels=piece.levels, step=STEP))
            heard = self.sure_language(part) or heard
            yield later(part, piece.start / RATE)

    def pieces(self, sound: Iterable[AudioChunk]) -> Iterator[Piece]:
        """The speech in ``sound``, cut at pauses; MediaError unless it is mono at 16 kHz."""

        def checked() -> Iterator[Pcm]:
            for chunk in sound:
                self.check_rate(chunk)
                yield chunk.pcm

        return speech_pieces(checked(), self._vad.stream(), max_seconds=self.config.max_seconds)

    def sure_language(self, part: Transcript) -> str | None:
        """The language of ``part`` if it was heard well enough to expect it of the next one."""
        return (
            part.language if part.text and part.confidence >= self.config.low_confidence else None
        )

    def check_rate(self, chunk: AudioChunk) -> None:
        """Raise MediaError unless ``chunk`` is mono sound at the rate that the model hears."""
        if chunk.sample_rate != RATE:
            raise MediaError(
                f"audio is at {chunk.sample_rate} Hz; this encoder takes {RATE} Hz; "
                "resample it with encoders.media.Resampler",
                param="sample_rate",
            )
        if chunk.pcm.ndim != 1:
            raise MediaError(f"audio has shape {chunk.pcm.shape}; send mono sound, shape (T,)")

    def language_code(self, language: str) -> str:
        """``language`` as Whisper names it ("en-US" -> "en"); InputError for an unknown one."""
        code = language.lower().replace("_", "-").split("-")[0]
        if code not in self.model.languages:
            raise InputError(
                f"language {language!r} is not one that this encoder hears; "
                f"give an ISO 639-1 code like 'en', or none to have it detected",
                param="language",
            )
        return code

    def decode(
        self,
        read: Callable[[int], Mel],
        pcm: Pcm,
        language: str | None = None,
        fallback: str | None = None,
        *,
        times: bool = False,
        levels: Sequence[float] = (),
        step: int = 2,
    ) -> Transcript:
        """Decode up to ``max_seconds`` of speech.

        ``read(frames)`` gives its mel (80, frames) with silence behind it; ``fallback`` is the
        language when none is given and none is detected surely. ``times`` count from the first
        sample of ``pcm``. ``levels`` of the voice activity are measured where they are missing;
        windows are as long as the next multiple of ``step`` frames.
        """
        attempt, code = None, language
        if is_sound(pcm):
            for frames in self.windows(len(pcm) / RATE, step, code):
                window = self.window(read(frames), len(pcm), code, fallback, times)
                attempt = self.model.attempt([window])[0]
                if attempt.whole:
                    break
                code = attempt.language
        return self.transcript(attempt, pcm, language or fallback, times=times, levels=levels)

    def windows(self, seconds: float, step: int, language: str | None = None) -> tuple[int, ...]:
        """Frames of the windows to try for ``seconds`` of speech, one after the other."""
        config = self.config
        needed = [
            max(config.min_seconds, seconds + config.margin),
            max(config.safe_min_seconds, seconds + config.safe_margin),
        ]
        if language in self.model.direct:
            needed = [short_window(seconds)]
        rounded = (step * math.ceil(s * _FRAMES_PER_SECOND / step) for s in needed)
        return tuple(dict.fromkeys(min(_WINDOW, frames) for frames in rounded))

    def window(
        self, mel: Mel, samples: int, language: str | None, fallback: str | None, times: bool
    ) -> Window:
        """What the model reads: ``mel`` (80, frames) with ``samples`` of speech in it."""
        cap = int(self.config.tokens_per_second * samples / RATE) + self.config.extra_tokens
        spoken = min(mel.shape[1], math.ceil(samples / HOP))
        return Window(mel, spoken, cap, language, fallback, times)

    def transcript(
        self,
        attempt: Attempt | None,
        pcm: Pcm,
        language: str | None,
        *,
        times: bool,
        levels: Sequence[float],
    ) -> Transcript:
        """What the last attempt at ``pcm`` says; None: there was nothing to attempt.

        Where there are no words ``language`` is given as theirs.
        """
        seconds = len(pcm) / RATE
        nothing = Transcript("", language or "en", seconds, 0.0, 1.0)
        if attempt is None:
            return nothing
        nothing = replace(nothing, no_speech=attempt.no_speech)
        text = attempt.text
        doubtful = (
            attempt.no_speech > self.config.no_speech
            or attempt.probability < self.config.low_confidence
        )
        if not text:
            return nothing
        if doubtful or times:
            levels = levels or self._vad.stream().feed(pcm)
        if doubtful and sum(level > 0.5 for level in levels) < 2:  # no voice of 64 ms
            return nothing
        part = Transcript(text, attempt.language, seconds, attempt.probability, attempt.no_speech)
        if not times:
            return part
        missing = len(attempt.tokens) + 1 - len(attempt.starts)
        starts = attempt.starts + [seconds] * missing
        grouped = words(attempt.tokens, starts, attempt.likely, attempt.spell)
        spoken = within_speech(grouped, levels, seconds)
        return replace(part, words=spoken, segments=segments(spoken, part.no_speech))


class WhisperStream:
    """Everything fed since the last reset or crop; one long-lived stream serves a session.

    Positions are samples of the stream's clock, which the first chunk after a reset sets. Of sound
    longer than ``max_seconds``, windows cut at pauses are decoded once and then only their words
    are kept.
    """

    def __init__(self, encoder: WhisperEncoder) -> None:
        self._encoder = encoder
        self._mel = MelStream()
        self.last_language: str | None = None
        self.reset()

    def reset(self) -> None:
        """Forget everything that was fed; the language last heard is kept as a hint."""
        self._mel.reset()
        self._start: int | None = None
        self._done: list[tuple[int, Transcript]] = []  # with the position where each ends

    @property
    def start(self) -> int:
        """Position of the first sample whose sound is still held."""
        return self._start or 0

    @property
    def end(self) -> int:
        """Position behind the last sample that was fed."""
        return self.start + len(self._mel.pcm)

    def feed(self, chunk: AudioChunk) -> None:
        """Take more sound; MediaError unless it is mono at 16 kHz."""
        self._encoder.check_rate(chunk)
        if self._start is None:
            self._start = chunk.start
        self._mel.feed(chunk.pcm)

    def crop(self, start_sample: int) -> None:
        """Forget what lies before ``start_sample`` (rounded down to 10 ms)."""
        self._done = [(end, part) for end, part in self._done if end > start_sample]
        self._start = self.start + self._mel.crop(max(0, start_sample - self.start))

    def transcribe(self, language: str | None = None, *, times: bool = False) -> Transcript:
        """Say in words what was fed so far; the stream can be fed on afterwards.

        With ``times`` words and segments carry seconds of the stream's clock. InputError for a
        language that the model does not know.
        """
        encoder = self._encoder
        code = encoder.language_code(language) if language else None
        limit = int(encoder.config.max_seconds * _FRAMES_PER_SECOND)
        while len(self._mel.pcm) > limit * HOP:
            cut = quietest(self._mel.levels()[:limit], limit // 2, limit)
            part = self._decode(code, cut, times)
            self._start = self.start + self._mel.crop(cut * HOP)
            self._done.append((self.start, part))
        parts = [*(part for _, part in self._done), self._decode(code, None, times)]
        return joined(parts, sum(part.seconds for part in parts), code)

    def _decode(self, language: str | None, end: int | None, times: bool) -> Transcript:
        """Decode the sound to frame ``end``, or all of it."""
        pcm = self._mel.pcm if end is None else self._mel.pcm[: end * HOP]
        part = self._encoder.decode(
            lambda frames: self._mel.read(frames, end),
            pcm,
            language,
            self.last_language,
            times=times,
        )
        self.last_language = self._encoder.sure_language(part) or self.last_language
        return later(part, self.start / RATE) if times else part


def is_sound(pcm: Pcm) -> bool:
    """Whether there is anything to hear: digital silence has no words."""
    return bool(len(pcm)) and float(np.abs(pcm).max()) >= 1e-4


def space_before(part: Transcript) -> str:
    """What goes between ``part`` and the one before it."""
    return "" if part.language in _NO_SPACES else " "


def joined(parts: Sequence[Transcript], seconds: float, language: str | None) -> Transcript:
    """One transcript of consecutive ones; those without words only count where all are."""
    said = [part for part in parts if part.text]
    if not said:
        quiet = max((part.no_speech for part in parts), default=1.0)
        return Transcript("", language or "en", seconds, 0.0, quiet)
    if len(said) == 1:
        return replace(said[0], seconds=seconds)
    spoken = sum(part.seconds for part in said)
    heard: dict[str, float] = {}
    for part in said:
        heard[part.language] = heard.get(part.language, 0.0) + part.seconds
    text = said[0].text
    for part in said[1:]:
        text += space_before(part) + part.text
    return Transcript(
        text,
        max(heard, key=lambda code: heard[code]),
        seconds,
        sum(part.confidence * part.seconds for part in said) / spoken,
        min(part.no_speech for part in said),
        tuple(word for part in said for word in part.words),
        tuple(segment for part in said for segment in part.segments),
    )
