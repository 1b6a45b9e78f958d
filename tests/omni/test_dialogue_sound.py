"""Noise, losses, stalls and what is heard when: the pure parts of a dialogue's sound."""

import numpy as np
import pytest

from omni.dialogues import sound
from omni.dialogues.format import Clip, Loss
from omni.dialogues.matching import (
    contains,
    includes,
    languages_of,
    missing_in_order,
    word_error,
    words,
)
from omni.dialogues.prepare import clip_frames, fill
from omni.dialogues.sound import FRAME, RATE, Line, Loudspeaker

RNG = np.random.default_rng


def tone(seconds: float, level: float = 0.3):
    return np.full(round(seconds * RATE), level, np.float32)


def quiet(seconds: float):
    return np.zeros(round(seconds * RATE), np.float32)


def rms(pcm) -> float:
    return float(np.sqrt((pcm**2).mean()))


def test_the_spans_of_speech_are_found_and_short_gaps_do_not_part_them():
    pcm = np.concatenate(
        [quiet(0.5), tone(0.4), quiet(0.1), tone(0.3), quiet(1.0), tone(0.2), quiet(0.3)]
    )
    assert np.allclose(sound.spans(pcm), [(0.5, 1.3), (2.3, 2.5)])
    assert sound.spans(quiet(1.0)) == sound.spans(quiet(0)) == []


def test_the_level_of_speech_is_that_of_its_loud_parts():
    pcm = np.concatenate([tone(1.0, 0.2), quiet(9.0)])
    assert sound.speech_level(pcm) == pytest.approx(0.2, rel=1e-3)
    assert sound.speech_level(quiet(1.0)) == 0


@pytest.mark.parametrize("snr", [20.0, 0.0, -5.0])
@pytest.mark.parametrize("kind", ["white", "pink"])
def test_noise_has_the_level_that_was_asked_for(kind, snr):
    made = sound.noise(kind, 4.0, RNG(1)) * sound.noise_gain(0.2, snr)
    assert 20 * np.log10(0.2 / rms(made)) == pytest.approx(snr, abs=0.1)


def test_pink_noise_has_the_same_power_in_each_octave_and_white_noise_twice_that_of_the_last():
    for kind, ratio in (("pink", 1.0), ("white", 2.0)):
        spectrum = np.abs(np.fft.rfft(sound.noise(kind, 8.0, RNG(2)))) ** 2
        low, high = spectrum[8 * 500 : 8 * 1000].sum(), spectrum[8 * 1000 : 8 * 2000].sum()
        assert high / low == pytest.approx(ratio, rel=0.1)


def test_noise_is_the_same_for_the_same_seed_only():
    one, same, other = (sound.noise("pink", 1.0, RNG(seed)) for seed in (3, 3, 4))
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)


def test_babble_mixes_voices_equally_loud_and_goes_on_without_end():
    loud, soft = RNG(0).standard_normal((2, RATE)).astype(np.float32)
    mixed = sound.babble([0.5 * loud, 0.05 * soft], 3.0, RNG(5))
    assert len(mixed) == 3 * RATE
    assert rms(mixed) == pytest.approx(1, abs=0.01)
    assert np.allclose(mixed[:RATE], mixed[RATE : 2 * RATE], atol=1e-5)
    looped = sound.slice_looped(np.arange(5, dtype=np.float32), 3, 6)
    assert looped.tolist() == [3, 4, 0, 1, 2, 3]


def frames(count: int):
    return [np.full(FRAME, index + 1, np.float32) for index in range(count)]


def carry(line: Line, count: int) -> list[tuple[int, float]]:
    """What arrives: (frame of its arrival, value)."""
    return [
        (index, float(part[0]))
        for index, frame in enumerate(frames(count))
        for part in line.feed(frame, index * 0.02)
    ]


def test_a_good_line_changes_nothing():
    assert carry(Line(None, 0, RNG(0)), 5) == [(i, i + 1.0) for i in range(5)]


def test_lost_packets_are_missing_or_concealed_by_a_fading_repetition():
    dropped = carry(Line(Loss(rate=0.3, concealed=False), 0, RNG(1)), 1000)
    assert 620 < len(dropped) < 780
    concealed = carry(Line(Loss(rate=0.3), 0, RNG(1)), 1000)
    assert len(concealed) == 1000
    there = {index for index, _ in dropped}
    before = 0.0
    for index, value in concealed:
        assert value == (index + 1 if index in there else before / 2)
        before = value


def test_jitter_delays_and_bursts_but_keeps_all_in_order():
    line = Line(None, 0.3, RNG(2))
    arrived = carry(line, 1000)
    assert [value for _, value in arrived] == [float(i + 1) for i in range(len(arrived))]
    delays = [index + 1 - value for index, value in arrived]
    assert 5 < max(delays) <= 15
    assert max(np.bincount([index for index, _ in arrived])) > 5
    rest = line.feed(np.zeros(FRAME, np.float32), 20.0, flush=True)
    assert len(arrived) + len(rest) == 1001


