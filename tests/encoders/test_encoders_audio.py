from pathlib import Path

import numpy as np
import pytest

from encoders.audio import WhisperEncoder, joined
from encoders.media import read_audio
from encoders.turn import SmartTurn
from encoders.whisper import cut_loop, repeats
from omni.errors import InputError, MediaError, WeightsError
from omni.types import AudioChunk, Transcript

SPEECH = Path(__file__).parents[1] / "data" / "speech"


def sound(name: str) -> np.ndarray:
    return read_audio(SPEECH / f"{name}.flac").pcm


def test_a_folder_without_a_model_is_refused(tmp_path) -> None:
    with pytest.raises(WeightsError, match="does not hold a Whisper model"):
        WhisperEncoder(tmp_path)


@pytest.mark.parametrize(
    ("tokens", "kept"),
    [
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]),
        ([1, 7, 7, 7], [1, 7, 7, 7]),  # "no, no, no" is something that people say
        ([1] + 6 * [7], [1, 7]),
        ([9] + 3 * [1, 2, 3, 4], [9, 1, 2, 3, 4]),
        ([9] + 3 * [1, 2, 3, 4] + [1, 2], [9, 1, 2, 3, 4]),
        ([9] + 2 * [1, 2, 3, 4], [9] + 2 * [1, 2, 3, 4]),
        ([], []),
    ],
)
def test_a_loop_is_cut_after_its_first_round(tokens, kept) -> None:
    assert cut_loop(tokens) == kept


@pytest.mark.parametrize(
    ("tokens", "suspicious"),
    [
        ([1, 2, 3, 4, 5, 6], False),
        ([1, 2, 3, 4, 1, 2, 3, 4], True),
        ([9, 1, 2, 3, 4, 1, 2, 3, 4, 8], True),
        ([1, 2, 1, 2], False),
        ([1, 2] * 6, True),
        ([], False),
    ],
)
def test_a_sentence_that_comes_twice_is_suspicious(tokens, suspicious) -> None:
    assert repeats(tokens) is suspicious


def test_transcripts_are_joined_with_spaces_where_the_language_has_them() -> None:
    parts = [
        Transcript("How are", "en", 3.0, 0.9),
        Transcript("", "en", 9),
        Transcript("you?", "en", 1.0, 0.5),
    ]
    whole = joined(parts, 13.0, None)
    assert (whole.text, whole.language, whole.seconds) == ("How are you?", "en", 13.0)
    assert whole.confidence == pytest.approx(0.8)
    chinese = [Transcript("你好，", "zh", 1.0), Transcript("世界。", "zh", 1.0)]
    assert joined(chinese, 2.0, None).text == "你好，世界。"
    assert joined([], 5.0, "fr") == Transcript("", "fr", 5.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def whisper() -> WhisperEncoder:
    from omni.weights import ensure

    return WhisperEncoder(ensure("whisper-base"))


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("france_slt", "What is the capital of France?"),
        ("france_michael", "What is the capital of France?"),
        ("picture_emma", "What do you see in this picture?"),
        ("sky_adam", "Why is the sky blue?"),
    ],
)
def test_questions_are_heard_word_for_word_and_their_language_is_detected(
    whisper, name, text
) -> None:
    heard = whisper.transcribe(AudioChunk(sound(name), 16000))
    assert heard.text == text
    assert heard.language == "en"
    assert heard.confidence > 0.6
    assert heard.no_speech < 0.5


@pytest.mark.e2e
def test_streamed_equals_offline_and_the_stream_goes_on(whisper) -> None:
    pcm = sound("planet_emma")
    stream = whisper.stream()
    for begin in range(0, len(pcm), 700):
        stream.feed(AudioChunk(pcm[begin : begin + 700], 16000, begin))
        if begin == 35000:
            early = stream.transcribe("en").text
    late = stream.transcribe("en")
    assert early != late.text
    offline = whisper.transcribe(AudioChunk(pcm, 16000), "en")
    assert late.text == offline.text
    assert late.confidence == pytest.approx(offline.confidence, abs=0.02)
    stream.reset()
    assert stream.transcribe().text == ""


@pytest.mark.e2e
def test_a_cropped_stream_hears_only_what_is_left(whisper) -> None:
    first, second = sound("germany_slt"), sound("france_michael")
    stream = whisper.stream()
    stream.feed(AudioChunk(first, 16000, 48000))
    stream.feed(AudioChunk(second, 16000, 48000 + len(first)))
    stream.crop(48000 + len(first))
    assert 0 <= 48000 + len(first) - stream.start < 160  # whole frames
    assert stream.end == 48000 + len(first) + len(second)
    assert stream.transcribe("en").text == "What is the capital of France?"
    assert stream.transcribe("en-US").text == "What is the capital of France?"


