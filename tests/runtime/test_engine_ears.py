import re
from difflib import SequenceMatcher

import numpy as np
import pytest

from encoders.audio import WhisperEncoder
from encoders.media import Resampler, read_audio
from encoders.vad import SileroVad
from fakes import Running
from omni import events as ev
from omni.types import AudioChunk
from omni.weights import ensure
from runtime.formats import WireFormat
from runtime.turns import SpeechStopped, TurnDetection, TurnTaker
from support import DATA

SERVER_VAD = TurnDetection(kind="server_vad")


class Ears:
    """An engine with real ears; says what turns it heard and what was said in them."""

    def __init__(self, running: Running) -> None:
        self.running = running

    def turns(self, pcm, rate=16_000, kind=None, pause=1.0):
        """The words of every turn in ``pcm``, which comes in pieces of 20 ms."""
        silence = np.zeros(int(pause * rate), np.float32)
        pcm = np.concatenate([pcm, silence])
        running, taker, turns, size = self.running, TurnTaker(SERVER_VAD), [], rate // 50
        running.open("ears")
        for begin in range(0, len(pcm), size):
            chunk = AudioChunk(pcm[begin : begin + size], rate)
            running.engine.submit("ears", ev.Append(chunk, kind))
        heard = 0.0
        while heard < len(pcm) / rate - 0.2:  # the resampler holds some back
            event = running.until("ears", ev.VoiceActivity)[-1]
            first = event.end - (len(event.probabilities) - 1) * event.step
            for index, probability in enumerate(event.probabilities):
                heard = first + index * event.step
                turns += taker.feed(probability, heard, event.step)
        spoken = [turn for turn in turns if isinstance(turn, SpeechStopped)]
        said = []
        for turn in spoken:
            running.engine.submit("ears", ev.Transcribe("k", turn.start, turn.end))
            said.append(running.until("ears", ev.Transcribed)[-1].transcript.text)
        running.engine.release("ears")
        return spoken, said


@pytest.fixture(scope="module")
def real_vad():
    return SileroVad()


@pytest.fixture
def ears(real_vad):
    with Running(real={"vad": real_vad}) as running:
        yield Ears(running)


def speech(name):
    return read_audio(DATA / "speech" / f"{name}.flac").pcm


def noisy(pcm, snr, seed=0):
    """``pcm`` with a second of noise before it and noise all over it."""
    pcm = np.concatenate([np.zeros(16_000, np.float32), pcm, np.zeros(16_000, np.float32)])
    loudness = np.sqrt(np.mean(pcm[np.abs(pcm) > 0.01] ** 2)) * 10 ** (-snr / 20)
    return (pcm + np.random.default_rng(seed).normal(0, loudness, len(pcm))).astype(np.float32)


@pytest.mark.parametrize("kind", ["near_field", "far_field"])
def test_a_turn_stands_at_the_same_place_with_noise_reduction(ears, kind):
    pcm = np.concatenate([np.zeros(32_000, np.float32), speech("planet_emma")])
    (plain,), _ = ears.turns(pcm)
    (reduced,), _ = ears.turns(pcm, kind=kind)
    assert reduced.start == pytest.approx(plain.start, abs=0.1)
    assert reduced.end == pytest.approx(plain.end, abs=0.15)


@pytest.fixture(scope="module")
def whisper():
    return WhisperEncoder(ensure("whisper-base"))


@pytest.fixture
def listening(real_vad, whisper):
    with Running(real={"vad": real_vad, "hearing": whisper}) as running:
        yield Ears(running)


QUESTIONS = {
    "france_michael": "what is the capital of france",
    "sky_adam": "why is the sky blue",
    "picture_emma": "what do you see in this picture",
}


def wrong_words(said, expected):
    heard = re.findall(r"[a-z]+", " ".join(said).lower())
    return len(expected.split()) - sum(
        block.size for block in SequenceMatcher(a=heard, b=expected.split()).get_matching_blocks()
    )


@pytest.mark.e2e
def test_a_question_in_noise_is_understood_with_noise_reduction_as_well_as_without(listening):
    wrong = {kind: 0 for kind in (None, "far_field")}
    for kind in wrong:
        for name, text in QUESTIONS.items():
            turns, said = listening.turns(noisy(speech(name), snr=10), kind=kind)
            assert len(turns) == 1
            wrong[kind] += wrong_words(said, text)
    assert wrong["far_field"] <= wrong[None]
    assert wrong["far_field"] <= 3


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["audio/pcmu", "audio/pcma"])
def test_a_question_over_the_telephone_is_understood(listening, name):
    wire = WireFormat.of({"type": name})
    down = Resampler(16_000, wire.rate)
    for clip, text in QUESTIONS.items():
        pcm = np.concatenate([down.feed(speech(clip)), down.flush()])
        chunk = wire.decode(wire.encode(AudioChunk(pcm, wire.rate)))
        turns, said = listening.turns(chunk.pcm, wire.rate, kind="near_field")
        assert len(turns) == 1
        assert wrong_words(said, text) == 0
