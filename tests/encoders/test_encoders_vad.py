import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from encoders.media import read_audio
from encoders.segment import quietest, speech_pieces
from encoders.vad import FRAME, SileroVad

SPEECH = Path(__file__).parents[1] / "data" / "speech"


@pytest.fixture(scope="module")
def vad() -> SileroVad:
    return SileroVad()


@pytest.fixture(scope="module")
def pcm() -> np.ndarray:
    return read_audio(SPEECH / "planet_emma.flac").pcm


def test_speech_is_likely_where_somebody_speaks(vad, pcm) -> None:
    probabilities = vad.stream().feed(pcm)
    assert len(probabilities) == len(pcm) // FRAME
    assert np.mean(np.array(probabilities) > 0.5) > 0.7


def test_silence_and_noise_are_no_speech(vad) -> None:
    noise = np.random.default_rng(0).standard_normal(32000).astype(np.float32)
    for sound in (np.zeros(32000, np.float32), 0.01 * noise, 0.2 * noise):
        assert max(vad.stream().feed(sound)) < 0.3


@pytest.mark.parametrize("size", [1, 160, 511, 512, 513, 4096])
def test_streamed_equals_offline_whatever_the_pieces(vad, pcm, size) -> None:
    pcm = pcm[:8000]
    stream = vad.stream()
    streamed = [p for i in range(0, len(pcm), size) for p in stream.feed(pcm[i : i + size])]
    np.testing.assert_allclose(streamed, vad.stream().feed(pcm), atol=1e-6)


def test_a_reset_stream_is_as_new(vad, pcm) -> None:
    stream = vad.stream()
    stream.feed(pcm[:20001])
    stream.reset()
    np.testing.assert_allclose(stream.feed(pcm), vad.stream().feed(pcm), atol=1e-6)


def test_it_works_without_importing_torch() -> None:
    code = (
        "import sys; from encoders.vad import SileroVad; SileroVad(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_long_sound_is_cut_in_pauses_and_no_speech_is_lost(vad, pcm) -> None:
    pause = np.zeros(16000, np.float32)
    sound = np.concatenate([pause, pcm, pause, pcm, pause, pcm, pause])
    pieces = list(speech_pieces(np.split(sound, [100, 50000]), vad.stream(), 10.0))
    assert len(pieces) >= 2
    covered = np.zeros(len(sound), bool)
    for piece in pieces:
        assert piece.seconds <= 10.0
        np.testing.assert_array_equal(piece.pcm, sound[piece.start : piece.start + len(piece.pcm)])
        assert not covered[piece.start : piece.start + len(piece.pcm)].any()
        covered[piece.start : piece.start + len(piece.pcm)] = True
    # What was left out is silent.
    assert np.abs(sound[~covered]).max() < 0.02


def test_speech_without_any_pause_is_cut_all_the_same(vad, pcm) -> None:
    speech = pcm[4000:-6000]
    sound = np.concatenate([speech] * 6)
    pieces = list(speech_pieces([sound], vad.stream(), 5.0))
    assert max(piece.seconds for piece in pieces) <= 5.0
    assert sum(len(piece.pcm) for piece in pieces) > 0.97 * len(sound)


def test_silence_gives_no_pieces(vad) -> None:
    assert list(speech_pieces([np.zeros(16000 * 30, np.float32)], vad.stream())) == []


def test_the_quietest_place_is_in_the_middle_of_the_longest_lull() -> None:
    levels = np.ones(200, np.float32)
    levels[20:60] = 0  # before the range
    levels[120:140] = 0
    assert quietest(levels, 100, 200, 20) == 130
