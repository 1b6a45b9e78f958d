"""Words and their times, from tokens and from speech."""

import numpy as np
import pytest

from encoders.media import read_audio
from encoders.words import segments, within_speech, words
from omni.types import AudioChunk, Word
from support import DATA


def grouped(pieces: list[str | bytes], starts=None) -> list[Word]:
    """Words of tokens that stand for ``pieces``; each takes 0.1 s."""
    raw = [p if isinstance(p, bytes) else p.encode() for p in pieces]
    starts = starts or [round(i / 10, 2) for i in range(len(raw) + 1)]

    def decode(tokens: list[int]) -> str:
        return b"".join(raw[t] for t in tokens).decode(errors="replace")

    return list(words(range(len(raw)), starts, [1.0] * len(raw), decode))


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([" What", " is", " it", "?"], ["What", "is", "it?"]),
        ([" un", "believ", "able", "!"], ["unbelievable!"]),
        ([' "', "Yes", '"', ",", " she", " said", "."], ['"Yes",', "she", "said."]),
        (["今天", "天", "气", "，", "很好", "。"], ["今天", "天", "气，", "很好。"]),
        (["我", "用", "Python", "写"], ["我", "用", "Python", "写"]),
        (["他说", "「", "好", "」", "。"], ["他说", "「好」。"]),
        ([" 안", "녕", "하세요", "."], ["안녕하세요."]),
        ([" 3", ".", "5", "%"], ["3.5%"]),
        (["สวัส", "ดี"], ["สวัส", "ดี"]),
    ],
)
def test_tokens_are_grouped_to_words_in_many_scripts(pieces, expected):
    assert [w.text for w in grouped(pieces)] == expected


def test_a_character_of_several_tokens_is_one_word():
    first, second = "语".encode()[:2], "语".encode()[2:]
    found = grouped([first, second, "言"])
    assert [(w.text, w.start, w.end) for w in found] == [("语", 0.0, 0.2), ("言", 0.2, 0.3)]


def test_the_time_of_a_full_stop_is_no_part_of_the_word():
    found = grouped([" Yes", ".", " No"], [0.0, 0.4, 2.0, 2.3])
    assert [(w.start, w.end) for w in found] == [(0.0, 0.4), (2.0, 2.3)]


def test_pauses_are_taken_from_words_and_swallowed_ends_given_back():
    levels = [0.0] * 10 + [1.0] * 20 + [0.0] * 30 + [1.0] * 10  # frames of 32 ms
    found = [Word("one", 0.0, 0.7), Word("two", 1.1, 2.2)]
    fitted = within_speech(found, levels, 2.24)
    assert [(w.start, w.end) for w in fitted] == [(0.32, 0.96), (1.92, 2.24)]


def test_sentences_and_pauses_cut_segments():
    said = [
        Word("Hello.", 0.0, 0.5),
        Word("How", 0.6, 0.8),
        Word("are", 0.8, 1.0),
        Word("you", 2.0, 2.4),
    ]
    assert [(s.text, s.start, s.end) for s in segments(said, 0.0)] == [
        ("Hello.", 0.0, 0.5),
        ("How are", 0.6, 1.0),
        ("you", 2.0, 2.4),
    ]


@pytest.fixture(scope="module")
def whisper():
    from encoders.audio import WhisperEncoder
    from omni.weights import ensure

    return WhisperEncoder(ensure("whisper-base"))


@pytest.mark.e2e
def test_words_and_segments_lie_where_they_were_said(whisper):
    rng = np.random.default_rng(0)
    sound, at, truth = [np.zeros(16_000, np.float32)], 1.0, []
    gaps = (1.5, 0.7, 2.2, 0.9, 1.1, 3.0, 0.8, 5.0)
    names = ["france_slt", "germany_slt", "picture_emma", "planet_emma", "sky_adam", "stop_michael"]
    for name, gap in zip(names, gaps, strict=False):
        clip = read_audio(DATA / "speech" / f"{name}.flac")
        loud = np.flatnonzero(np.abs(clip.pcm) > 0.02) / 16_000
        truth.append((at + loud[0], at + loud[-1]))
        sound += [clip.pcm, np.zeros(int(gap * 16_000), np.float32)]
        at += clip.seconds + gap
    pcm = np.concatenate(sound)
    pcm = (pcm + rng.normal(0, 0.001, len(pcm))).astype(np.float32)
    heard = whisper.transcribe_long(AudioChunk(pcm, 16_000), "en", times=True)
    assert len(heard.segments) == len(truth), heard.segments
    for segment, (start, end) in zip(heard.segments, truth, strict=True):
        assert segment.start == pytest.approx(start, abs=0.2)
        assert segment.end == pytest.approx(end, abs=0.2)
    assert " ".join(w.text for w in heard.words) == heard.text
    assert all(a.end <= b.start + 0.01 for a, b in zip(heard.words, heard.words[1:], strict=False))
    assert all(w.start < w.end for w in heard.words)


@pytest.mark.e2e
def test_times_cost_nothing_when_they_are_not_asked_for(whisper):
    clip = read_audio(DATA / "speech" / "sky_adam.flac")
    plain = whisper.transcribe(clip, "en")
    assert plain.words == ()
    assert plain.segments == ()
    timed = whisper.transcribe_long(clip, "en", times=True)
    assert timed.text == plain.text
    assert [w.text for w in timed.words] == plain.text.split()