def test_the_loudspeaker_plays_one_piece_behind_the_other():
    speaker = Loudspeaker()
    speaker.play("a", tone(1.0, 0.1), 10.0)
    speaker.play("a", tone(1.0, 0.2), 10.2)
    assert speaker.end == pytest.approx(12.0)
    assert speaker.heard("a", 11.5) == pytest.approx(1.5)
    speaker.play("b", tone(0.5, 0.3), 13.0)
    assert speaker.heard("b", 11.5) == 0
    begin, heard = speaker.recorded(["a", "b"])
    assert begin == 10.0
    assert len(heard) == pytest.approx(3.5 * RATE, abs=2)
    assert heard[int(1.5 * RATE)] == pytest.approx(0.2)
    assert heard[int(2.5 * RATE)] == 0
    assert speaker.recorded(["c"]) is None


def test_what_was_not_heard_when_it_stopped_will_never_be():
    speaker = Loudspeaker()
    speaker.play("a", tone(1.0), 0.0)
    speaker.play("a", tone(1.0), 0.0)
    speaker.stop(0.5)
    assert speaker.heard("a", 9.0) == pytest.approx(0.5)
    _, heard = speaker.recorded(["a"])
    assert len(heard) == pytest.approx(0.5 * RATE, abs=2)
    assert speaker.end <= 1.0


def test_the_room_hears_what_is_played_at_that_moment():
    speaker = Loudspeaker()
    speaker.play("a", tone(0.1, 0.4), 5.0)
    assert speaker.during(4.99, FRAME).tolist() == pytest.approx([0.0] * 240 + [0.4] * 240)
    assert speaker.during(5.09, FRAME).tolist() == pytest.approx([0.4] * 240 + [0.0] * 240)
    assert not speaker.during(6.0, FRAME).any()


def test_words_are_compared_without_case_and_punctuation_in_all_scripts():
    assert words("Well, it’s 42 — ＯＫ？") == ["well", "it's", "42", "ok"]
    assert contains("The capital is… Paris!", "capital is paris")
    assert not contains("Parisian", "Paris")
    assert contains("我想要一杯咖啡，谢谢。", "咖啡")
    assert not contains("我想要一杯茶。", "咖啡")
    assert contains("STRASSE", "straße")
    assert not contains("", "a")


@pytest.mark.parametrize(
    ("reference", "heard", "rate"),
    [
        ("a b c d", "A, b, c, d.", 0.0),
        ("a b c d", "a c d", 0.25),
        ("a b c d", "a x c d e", 0.5),
        ("你好吗", "你好", 1 / 3),
        ("", "", 0.0),
        ("", "a", 1.0),
    ],
)
def test_word_errors_are_counted(reference, heard, rate):
    assert word_error(reference, heard) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("there", "wanted", "same"),
    [
        ({"city": "Oslo", "unit": "c"}, {"city": "oslo"}, True),
        ({"city": "Oslo"}, {"city": "Oslo", "unit": "c"}, False),
        ({"at": {"h": 5, "m": 0}}, {"at": {"h": 5.0}}, True),
        ({"list": ["A", "b"]}, {"list": ["a", "B"]}, True),
        ({"list": ["a", "b"]}, {"list": ["a"]}, False),
        ({"on": True}, {"on": 1}, False),
        ({"n": 5}, {"n": "5"}, False),
        ({"sign": "+"}, {"sign": "-"}, False),
        ("text", {"a": 1}, False),
    ],
)
def test_arguments_may_be_more_than_wanted(there, wanted, same):
    assert includes(there, wanted) is same


def test_events_come_in_order_with_others_between():
    assert missing_in_order("abcd", "ac") is None
    assert missing_in_order("abcd", "aa") == "a"
    assert missing_in_order("abcd", "ca") == "a"
    assert missing_in_order("", "") is None


def test_languages_are_told_and_short_texts_leave_a_doubt():
    assert languages_of("The capital of Germany is Berlin, which is a large city.")[0] == "en"
    assert languages_of("Die Hauptstadt von Deutschland ist eine große Stadt.") == ["de"]
    assert languages_of("你好，我是你的助手。") == ["zh"]
    assert "en" in languages_of("I see a cat.")
    assert languages_of("42") == []


def test_templates_take_arguments_and_leave_the_unknown():
    template = {"report": "sunny in $city", "more": ["${city}s", 3], "price": "$5 $unknown"}
    assert fill(template, {"city": "Oslo"}) == {
        "report": "sunny in Oslo",
        "more": ["Oslos", 3],
        "price": "$5 $unknown",
    }


def test_a_clip_is_shown_picture_by_picture(tmp_path):
    import av

    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 64, 48
        for value in range(25):
            pixels = np.full((48, 64, 3), value * 10, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    shown = clip_frames(Clip.model_construct(clip=path, every=1.0, at=0.5))
    assert [at for at, _ in shown] == [0.5, 1.5, 2.5]
    assert all(data.startswith(b"\xff\xd8") for _, data in shown)
