"""Speakers: the network against its origin, and who speaks when, in tones and in speech."""

from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.media import read_audio
from encoders.speakers import (
    SpeakerEncoder,
    SpeakerStream,
    SpeakerTurn,
    _Clusters,
    label,
    resemblyzer_onnx,
    voice_mel,
)
from encoders.vad import onnx_session
from omni.errors import InputError, MediaError, WeightsError
from omni.types import AudioChunk, Segment, Transcript, Word
from omni.weights import ensure

RATE = 16000
SPEECH = Path(__file__).parent.parent / "data" / "speech"


def hum(seconds: float, pitch: float) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.1 * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * RATE), np.float32)


class LoudVad:
    """Every frame of 512 samples that is loud is speech."""

    def __init__(self) -> None:
        self.held = silence(0)

    def feed(self, pcm):
        held = np.concatenate([self.held, pcm])
        count = len(held) // 512
        self.held = held[count * 512 :]
        frames = held[: count * 512].reshape(count, 512)
        return [float(np.abs(frame).max() > 0.01) for frame in frames]


class Pitches:
    """A voice is the pitch it hums at."""

    def __init__(self, **options) -> None:
        self.config = SpeakerEncoder.Config(**options)

    def embed(self, mels):
        mean = np.sqrt(mels.mean(axis=1))
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def turns(*sound: np.ndarray, count=None, piece=4000, **options) -> list[SpeakerTurn]:
    stream = SpeakerStream(Pitches(**options), LoudVad())
    pcm = np.concatenate(sound)
    for begin in range(0, len(pcm), piece):
        stream.feed(AudioChunk(pcm[begin : begin + piece], RATE, begin))
    return stream.finish(count)


LOW, MID, HIGH = 150.0, 700.0, 2500.0


def who(found) -> str:
    return "".join(turn.speaker for turn in found)


def test_speakers_are_numbered_as_they_appear_and_come_back_under_their_number():
    found = turns(hum(3, HIGH), silence(0.5), hum(2, LOW), silence(0.5), hum(2, HIGH))
    assert who(found) == "121"
    for turn, (start, end) in zip(found, [(0, 3), (3.5, 5.5), (6, 8)], strict=True):
        assert turn.start == pytest.approx(start, abs=0.05)
        assert turn.end == pytest.approx(end, abs=0.05)


def test_a_change_without_a_pause_is_found_near_where_it_is():
    first, second = turns(hum(4, LOW), hum(4, HIGH))
    assert first.end == second.start == pytest.approx(4, abs=0.4)


def test_pauses_of_one_speaker_are_one_turn_and_long_ones_end_it():
    found = turns(hum(2, LOW), silence(0.6), hum(2, LOW), silence(3), hum(2, LOW))
    assert [turn.speaker for turn in found] == ["1", "1"]
    assert found[0].end == pytest.approx(4.6, abs=0.05)


def test_the_pieces_that_sound_comes_in_do_not_matter():
    sound = [hum(3, LOW), silence(0.7), hum(25, HIGH), silence(0.4), hum(0.8, MID), hum(3, LOW)]
    whole = turns(*sound, piece=10**9)
    assert whole == turns(*sound, piece=777)


def test_as_many_speakers_as_are_asked_for():
    sound = [hum(4, LOW), silence(0.5), hum(4, MID), silence(0.5), hum(4, HIGH)]
    assert who(turns(*sound)) == "123"
    assert len(set(who(turns(*sound, count=2)))) == 2
    assert set(who(turns(*sound, count=1))) == {"1"}
    assert set(who(turns(hum(6, LOW), count=2))) <= {"1", "2"}


def test_a_short_sound_of_another_kind_makes_no_speaker():
    found = turns(hum(5, LOW), silence(0.5), hum(0.7, MID), silence(0.5), hum(5, HIGH))
    assert set(who(found)) == {"1", "2"}


def test_where_nobody_speaks_there_are_no_turns():
    assert turns(silence(5)) == []
    assert turns(silence(0)) == []
    assert who(turns(hum(0.5, LOW))) == "1"


def test_hours_are_clustered_in_bounded_memory():
    rng = np.random.default_rng(0)
    voices = np.eye(3, 16, dtype=np.float32)
    clusters = _Clusters()
    for _ in range(200):
        near = voices[rng.integers(3, size=32)] + rng.normal(0, 0.1, (32, 16))
        near /= np.linalg.norm(near, axis=1, keepdims=True)
        clusters.add(near.astype(np.float32), np.full(32, 0.4, np.float32))
        assert len(clusters._sizes) <= 1000
    centres = clusters.centres(0.67, 1.0, None)
    assert sorted((centres @ voices.T).argmax(axis=1)) == [0, 1, 2]
    assert (centres @ voices.T).max(axis=1).min() > 0.99


