from pathlib import Path

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from encoders.media import read_audio
from encoders.mel import HOP, MelStream, whisper_mel

SPEECH = Path(__file__).parents[1] / "data" / "speech"


@pytest.fixture(scope="module")
def pcm() -> np.ndarray:
    return read_audio(SPEECH / "france_slt.flac").pcm


def test_it_equals_the_extractor_of_transformers(pcm) -> None:
    expected = WhisperFeatureExtractor()(pcm, sampling_rate=16000, return_tensors="np")
    np.testing.assert_allclose(whisper_mel(pcm, 3000), expected.input_features[0], atol=2e-4)


def test_a_full_window_equals_the_extractor_of_transformers() -> None:
    noise = np.random.default_rng(0).standard_normal(8 * 16000).astype(np.float32)
    extractor = WhisperFeatureExtractor(chunk_length=8)
    expected = extractor(noise, sampling_rate=16000, return_tensors="np").input_features[0]
    np.testing.assert_allclose(whisper_mel(noise, 800), expected, atol=2e-4)


@pytest.mark.parametrize("size", [1, 37, 160, 512, 3000, 10**6])
def test_streamed_equals_offline_whatever_the_pieces(pcm, size) -> None:
    pcm = pcm[:9000]
    stream = MelStream()
    for begin in range(0, len(pcm), size):
        stream.feed(pcm[begin : begin + size])
    np.testing.assert_allclose(stream.read(200), whisper_mel(pcm, 200), atol=1e-5)


def test_reading_in_between_changes_nothing(pcm) -> None:
    stream = MelStream()
    for begin in range(0, len(pcm), 1000):
        stream.feed(pcm[begin : begin + 1000])
        whole = whisper_mel(pcm[: begin + 1000], 600)
        np.testing.assert_allclose(stream.read(600), whole, atol=1e-5)


@pytest.mark.parametrize("length", [0, 1, 100, 200, 201, 359, 360])
def test_very_short_sound_equals_offline(pcm, length) -> None:
    stream = MelStream()
    stream.feed(pcm[5000 : 5000 + length])
    expected = whisper_mel(pcm[5000 : 5000 + length], 100)
    np.testing.assert_allclose(stream.read(100), expected, atol=1e-5)


def test_a_cropped_stream_equals_one_that_began_there(pcm) -> None:
    stream = MelStream()
    stream.feed(pcm[:20000])
    assert stream.crop(5000) == 5000 // HOP * HOP
    stream.feed(pcm[20000:])
    rest = pcm[5000 // HOP * HOP :]
    np.testing.assert_array_equal(stream.pcm, rest)
    np.testing.assert_allclose(stream.read(400), whisper_mel(rest, 400), atol=1e-5)


def test_a_reset_stream_is_as_new(pcm) -> None:
    stream = MelStream()
    stream.feed(pcm)
    stream.reset()
    assert stream.seconds == 0
    stream.feed(pcm[:4000])
    np.testing.assert_allclose(stream.read(100), whisper_mel(pcm[:4000], 100), atol=1e-5)
