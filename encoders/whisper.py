"""One pass of Whisper through CTranslate2: windows of sound -> tokens with their times."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from encoders.ear import STATE, Ear
from encoders.mel import Mel
from omni.errors import InputError, WeightsError


@dataclass(frozen=True, slots=True)
class Window:
    """What one pass reads: ``mel`` (80, frames), speech and silence behind it.

    The first ``spoken`` frames hold the speech. At most ``cap`` tokens are decoded. Without
    ``language`` it is detected, and an unsure guess gives way to ``fallback``. With ``times`` the
    tokens are aligned with the sound.
    """

    mel: Mel
    spoken: int
    cap: int
    language: str | None = None
    fallback: str | None = None
    times: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one pass heard.

    ``probability``: of the tokens, their mean; ``no_speech``: that nobody spoke; ``sure``: whether
    the language was given or surely detected; ``whole``: the end was found, and no loop.
    ``starts``: seconds at which each token begins and the last one ends; ``likely``: how likely
    each is. ``spell`` makes text of tokens.
    """

    tokens: list[int]
    probability: float
    no_speech: float
    language: str
    sure: bool
    whole: bool
    starts: list[float]
    likely: list[float]
    spell: Callable[[list[int]], str]

    @property
    def text(self) -> str:
        """What was heard."""
        return self.spell(self.tokens).strip()


