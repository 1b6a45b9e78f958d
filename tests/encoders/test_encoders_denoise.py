import numpy as np
import pytest

from encoders.denoise import FRAME, DenoisedVad, Denoiser
from encoders.media import read_audio
from encoders.vad import SileroVad
from runtime.turns import SpeechStarted, TurnDetection, TurnTaker
from support import DATA

KINDS = ["near_field", "far_field"]


@pytest.fixture(scope="module")
def vad():
    return SileroVad()


@pytest.fixture(scope="module")
def speech():
    return read_audio(DATA / "speech" / "planet_emma.flac").pcm


def noise(seconds: float, loudness: float = 0.02) -> np.ndarray:
    samples = np.random.default_rng(1).normal(0, loudness, int(16_000 * seconds))
    return samples.astype(np.float32)


def fed(denoiser: Denoiser, pcm: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([denoiser.feed(pcm[i : i + size]) for i in range(0, len(pcm), size)])


def decibels(pcm: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(pcm.astype(np.float64) ** 2)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 100, 333, 16_000])
def test_sound_in_pieces_is_the_sound_at_once_and_nothing_is_lost(kind, size):
    pcm = noise(1.0)
    pieces = fed(Denoiser(kind), pcm, size)
    assert np.array_equal(pieces, Denoiser(kind).feed(pcm))
    assert 0 <= len(pcm) - len(pieces) < 2 * FRAME


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_out_stands_where_it_went_in(kind, speech):
    cleaned = fed(Denoiser(kind), speech, 512)
    shifts = range(-200, 201)
    middle = speech[1000 : len(cleaned) - 1000]
    likeness = [
        float(middle @ cleaned[1000 + shift : len(cleaned) - 1000 + shift]) for shift in shifts
    ]
    assert abs(shifts[int(np.argmax(likeness))]) <= 1


def test_steady_noise_gets_softer_the_further_the_microphone_and_speech_stays(speech):
    softer, spoken = {}, {}
    for kind in KINDS:
        pcm = noise(4.0)
        softer[kind] = decibels(pcm[48_000:]) - decibels(fed(Denoiser(kind), pcm, 512)[48_000:])
        spoken[kind] = decibels(speech) - decibels(fed(Denoiser(kind), speech, 512))
    assert 6 < softer["near_field"] < softer["far_field"] - 3
    assert all(abs(loss) < 3 for loss in spoken.values())


def test_a_reset_forgets_the_noise_and_what_waited():
    denoiser, pcm = Denoiser("far_field"), noise(1.0)
    first = denoiser.feed(pcm)
    denoiser.feed(pcm[:77])
    denoiser.reset()
    assert np.array_equal(denoiser.feed(pcm), first)


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_has_one_probability_at_most_one_frame_later(kind, vad, speech):
    plain, denoised = vad.stream(), DenoisedVad(kind, vad.stream())
    heard, both = [], []
    for i in range(0, len(speech), 480):
        probabilities = plain.feed(speech[i : i + 480])
        heard += probabilities
        both += denoised.feed(speech[i : i + 480], probabilities)
        assert len(heard) - len(both) <= 1
    both += denoised.flush()
    assert len(both) == len(heard)
    assert all(b <= h for b, h in zip(both, heard, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_speech_in_noise_is_still_heard_and_its_end_sooner(kind, vad, speech):
    pause = np.zeros(2 * 16_000, np.float32)
    clean = np.concatenate([pause, speech, pause])
    loudness = 0.6 * float(np.sqrt(np.mean(speech**2)))
    pcm = clean + noise(len(clean) / 16_000, loudness)[: len(clean)]
    heard = vad.stream().feed(pcm)
    denoised = DenoisedVad(kind, vad.stream())
    both = [*denoised.feed(pcm, heard), *denoised.flush()]

    def voiced(probabilities):
        return np.flatnonzero(np.array(probabilities) > 0.5)

    spoken = voiced(vad.stream().feed(clean))
    frames = 0.3 / 0.032
    assert spoken[0] <= voiced(both)[0] < spoken[0] + frames
    assert spoken[-1] - frames < voiced(both)[-1] <= voiced(heard)[-1]
    assert len(voiced(both)) > 0.8 * len(voiced(heard))


def test_soft_music_starts_fewer_turns(vad):
    # Bowed tones of a pentatonic scale at -45 dBFS, which the model takes for a voice.
    random, seconds, rate = np.random.default_rng(0), 60, 16_000
    pcm, at = np.zeros(seconds * rate), 0
    while at < len(pcm) - rate:
        length = int(rate * random.choice([0.2, 0.4, 0.6]))
        pitch = 220 * 2 ** (random.choice([0, 2, 4, 7, 9, 12, 14, 16]) / 12)
        time = np.arange(min(2 * length, len(pcm) - at)) / rate
        vibrato = time * (1 + 0.003 * np.sin(10 * np.pi * time))
        harmonics = (np.sin(2 * np.pi * pitch * k * vibrato) / k**1.2 for k in range(1, 10))
        pcm[at : at + len(time)] += sum(harmonics) * np.exp(-3 * time)
        at += length
    music = (pcm / np.std(pcm) * 10 ** (-45 / 20)).astype(np.float32)

    def turns(probabilities):
        taker = TurnTaker(TurnDetection(kind="server_vad"))
        events = [
            event
            for index, probability in enumerate(probabilities)
            for event in taker.feed(probability, 0.032 * (index + 1), 0.032)
        ]
        return sum(isinstance(event, SpeechStarted) for event in events)

    heard = vad.stream().feed(music)
    assert turns(heard) >= 2
    for kind in KINDS:
        denoised = DenoisedVad(kind, vad.stream())
        assert turns([*denoised.feed(music, heard), *denoised.flush()]) < turns(heard)
