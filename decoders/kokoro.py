"""Kokoro-82M: voices for Chinese, English and, where espeak-ng is installed, other languages."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from decoders.speech import (
    SAMPLE_RATE,
    WARM_UP,
    Finish,
    check_speed,
    chunks,
    pause_after,
    silence,
    trim,
)
from decoders.spoken_zh import spoken_chinese
from decoders.voices import split_phonemes
from omni.errors import InputError, MissingExtraError, WeightsError
from omni.types import AudioChunk, Capabilities, Clause, Pcm

DATA = Path(__file__).with_name("data")
_LONGEST = 500  # phonemes; the style table has one row for each length up to 510

# The first letter of a voice's name is its language; the first voice of a language is its default.
_LANGUAGES = {
    "a": "en", "b": "en", "z": "zh", "e": "es", "f": "fr", "i": "it", "p": "pt", "h": "hi",
}  # fmt: skip
_ESPEAK = {"es": "es", "fr": "fr-fr", "it": "it", "pt": "pt-br", "hi": "hi"}
_WIDE = re.compile(r"[\u4e00-\u9fff]+")

Phonemizer = Callable[[str], str]


class KokoroVoice:
    """Speech from Kokoro-82M (ONNX), slower than hibari: about as fast as it is spoken on 2 cores.

    Nothing is loaded before the first clause or ``warm_up``, when ``weights`` is asked for the
    model file. ``english`` turns English into phonemes: for English voices and for English words
    in Chinese; without it English is not spoken.
    """

    @dataclass(frozen=True)
    class Config:
        """Options of ``KokoroVoice``."""

        threads: int = 2
        finish: Finish = field(default_factory=Finish)

    def __init__(
        self,
        weights: Callable[[], Path] | Path,
        *,
        english: Phonemizer | None = None,
        voices: Path = DATA / "kokoro_voices.safetensors",
        vocabulary: Path = DATA / "kokoro_vocab.json",
        config: Config | None = None,
    ) -> None:
        self._weights = weights
        self._english = english
        self._voices_path = voices
        self._vocabulary: dict[str, int] = json.loads(vocabulary.read_text(encoding="utf-8"))
        self._config = config or self.Config()
        self._g2p: dict[str, Phonemizer] = {}
        self._by_language: dict[str, list[str]] = {}
        for name in _voice_names(voices):
            language = _LANGUAGES.get(name[0])
            if language is not None and self._can_read(language):
                self._by_language.setdefault(language, []).append(name)
        self.capabilities = Capabilities(
            inputs=frozenset({"text"}),
            outputs=frozenset({"audio"}),
            sample_rate=SAMPLE_RATE,
            languages=frozenset(self._by_language),
            voices=tuple(name for names in self._by_language.values() for name in names),
            streaming=True,
        )

    def speaks(self, language: str, voice: str | None = None) -> bool:
        """Whether it knows ``language``, with ``voice`` where one is wanted."""
        names = self._by_language.get(language, [])
        return bool(names) if voice is None else voice in names

    def speak(
        self, clause: Clause, *, voice: str | None = None, speed: float = 1.0
    ) -> Iterator[AudioChunk]:
        """Sound for one clause; nothing where there is nothing to say.

        Raises InputError when it does not speak the clause's language with ``voice``.
        """
        check_speed(speed)
        if not self.speaks(clause.language, voice):
            names = ", ".join(self._by_language.get(clause.language, [])) or "none"
            raise InputError(
                f"the voice {voice or 'of Kokoro'} does not speak {clause.language!r}; "
                f"voices that do: {names}",
                param="voice",
            )
        name = voice or self._by_language[clause.language][0]
        return chunks(self._parts(clause, name, speed), self._config.finish.piece)

    def warm_up(self, language: str = "zh") -> None:
        """Load the model and the dictionaries of ``language``, and run them once (seconds)."""
        for _ in self.speak(Clause(WARM_UP.get(language, "OK 1."), language)):
            pass

    def phonemes(self, text: str, language: str) -> str:
        """Phonemes of ``text`` in Kokoro's alphabet."""
        if language not in self._g2p:
            self._g2p[language] = self._load_g2p(language)
        return self._g2p[language](text).strip()

    def _parts(self, clause: Clause, name: str, speed: float) -> Iterator[Pcm]:
        if not any(c.isalnum() for c in clause.text):
            return
        pieces = split_phonemes(self.phonemes(clause.text, clause.language), _LONGEST)
        for piece in pieces:
            ids = [self._vocabulary[c] for c in piece if c in self._vocabulary]
            if not ids:
                continue
            style = self._styles[name]
            raw = self._session.run(
                None,
                {
                    "tokens": np.array([[0, *ids, 0]], np.int64),
                    "style": style[min(len(ids), len(style)) - 1][None].astype(np.float32),
                    "speed": np.array([speed], np.float32),
                },
            )[0]
            sound = trim(np.asarray(raw, np.float32).ravel(), self._config.finish)
            if len(sound):
                yield sound
                yield silence(pause_after(clause.text if piece is pieces[-1] else piece) / speed)

    # -- loading ------------------------------------------------------------------------------

    @cached_property
    def _session(self) -> Any:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self._config.threads
        options.inter_op_num_threads = 1
        # Threads that spin after their work is done slow what comes next on the same cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        path = self._weights() if callable(self._weights) else self._weights
        try:
            return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise WeightsError(
                f"{path} is not a Kokoro model that ONNX Runtime can load: {error}; "
                "remove the file so that it is downloaded again"
            ) from error

    @cached_property
    def _styles(self) -> dict[str, Any]:
        from safetensors.numpy import load_file

        return dict(load_file(self._voices_path))

    def _can_read(self, language: str) -> bool:
        if language == "en":
            return self._english is not None
        return language == "zh" or espeak_library() is not None

    def _load_g2p(self, language: str) -> Phonemizer:
        if language == "zh":
            return _chinese(self._english)
        if language == "en" and self._english is not None:
            return self._english
        return _espeak(_ESPEAK[language])