class Whisper:
    """The model and its vocabulary; any thread may call it, ``workers`` of them at a time.

    A language is detected among ``allowed`` (empty: all that it knows), and believed from the
    probability ``sure`` on. With an ``ear`` the languages that it knows are heard by it, from the
    states of the encoder alone.
    """

    def __init__(
        self,
        path: Path,
        *,
        compute_type: str,
        threads: int,
        workers: int,
        allowed: Collection[str],
        sure: float,
        ear: Ear | None = None,
    ) -> None:
        try:
            self._model = ctranslate2.models.Whisper(
                str(path), compute_type=compute_type, intra_threads=threads, inter_threads=workers
            )
            self._tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        except Exception as error:  # both raise bare RuntimeError and Exception
            raise WeightsError(
                f"{path} does not hold a Whisper model in CTranslate2's format ({error}); "
                "expected model.bin, config.json, tokenizer.json and vocabulary.txt"
            ) from error
        self._spell: Callable[[list[int]], str] = self._tokenizer.decode
        self._ear = ear
        self.direct = ear.languages if ear is not None else frozenset[str]()
        """Languages that need no decoder, and so no silence behind the speech."""
        self._start = self._token("<|startoftranscript|>")
        self._task = [self._token("<|transcribe|>"), self._token("<|notimestamps|>")]
        first, after = self._start + 1, self._token("<|translate|>")
        names = (self._tokenizer.id_to_token(i) for i in range(first, after))
        self.languages = {n.strip("<|>"): first + i for i, n in enumerate(names) if n}
        unknown = set(allowed) - self.languages.keys()
        if unknown:
            raise InputError(f"unknown languages {sorted(unknown)}", param="languages")
        self._allowed, self._sure = allowed or self.languages.keys(), sure

    def _token(self, name: str) -> int:
        token: int | None = self._tokenizer.token_to_id(name)
        if token is None:
            raise WeightsError(f"the tokenizer has no {name}; it is not that of Whisper")
        return token

    def states(self, mel: Mel) -> NDArray[np.float32]:
        """The encoder's last states (frames / 2, width) for ``mel`` (80, frames)."""
        mel = np.ascontiguousarray(mel[None])
        encoded = self._model.encode(ctranslate2.StorageView.from_array(mel), to_cpu=True)
        states: NDArray[np.float32] = np.asarray(encoded)[0]
        return states

    def attempt(self, windows: Sequence[Window]) -> list[Attempt]:
        """Hear ``windows``, all of the same length."""
        # One by one the encoder's activations stay in the processor's caches; the decoder's
        # weights are what it waits for, so that one takes all at once.
        each = [
            self._model.encode(ctranslate2.StorageView.from_array(window.mel[None]))
            for window in windows
        ]
        encoded = each[0]
        if len(each) > 1:
            joined = np.concatenate([np.asarray(one) for one in each])
            encoded = ctranslate2.StorageView.from_array(joined)
        languages = [(window.language or "", 1.0) for window in windows]
        if not all(window.language for window in windows):
            found = self._detect(encoded)
            languages = [
                (window.language, 1.0) if window.language else guess
                for window, guess in zip(windows, found, strict=True)
            ]
        codes = [
            window.fallback if window.fallback and sure < self._sure else code
            for window, (code, sure) in zip(windows, languages, strict=True)
        ]
        attempts: list[Attempt | None] = [None] * len(windows)
        for i, (window, code, (_, sure)) in enumerate(zip(windows, codes, languages, strict=True)):
            if code in self.direct:
                attempts[i] = self._listen(np.asarray(each[i])[0], window, code, sure)
        rest = [i for i, attempt in enumerate(attempts) if attempt is None]
        if rest:
            if len(rest) < len(windows):
                joined = np.concatenate([np.asarray(each[i]) for i in rest])
                encoded = ctranslate2.StorageView.from_array(joined)
            asked = [(windows[i], codes[i], languages[i][1]) for i in rest]
            for i, attempt in zip(rest, self._write(encoded, asked), strict=True):
                attempts[i] = attempt
        return [attempt for attempt in attempts if attempt is not None]

    def _listen(
        self, states: NDArray[np.float32], window: Window, code: str, sure: float
    ) -> Attempt:
        assert self._ear is not None
        spoken = math.ceil(window.spoken / 2)
        heard = self._ear.hear(states[:spoken])
        return Attempt(
            heard.units,
            sum(heard.likely) / len(heard.likely) if heard.likely else 0.0,
            0.0 if heard.units else 1.0,
            code,
            sure >= self._sure,
            True,
            [*heard.starts, spoken * STATE] if window.times else [],
            heard.likely if window.times else [],
            self._ear.text,
        )

    def _write(self, encoded: Any, asked: Sequence[tuple[Window, str, float]]) -> list[Attempt]:
        """By the decoder: windows with their languages and how sure these are."""
        windows = [window for window, _, _ in asked]
        results = self._model.generate(
            encoded,
            [[self._start, self.languages[code], *self._task] for _, code, _ in asked],
            beam_size=1,
            # CTranslate2 takes half of it for the prompt.
            max_length=2 * max(window.cap for window in windows),
            return_scores=True,
            return_no_speech_prob=True,
        )
        attempts = []
        for (window, code, sure), result in zip(asked, results, strict=True):
            tokens: list[int] = result.sequences_ids[0]
            # The score is a mean over the tokens without the end mark that it includes.
            mean = result.scores[0] * len(tokens) / (len(tokens) + 1)
            tokens = tokens[: window.cap]
            attempts.append(
                Attempt(
                    cut_loop(tokens),
                    min(1.0, math.exp(mean)),
                    float(result.no_speech_prob),
                    code,
                    sure >= self._sure,
                    len(tokens) < window.cap and not repeats(tokens),
                    [],
                    [],
                    self._spell,
                )
            )
        self._align(encoded, windows, attempts)
        return attempts

    def _detect(self, encoded: Any) -> list[tuple[str, float]]:
        """The likeliest language of each, and how likely it is."""
        return [
            max(
                ((n.strip("<|>"), p) for n, p in found if n.strip("<|>") in self._allowed),
                key=lambda guess: guess[1],
            )
            for found in self._model.detect_language(encoded)
        ]

    def _align(self, encoded: Any, windows: Sequence[Window], attempts: Sequence[Attempt]) -> None:
        """Fill in the times, read from the cross-attention (DTW)."""
        wanted = [i for i, window in enumerate(windows) if window.times and attempts[i].tokens]
        for code in dict.fromkeys(attempts[i].language for i in wanted):
            rows = [i for i in wanted if attempts[i].language == code]
            taken = encoded
            if len(rows) < len(windows):
                taken = ctranslate2.StorageView.from_array(np.asarray(encoded)[rows])
            aligned = self._model.align(
                taken,
                [self._start, self.languages[code], *self._task],
                [attempts[i].tokens for i in rows],
                [windows[i].spoken for i in rows],
            )
            for i, found in zip(rows, aligned, strict=True):
                attempt = attempts[i]
                for token, position in found.alignments:
                    if token == len(attempt.starts):
                        attempt.starts.append(position * STATE)
                attempt.likely.extend(found.text_token_probs)


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
