import json
import struct
import subprocess
import sys

import numpy as np
import pytest

from omni.bench.ct2 import read_variables, torch_state
from omni.bench.transcribe import Sample, measure, recording, render, sentences
from omni.errors import WeightsError
from omni.wer import edits, words


@pytest.mark.parametrize(
    ("heard", "wrong"),
    [
        ("the cat sat", 0),
        ("the cat", 1),
        ("the big cat sat", 1),
        ("the hat sat", 1),
        ("cat the sat", 2),
        ("", 3),
    ],
)
def test_edits_count_words_that_are_wrong_missing_or_too_many(heard, wrong):
    assert edits(["the", "cat", "sat"], heard.split()) == wrong


def test_case_punctuation_and_one_spelling_do_not_count():
    assert words("Don't, it's a GREY cat!") == words("don't it's a gray cat")
    assert words("Où est l’été ?") == ["où", "est", "l", "été"]


def test_a_row_has_speed_and_word_errors_of_the_recordings_whose_words_are_known():
    samples = [
        Sample("a", np.zeros(16_000, np.float32), "one two three four"),
        Sample("b", np.zeros(48_000, np.float32), None),
    ]
    row = measure("echo", lambda sounds: ["one two free four"] * len(sounds), samples)
    assert row["word_error_rate"] == 0.25
    assert row["times_real_time"] > 10
    unknown = measure("echo", lambda sounds: ["what"], samples[1:])
    assert unknown["word_error_rate"] is None
    result = {
        "recordings": 2,
        "seconds": 4.0,
        "longest_s": 3.0,
        "threads": 2,
        "systems": [row | {"seconds": 0.5}, unknown | {"seconds": 1.0}],
    }
    lines = render(result).splitlines()
    assert "25.0%" in lines[2]
    assert lines[2].endswith("1.00")
    assert lines[3].endswith("2.00")


def test_a_recording_is_its_sentences_with_pauses():
    spoken = [(text, np.ones(8_000, np.float32)) for text in sentences()[:3]]
    sample = recording("r", spoken)
    assert sample.text == " ".join(sentences()[:3])
    assert sample.pcm.sum() == 24_000
    assert len(sample.pcm) > 24_000 + 3 * 3_000


def test_the_sentences_have_no_numbers_which_could_be_written_in_two_ways():
    assert len(sentences()) >= 50
    numbers = {"two", "three", "seven", "nine", "ten", "twenty"}
    assert not [s for s in sentences() if numbers & set(words(s)) or any(map(str.isdigit, s))]


def test_what_is_no_model_of_ctranslate2_is_refused(tmp_path):
    file = tmp_path / "model.bin"
    file.write_bytes(b"\x06\0\0\0\x03")
    with pytest.raises(WeightsError, match="not a model of CTranslate2"):
        read_variables(file)


def test_a_model_is_read_with_its_aliases(tmp_path):
    def name(text):
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    data = np.arange(6, dtype=np.float16)
    content = struct.pack("<I", 6) + name("WhisperSpec") + struct.pack("<II", 3, 1)
    content += name("a/weight") + struct.pack("<BIIBI", 2, 2, 3, 4, 12) + data.tobytes()
    content += struct.pack("<I", 1) + name("b/weight") + name("a/weight")
    file = tmp_path / "model.bin"
    file.write_bytes(content)
    variables = read_variables(file)
    assert variables["b/weight"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.e2e
def test_all_of_whisper_is_found_for_torch():
    from omni.weights import ensure

    dimensions, state = torch_state(read_variables(ensure("whisper-base") / "model.bin"))
    assert (dimensions["n_mels"], dimensions["n_audio_ctx"], dimensions["n_text_ctx"]) == (
        80,
        1500,
        448,
    )
    assert dimensions["n_audio_layer"] == dimensions["n_text_layer"] == 6
    # 71.8 million parameters and the fixed positions of the encoder.
    assert sum(array.size for array in state.values()) == 72_593_920


@pytest.mark.e2e
def test_the_command_measures_a_file(tmp_path):
    from encoders.media import read_audio, write_wav
    from omni.bench.voice import questions

    text, clip = questions()[0]
    write_wav(tmp_path / "a.wav", clip)
    (tmp_path / "a.txt").write_text(text)
    assert read_audio(tmp_path / "a.wav").seconds == pytest.approx(clip.seconds, abs=0.01)
    ran = subprocess.run(
        [sys.executable, "-m", "omni.cli", "bench", "transcribe", tmp_path / "a.wav", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(ran.stdout.splitlines()[-1])
    assert [row["system"] for row in result["systems"]] == [
        "omni, batched",
        "omni, one at a time",
    ]
    for row in result["systems"]:
        assert row["word_error_rate"] == 0
        assert row["times_real_time"] > 0