@pytest.mark.e2e
def test_nothing_of_a_long_utterance_is_lost_and_memory_stays_bounded(whisper) -> None:
    names = ["planet_emma", "france_michael", "sky_adam", "picture_emma", "stop_michael"]
    pause = np.zeros(8000, np.float32)
    pcm = np.concatenate([part for name in 3 * names for part in (sound(name), pause)])
    assert len(pcm) > 40 * 16000
    stream = whisper.stream()
    stream.feed(AudioChunk(pcm, 16000))
    heard = stream.transcribe("en")
    for words in ("solar system", "capital of France", "sky blue", "this picture", "stop talking"):
        assert heard.text.count(words) == 3, heard.text
    assert heard.seconds == pytest.approx(len(pcm) / 16000)
    assert stream.end - stream.start <= 8 * 16000
    assert stream.transcribe("en") == heard
    stream.crop(len(pcm))
    assert stream.transcribe("en").text == ""


@pytest.mark.e2e
def test_a_file_is_cut_at_pauses_and_joined(whisper) -> None:
    names = ["planet_emma", "france_michael", "sky_adam", "picture_emma", "stop_michael"]
    pause = np.zeros(30000, np.float32)
    pcm = np.concatenate([part for name in 2 * names for part in (pause, sound(name))])
    pieces = (AudioChunk(pcm[i : i + 50000], 16000) for i in range(0, len(pcm), 50000))
    heard = whisper.transcribe_long(pieces)
    for words in ("solar system", "capital of France", "sky blue", "this picture", "stop talking"):
        assert heard.text.count(words) == 2, heard.text
    assert heard.language == "en"
    assert heard.seconds == pytest.approx(len(pcm) / 16000)


def no_words() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(48000)
    click = np.zeros(16000)
    click[6000:9200] = 0.5 * noise[:3200] * np.exp(-np.arange(3200) / 300)
    return {
        "silence": np.zeros(32000),
        "faint noise": 0.001 * noise,
        "noise": 0.05 * noise,
        "loud noise": 0.3 * noise,
        "a click": click,
        "hum": 0.1 * np.sin(2 * np.pi * 100 * np.arange(48000) / 16000),
    }


@pytest.mark.e2e
@pytest.mark.parametrize("kind", no_words())
def test_sound_without_words_has_no_text(whisper, kind) -> None:
    heard = whisper.transcribe(AudioChunk(no_words()[kind].astype(np.float32), 16000))
    assert heard.text == ""
    assert heard.no_speech > 0.5


@pytest.mark.e2e
def test_wrong_input_is_refused_and_the_stream_survives(whisper) -> None:
    stream = whisper.stream()
    with pytest.raises(MediaError, match="24000 Hz; this encoder takes 16000 Hz"):
        stream.feed(AudioChunk(np.zeros(100, np.float32), 24000))
    with pytest.raises(MediaError, match="send mono"):
        stream.feed(AudioChunk(np.zeros((100, 2), np.float32), 16000))
    stream.feed(AudioChunk(sound("sky_adam"), 16000))
    with pytest.raises(InputError, match="'tlh' is not one"):
        stream.transcribe("tlh")
    assert stream.transcribe("en").text == "Why is the sky blue?"


@pytest.mark.e2e
def test_capabilities_say_what_it_hears(whisper) -> None:
    can = whisper.capabilities
    assert can.inputs == {"audio"}
    assert can.bridge == "text"
    assert can.sample_rate == 16000
    assert {"en", "zh", "fr", "de"} <= can.languages


@pytest.fixture(scope="module")
def turn() -> SmartTurn:
    from omni.weights import ensure

    return SmartTurn(ensure("smart-turn-v3.2"))


@pytest.mark.e2e
def test_finished_sentences_are_told_from_broken_off_ones(turn) -> None:
    pause, pcm = np.zeros(3200, np.float32), sound("planet_emma")
    # How sure it is depends on the processor's 8-bit arithmetic: 0.65 to 0.9 was seen.
    assert turn.probability(np.concatenate([pcm, pause])) > 0.5
    for part in (0.2, 0.3, 0.35):
        assert turn.probability(np.concatenate([pcm[: int(part * len(pcm))], pause])) < 0.5


@pytest.mark.e2e
def test_only_the_last_eight_seconds_count_for_the_end_of_a_turn(turn) -> None:
    pcm = np.tile(sound("planet_emma"), 3)
    assert turn.probability(pcm) == turn.probability(pcm[-128000:])