def test_wrong_sound_and_wrong_counts_are_refused():
    stream = SpeakerStream(Pitches(), LoudVad())
    with pytest.raises(MediaError, match="24000 Hz"):
        stream.feed(AudioChunk(hum(1, LOW), 24000))
    with pytest.raises(MediaError, match=r"\(2, 100\)"):
        stream.feed(AudioChunk(np.zeros((2, 100), np.float32), RATE))
    with pytest.raises(InputError, match="0 speakers"):
        stream.finish(0)


def test_words_and_segments_get_their_speaker():
    words = (Word("one", 0.1, 0.9), Word("two", 0.9, 1.4), Word("three", 2.6, 2.9))
    segments = (Segment("one two", 0.1, 1.4), Segment("three", 2.6, 2.9))
    heard = Transcript("one two three", "en", 3.0, words=words, segments=segments)
    labelled = label(heard, [SpeakerTurn("1", 0.0, 1.0), SpeakerTurn("2", 1.0, 2.0)])
    assert [word.speaker for word in labelled.words] == ["1", "2", "2"]
    assert [segment.speaker for segment in labelled.segments] == ["1", "2"]
    assert labelled.text == heard.text
    assert label(heard, []) is heard


# The network


def random_state() -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    network = torch.nn.ModuleDict(
        {"lstm": torch.nn.LSTM(40, 16, 3), "linear": torch.nn.Linear(16, 8)}
    )
    return {name: value.numpy() for name, value in network.state_dict().items()}


def test_the_onnx_graph_computes_what_pytorch_does():
    state = random_state()
    lstm, linear = torch.nn.LSTM(40, 16, 3), torch.nn.Linear(16, 8)
    for module, name in ((lstm, "lstm."), (linear, "linear.")):
        module.load_state_dict(
            {k[len(name) :]: torch.from_numpy(v) for k, v in state.items() if k.startswith(name)}
        )
    mels = torch.rand(160, 3, 40)
    with torch.inference_mode():
        want = torch.relu(linear(lstm(mels)[1][0][-1])).numpy()
    got = onnx_session(resemblyzer_onnx(state), 1).run(["voice"], {"mels": mels.numpy()})[0]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_another_file_is_refused_with_what_to_do(tmp_path):
    file = tmp_path / "pretrained.pt"
    file.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="omni models pull resemblyzer"):
        SpeakerEncoder(file)
    with pytest.raises(WeightsError, match="weight_ih_l0"):
        resemblyzer_onnx({})


@pytest.fixture(scope="module")
def real() -> SpeakerEncoder:
    return SpeakerEncoder(ensure("resemblyzer"))


@pytest.mark.e2e
def test_mel_and_embedding_are_those_of_the_original_package(real):
    time = np.arange(int(1.6 * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 20 * np.sin(2 * np.pi * 3 * time)) / RATE
    tones = (
        np.sin(k * phase) / k * (1 + 0.5 * np.sin(2 * np.pi * (k % 5 + 1) * time))
        for k in range(1, 20)
    )
    noise = np.random.default_rng(7).standard_normal(len(time))
    mel = voice_mel((0.05 * sum(tones) + 0.002 * noise).astype(np.float32))
    # By resemblyzer 0.1.4 with librosa 0.11.0 and torch 2.13.0.
    assert mel.shape == (161, 40)
    assert mel.sum() == pytest.approx(148.60785, rel=1e-4)
    np.testing.assert_allclose(mel[80, :3], [0.06850417, 0.16645586, 0.10470054], rtol=1e-4)
    voice = real.embed(mel[None, :160])[0]
    best = np.argsort(-voice)[:6]
    assert best.tolist() == [131, 29, 82, 93, 248, 158]
    np.testing.assert_allclose(
        voice[best], [0.2188, 0.1835, 0.1807, 0.1674, 0.1633, 0.1587], atol=1e-4
    )


def recording(*names: str) -> np.ndarray:
    """The clips one after the other, with a pause of 0.3 s."""
    clips = [read_audio((SPEECH / f"{name}.flac").read_bytes(), RATE).pcm for name in names]
    return np.concatenate([part for clip in clips for part in (clip, silence(0.3))])


def heard(encoder: SpeakerEncoder, *names: str) -> list[SpeakerTurn]:
    stream = encoder.stream()
    stream.feed(AudioChunk(recording(*names), RATE))
    return stream.finish()


@pytest.mark.e2e
def test_voices_are_told_apart_and_recognised_again(real):
    found = heard(
        real, "picture_emma", "france_michael", "france_slt", "planet_emma", "germany_slt"
    )
    assert who(found) == "12313"
    assert {turn.speaker for turn in heard(real, "picture_emma", "planet_emma")} == {"1"}
    assert {turn.speaker for turn in heard(real, "france_slt", "germany_slt")} == {"1"}
