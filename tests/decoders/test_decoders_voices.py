import json
import subprocess
import sys

import numpy as np
import pytest

from decoders import kokoro
from decoders.kokoro import DATA, KokoroVoice
from decoders.speech import SAMPLE_RATE, pause_after
from decoders.voices import HibariVoice, split_phonemes
from omni.errors import InputError, WeightsError
from omni.types import Clause


@pytest.fixture(scope="module")
def hibari():
    return HibariVoice(HibariVoice.Config(threads=1))


def sound(voice, text, language="en", **options):
    parts = [c.pcm for c in voice.speak(Clause(text, language), **options)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def test_a_sentence_is_spoken_without_the_silence_that_hibari_begins_with(hibari):
    text = "The capital of France is Paris."
    pcm = sound(hibari, text)
    assert pcm.dtype == np.float32
    assert 1.3 < len(pcm) / SAMPLE_RATE < 2.6
    first_loud = np.flatnonzero(np.abs(pcm) > 0.012)[0] / SAMPLE_RATE
    assert first_loud < 0.05
    pause = round(pause_after(text) * SAMPLE_RATE)
    assert not pcm[-pause:].any()
    assert 0.05 < np.abs(pcm).max() <= 1


@pytest.mark.parametrize("text", ["", "...", "😀", "—", " \n", "?!", "“”"])
def test_a_clause_without_words_gives_no_sound_and_no_error(hibari, text):
    assert len(sound(hibari, text)) == 0


def test_numbers_and_signs_are_spoken(hibari):
    assert len(sound(hibari, "5 × 6 = 30")) > SAMPLE_RATE


def test_faster_speech_is_shorter(hibari):
    slow, fast = (len(sound(hibari, "Please read this out.", speed=s)) for s in (0.8, 1.6))
    assert fast < 0.75 * slow


def test_the_same_clause_sounds_the_same_twice(hibari):
    np.testing.assert_array_equal(sound(hibari, "Hello there."), sound(hibari, "Hello there."))


def test_a_very_long_clause_is_spoken_whole(hibari):
    text = " ".join(["the quick brown fox jumps over the lazy dog"] * 20)
    assert len(hibari.phonemes(text)) > 800
    assert len(sound(hibari, text)) / SAMPLE_RATE > 35


def test_hibari_speaks_english_only(hibari):
    assert hibari.speaks("en")
    assert hibari.speaks("en", "heart")
    assert not hibari.speaks("en", "zf_xiaoxiao")
    assert not hibari.speaks("zh")


def test_long_phoneme_strings_are_cut_at_punctuation():
    phonemes = "aaa bbb, ccc ddd. eee fff"
    assert split_phonemes(phonemes, 18) == ["aaa bbb, ccc ddd.", "eee fff"]
    assert split_phonemes("a" * 25, 10) == ["a" * 10, "a" * 10, "a" * 5]
    assert split_phonemes("", 10) == []
    pieces = split_phonemes("ab cd " * 50, 40)
    assert all(len(p) <= 40 for p in pieces)
    assert " ".join(pieces).split() == ["ab", "cd"] * 50


# -- Kokoro, as far as it goes without its weights ------------------------------------------


def never():
    raise AssertionError("the weights were asked for")


def test_kokoro_does_not_ask_for_its_weights_before_it_speaks():
    voice = KokoroVoice(never)
    assert voice.speaks("zh")
    assert voice.speaks("zh", "zm_yunxi")
    assert not voice.speaks("zh", "af_heart")
    assert sound(voice, "😀。", "zh").size == 0
    with pytest.raises(AssertionError, match="asked for"):
        sound(voice, "你好。", "zh")


def test_kokoro_speaks_english_only_with_english_phonemes(hibari):
    assert not KokoroVoice(never).speaks("en")
    assert KokoroVoice(never, english=hibari.phonemes).speaks("en", "af_heart")


def test_other_languages_are_not_spoken_without_espeak(monkeypatch):
    monkeypatch.setattr(kokoro, "espeak_library", lambda: None)
    voice = KokoroVoice(never)
    assert voice.capabilities.languages == {"zh"}
    assert not voice.speaks("es")
    with pytest.raises(InputError, match="'es'"):
        voice.speak(Clause("Hola", "es"))


def test_other_languages_are_spoken_with_espeak(monkeypatch):
    monkeypatch.setattr(kokoro, "espeak_library", lambda: ("libespeak-ng.so", None))
    voice = KokoroVoice(never)
    assert {"es", "fr", "it", "pt", "hi", "zh"} == voice.capabilities.languages
    assert voice.speaks("fr", "ff_siwis")


def test_chinese_phonemes_are_in_kokoros_alphabet(hibari):
    voice = KokoroVoice(never, english=hibari.phonemes)
    phonemes = voice.phonemes("法国的首都是巴黎，我用Python。", "zh")
    assert phonemes.startswith("fa↓kwo↗ tɤ ʂou↓tu→ ʂɨ↘ pa→li↗,")
    assert "pˈIθˌɑn" in phonemes
    vocabulary = json.loads((DATA / "kokoro_vocab.json").read_text(encoding="utf-8"))
    assert set(phonemes) <= set(vocabulary)


def test_every_voice_has_a_style_for_each_length():
    voice = KokoroVoice(never)
    assert {style.shape for style in voice._styles.values()} == {(510, 256)}


def test_a_broken_model_file_is_named(tmp_path):
    path = tmp_path / "kokoro.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(WeightsError, match=r"kokoro\.onnx"):
        sound(KokoroVoice(path), "你好。", "zh")


def test_importing_the_decoders_loads_no_model_and_no_torch():
    code = (
        "import sys, decoders.text, decoders.clauses, decoders.speech, decoders.voices,"
        "decoders.kokoro; print([m for m in ('torch', 'hibari', 'onnxruntime', 'jieba', 'lingua',"
        "'misaki', 'phonemizer') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