def _voice_names(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        names = list(file.keys())
    # The voice of each language that sounds best comes first.
    favourites = ("af_heart", "zf_xiaoxiao")
    return sorted(names, key=lambda name: (name not in favourites, name))


def _chinese(english: Phonemizer | None) -> Phonemizer:
    """Read by misaki's phonemes for Kokoro v1.0, word by word; English words by ``english``."""
    import jieba

    from omni.weights import home

    jieba.setLogLevel(logging.WARNING)
    # Its default is the folder for temporary files, where others could put a dictionary of theirs.
    folder = home() / "jieba"
    folder.mkdir(parents=True, exist_ok=True)
    jieba.dt.tmp_dir = str(folder)
    from misaki.zh import ZHG2P

    def words(match: re.Match[str]) -> str:
        return " ".join(ZHG2P.word2ipa(word) for word in jieba.lcut(match[0]))

    def read(text: str) -> str:
        text = ZHG2P.map_punctuation(spoken_chinese(text))
        pieces = re.split(r"([A-Za-z][A-Za-z '’\-]*)", text)
        for i, piece in enumerate(pieces):
            if i % 2:
                pieces[i] = f" {english(piece.strip())} " if english else " "
            else:
                pieces[i] = _WIDE.sub(words, piece).replace("\u032f", "")
        return re.sub(r"\s+", " ", "".join(pieces))

    return read


def espeak_library() -> tuple[str, str | None] | None:
    """Find espeak-ng: (library, data folder) of the extra's package, or the system's library.

    None where phonemizer, which calls it, or espeak-ng itself is not installed.
    """
    if find_spec("phonemizer") is None:
        return None
    if find_spec("espeakng_loader") is not None:
        loader = import_module("espeakng_loader")
        return loader.get_library_path(), loader.get_data_path()
    system = find_library("espeak-ng")
    return (system, None) if system else None


def _espeak(language: str) -> Phonemizer:
    found = espeak_library()
    if found is None:
        raise MissingExtraError(
            "this language needs espeak-ng; run: pip install 'omni-assistant[languages]'"
        )
    wrapper = import_module("phonemizer.backend.espeak.wrapper").EspeakWrapper
    library, data = found
    wrapper.set_library(library)
    if data is not None:
        wrapper.set_data_path(data)
    backend = import_module("phonemizer.backend").EspeakBackend(
        language=language,
        preserve_punctuation=True,
        with_stress=True,
        tie="^",
        language_switch="remove-flags",
    )

    def read(text: str) -> str:
        text = text.replace("«", "“").replace("»", "”").replace("¿", "").replace("¡", "")
        lines = backend.phonemize([text])
        return _kokoro_alphabet(lines[0]) if lines else ""

    return read


# espeak's tied sounds are one letter in Kokoro's alphabet (as in misaki's EspeakG2P).
_TIED = {
    "a^ɪ": "I", "a^ʊ": "W", "d^z": "ʣ", "d^ʒ": "ʤ", "e^ɪ": "A", "o^ʊ": "O", "ə^ʊ": "Q", "s^s": "S",
    "t^s": "ʦ", "t^ʃ": "ʧ", "ɔ^ɪ": "Y",
}  # fmt: skip


def _kokoro_alphabet(phonemes: str) -> str:
    for tied, letter in _TIED.items():
        phonemes = phonemes.replace(tied, letter)
    return phonemes.replace("^", "").replace("-", "")
