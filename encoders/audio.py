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

import ctranslate2
import numpy as np
from tokenizers import Tokenizer

from encoders.mel import HOP, RATE, Mel, MelStream
from encoders.segment import quietest, speech_pieces
from encoders.vad import SileroVad
from encoders.words import later, segments, within_speech, words
from omni.errors import InputError, MediaError, WeightsError
from omni.types import AudioChunk, Capabilities, Pcm, Run, Transcript, call

_FRAMES_PER_SECOND = RATE // HOP
_WINDOW = 30 * _FRAMES_PER_SECOND
_POSITION = 0.02
"""Seconds of one position of the encoder's output."""
_NO_SPACES = {"zh", "ja", "th", "lo", "my", "yue"}


class WhisperEncoder:
    """A Whisper model in CTranslate2's format; one instance serves all sessions."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        A window is the speech and ``margin`` seconds of silence, at least ``min_seconds``; the
        ``safe_`` pair is used when the first output looks wrong. At most ``max_seconds`` of speech
        are decoded at once: in longer windows Whisper skips whole
        sentences. ``languages`` limits what may be detected; empty means all.
        """

        compute_type: str = "int8"
        threads: int = 2
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

    def __init__(self, path: Path, config: Config | None = None) -> None:
        self.config = config or self.Config()
        try:
            self._model = ctranslate2.models.Whisper(
                str(path),
                compute_type=self.config.compute_type,
                intra_threads=self.config.threads,
                inter_threads=1,
            )
            self._tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        except Exception as error:  # both raise bare RuntimeError and Exception
            raise WeightsError(
                f"{path} does not hold a Whisper model in CTranslate2's format ({error}); "
                "expected model.bin, config.json, tokenizer.json and vocabulary.txt"
            ) from error
        self._vad = SileroVad()
        self._start = self._token("<|startoftranscript|>")
        self._task = [self._token("<|transcribe|>"), self._token("<|notimestamps|>")]
        first, after = self._start + 1, self._token("<|translate|>")
        names = (self._tokenizer.id_to_token(i) for i in range(first, after))
        self._languages = {n.strip("<|>"): first + i for i, n in enumerate(names) if n}
        self.capabilities = Capabilities(
            inputs=frozenset({"audio"}),
            bridge="text",
            sample_rate=RATE,
            languages=frozenset(self._languages),
            streaming=True,
        )
        unknown = set(self.config.languages) - self._languages.keys()
        if unknown:
            raise InputError(f"unknown languages {sorted(unknown)}", param="languages")

    def _token(self, name: str) -> int:
        token: int | None = self._tokenizer.token_to_id(name)
        if token is None:
            raise WeightsError(f"the tokenizer has no {name}; it is not that of Whisper")
        return token

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
        heard = None

        def checked() -> Iterator[Pcm]:
            for chunk in sound:
                self.check_rate(chunk)
                yield chunk.pcm

        for piece in speech_pieces(
            checked(), self._vad.stream(), max_seconds=self.config.max_seconds
        ):
            stream = self.stream()
            stream.last_language = heard
            stream.feed(piece)
            part = run(partial(stream.transcribe, language, times=times))
            heard = part.language
            yield part

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
        if code not in self._languages:
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
    ) -> Transcript:
        """Decode up to ``max_seconds`` of speech.

        ``read(frames)`` gives its mel (80, frames) with silence behind it; ``fallback`` is the
        language when none is given and none is detected surely. ``times`` count from the first
        sample of ``pcm``.
        """
        config = self.config
        seconds = len(pcm) / RATE
        if not len(pcm) or float(np.abs(pcm).max()) < 1e-4:  # digital silence has no words
            return Transcript("", language or fallback or "en", seconds, 0.0, 1.0)
        windows = dict.fromkeys(
            _frames(max(low, seconds + margin))
            for low, margin in (
                (config.min_seconds, config.margin),
                (config.safe_min_seconds, config.safe_margin),
            )
        )
        cap = int(config.tokens_per_second * seconds) + config.extra_tokens
        code = language
        for frames in windows:
            encoded = self._model.encode(ctranslate2.StorageView.from_array(read(frames)[None]))
            code = code or self._detect(encoded, fallback)
            tokens, probability, no_speech = self._generate(encoded, code, cap)
            if len(tokens) < cap and not repeats(tokens):
                break
        tokens = cut_loop(tokens)
        text = self._tokenizer.decode(tokens).strip()
        doubtful = no_speech > config.no_speech or probability < config.low_confidence
        if not text or (doubtful and not self._speaks(pcm)):
            return Transcript("", language or fallback or "en", seconds, 0.0, no_speech)
        part = Transcript(text, code or "en", seconds, probability, no_speech)
        return self._timed(part, encoded, tokens, pcm) if times else part

    def _timed(
        self, part: Transcript, encoded: ctranslate2.StorageView, tokens: list[int], pcm: Pcm
    ) -> Transcript:
        """``part`` with the times of its words, read from the cross-attention (DTW)."""
        prompt = [self._start, self._languages[part.language], *self._task]
        frames = min(encoded.shape[1] * 2, math.ceil(len(pcm) / HOP))
        found = self._model.align(encoded, prompt, [tokens], frames)[0]
        starts: list[float] = []
        for token, position in found.alignments:
            if token == len(starts):
                starts.append(position * _POSITION)
        starts += [part.seconds] * (len(tokens) + 1 - len(starts))
        grouped = words(tokens, starts, found.text_token_probs, self._tokenizer.decode)
        spoken = within_speech(grouped, self._vad.stream().feed(pcm), part.seconds)
        return replace(part, words=spoken, segments=segments(spoken, part.no_speech))

    def _generate(
        self, encoded: ctranslate2.StorageView, language: str, cap: int
    ) -> tuple[list[int], float, float]:
        """Greedy tokens, their mean probability, and the probability that nobody spoke."""
        prompt = [self._start, self._languages[language], *self._task]
        result = self._model.generate(
            encoded,
            [prompt],
            beam_size=1,
            max_length=len(prompt) + cap,
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        tokens: list[int] = result.sequences_ids[0]
        # The score is a mean over the tokens without the end mark that it includes.
        mean = result.scores[0] * len(tokens) / (len(tokens) + 1)
        return tokens, min(1.0, math.exp(mean)), float(result.no_speech_prob)

    def _detect(self, encoded: ctranslate2.StorageView, fallback: str | None) -> str:
        """The likeliest language; an unsure guess gives way to ``fallback``."""
        allowed = self.config.languages or self._languages.keys()
        found = ((n.strip("<|>"), p) for n, p in self._model.detect_language(encoded)[0])
        code, probability = max((f for f in found if f[0] in allowed), key=lambda f: f[1])
        return fallback if fallback and probability < self.config.sure_language else code

    def _speaks(self, pcm: Pcm) -> bool:
        """Whether the VAD finds a voice of at least 64 ms."""
        return sum(p > 0.5 for p in self._vad.stream().feed(pcm)) >= 2


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
        if part.text and part.confidence >= self._encoder.config.low_confidence:
            self.last_language = part.language
        return later(part, self.start / RATE) if times else part


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


def repeats(tokens: Sequence[int]) -> bool:
    """Whether a run of four tokens or more comes twice in a row, or a shorter one six times."""
    return any(
        tokens[i : i + size] == tokens[i + size : i + 2 * size]
        for size in range(4, len(tokens) // 2 + 1)
        for i in range(len(tokens) - 2 * size + 1)
    ) or len(cut_loop(tokens)) < len(tokens)


def cut_loop(tokens: Sequence[int]) -> list[int]:
    """``tokens`` up to where a run of four or more comes three times in a row; one is kept.

    A shorter run must come six times, since people do say "no, no, no".
    """
    for begin in range(len(tokens)):
        for size in range(1, (len(tokens) - begin) // 3 + 1):
            times = 3 if size > 3 else 6
            run = list(tokens[begin : begin + size])
            if list(tokens[begin : begin + size * times]) == run * times:
                return list(tokens[: begin + size])
    return list(tokens)


def _frames(seconds: float) -> int:
    """Mel frames of a window; even, since the encoder halves them."""
    return min(_WINDOW, 2 * math.ceil(seconds * _FRAMES_PER_SECOND / 2))
