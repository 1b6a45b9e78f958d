import numpy as np
import pytest

from decoders.kokoro import KokoroVoice
from decoders.voices import HibariVoice
from omni.types import Clause

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def english():
    return HibariVoice()


@pytest.fixture(scope="module")
def kokoro(english):
    from omni.weights import ensure

    return KokoroVoice(lambda: ensure("kokoro-82m"), english=english.phonemes)


@pytest.fixture(scope="module")
def hear():
    """Sound at 24 kHz -> what Whisper understands."""
    import ctranslate2
    import soxr
    from tokenizers import Tokenizer
    from transformers import WhisperFeatureExtractor

    from omni.weights import ensure

    folder = ensure("whisper-base")
    model = ctranslate2.models.Whisper(str(folder), compute_type="int8", intra_threads=2)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    features = WhisperFeatureExtractor()

    def transcribe(pcm, language):
        padded = np.concatenate([np.zeros(12_000, np.float32), pcm, np.zeros(12_000, np.float32)])
        mel = features(soxr.resample(padded, 24_000, 16_000), sampling_rate=16_000)
        names = ("<|startoftranscript|>", f"<|{language}|>", "<|transcribe|>", "<|notimestamps|>")
        prompt = [tokenizer.token_to_id(name) for name in names]
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel["input_features"]))
        result = model.generate(view, [prompt], beam_size=5)
        return tokenizer.decode(result[0].sequences_ids[0])

    return transcribe


def sound(decoder, clause, **options):
    return np.concatenate([chunk.pcm for chunk in decoder.speak(clause, **options)])


def test_kokoro_says_in_chinese_that_paris_is_the_capital(kokoro, hear):
    pcm = sound(kokoro, Clause("法国的首都是巴黎，它是一座美丽的城市。", "zh"))
    assert "巴黎" in hear(pcm, "zh")


def test_kokoro_speaks_english_with_a_chosen_voice(kokoro, hear):
    pcm = sound(kokoro, Clause("The capital of France is Paris."), voice="am_michael")
    assert "capital of France is Paris" in hear(pcm, "en")


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("I paid $5.50 for 2 1/2 cups of rice.", ["two and a half cups"]),
        ("The room is 100 m² large.", ["100 square meters"]),
        ("King Louis XIV was born in 1638.", ["Louis", "1638"]),
        ("Come to 5 Main St. on 2024-03-05.", ["Main Street", "March 5"]),
    ],
)
def test_hibari_says_numbers_and_signs_as_people_do(english, hear, text, heard):
    words = hear(sound(english, Clause(text)), "en").replace("2.5", "two and a half")
    assert all(part in words for part in heard), words
