import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.speech import (
    SAMPLE_RATE,
    Finish,
    StartBuffer,
    VoiceRouter,
    chunks,
    pause_after,
    speech_seconds,
    trim,
)
from omni.errors import InputError
from omni.types import AudioChunk, Capabilities, Clause


def tone(seconds, amplitude=0.3):
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (amplitude * np.sin(2 * np.pi * 220 * t)).astype(np.float32)


def quiet(seconds):
    noise = np.random.default_rng(0).normal(0, 0.001, round(seconds * SAMPLE_RATE))
    return noise.astype(np.float32)


def test_silence_around_the_speech_is_cut_but_a_little():
    finish = Finish()
    out = trim(np.concatenate([quiet(0.3), tone(1), quiet(0.4)]), finish)
    assert len(out) / SAMPLE_RATE == pytest.approx(1 + finish.lead + finish.tail, abs=0.012)


def test_a_pause_inside_the_speech_stays():
    out = trim(np.concatenate([quiet(0.3), tone(0.5), quiet(0.5), tone(0.5)]), Finish())
    assert len(out) / SAMPLE_RATE == pytest.approx(1.5 + Finish().lead, abs=0.02)


def test_sound_begins_and_ends_without_a_click():
    out = trim(np.ones(SAMPLE_RATE, np.float32), Finish())
    assert out[0] == 0
    assert abs(out[-1]) < 0.02
    assert np.abs(np.diff(out)).max() < 0.02


def test_sound_that_is_only_silence_becomes_nothing():
    assert len(trim(quiet(1), Finish())) == 0
    assert len(trim(np.zeros(0, np.float32), Finish())) == 0


def test_sound_never_leaves_the_range():
    assert np.abs(trim(tone(0.5, 1.7), Finish())).max() <= 1


@pytest.mark.parametrize(
    ("shorter", "longer"),
    [("well,", "well;"), ("well;", "well."), ("well", "well,"), ("好，", "好。"), ("", "well")],
)
def test_pauses_follow_the_punctuation(shorter, longer):
    assert pause_after(shorter) < pause_after(longer)


def test_a_closing_quote_does_not_hide_the_punctuation():
    assert pause_after('He said "stop."') == pause_after("Stop.")


@given(st.lists(st.integers(0, 30_000), max_size=4))
def test_chunks_are_the_whole_sound_and_count_its_samples(lengths):
    parts = [np.arange(n, dtype=np.float32) for n in lengths]
    out = list(chunks(iter(parts), 0.4))
    assert sum(len(c.pcm) for c in out) == sum(lengths)
    assert [c.start for c in out] == [sum(len(c.pcm) for c in out[:i]) for i in range(len(out))]
    assert all(0 < c.seconds <= 0.4 for c in out)


class Voice:
    """A decoder that says which voice spoke by the value of its one sample."""

    def __init__(self, languages, voices):
        self.capabilities = Capabilities(languages=frozenset(languages), voices=tuple(voices))
        self.heard = []

    def speaks(self, language, voice=None):
        known = language in self.capabilities.languages
        return known and (voice is None or voice in self.capabilities.voices)

    def speak(self, clause, *, voice=None, speed=1.0):
        self.heard.append((clause.text, voice, speed))
        yield AudioChunk(np.zeros(1, np.float32), SAMPLE_RATE)


def router():
    english, many = Voice(["en"], ["heart"]), Voice(["en", "zh"], ["af_heart", "zf"])
    return VoiceRouter([english, many]), english, many


def test_the_voice_follows_the_language_of_the_clause():
    both, english, many = router()
    list(both.speak(Clause("Hi", "en")))
    list(both.speak(Clause("你好", "zh"), speed=1.5))
    assert english.heard == [("Hi", None, 1.0)]
    assert many.heard == [("你好", None, 1.5)]


def test_a_chosen_voice_is_used_where_it_knows_the_language():
    both, english, many = router()
    list(both.speak(Clause("Hi", "en"), voice="af_heart"))
    list(both.speak(Clause("你好", "zh"), voice="heart"))
    assert english.heard == []
    assert many.heard == [("Hi", "af_heart", 1.0), ("你好", None, 1.0)]


def test_a_language_that_no_voice_knows_gives_no_sound():
    both, _, _ = router()
    assert not both.speaks("ru")
    assert list(both.speak(Clause("Привет", "ru"))) == []


def test_an_unknown_voice_is_refused_with_the_names_of_those_there_are():
    both, _, _ = router()
    with pytest.raises(InputError, match="heart, af_heart, zf"):
        both.speak(Clause("Hi"), voice="nobody")


def test_a_speed_out_of_range_is_refused():
    both, _, _ = router()
    with pytest.raises(InputError, match=r"0\.25"):
        both.speak(Clause("Hi"), speed=0)


def test_a_router_can_do_what_its_decoders_can():
    both, _, _ = router()
    assert both.capabilities.languages == {"en", "zh"}
    assert both.capabilities.voices == ("heart", "af_heart", "zf")


# -- buffering of slow speech ---------------------------------------------------------------


def play(texts, factor, *, error=1.0):
    """Seconds of waiting before playback, and of gaps in it, by a clock that is only counted.

    Clause i takes ``factor`` times its length to make; its true length is ``error`` times the
    estimate.
    """
    clauses = [Clause(t) for t in texts]
    buffer = StartBuffer()
    for clause in clauses:
        buffer.expect(clause)
    now, wait, ends, gaps = 0.0, None, 0.0, 0.0
    for clause in clauses:
        seconds = speech_seconds(clause) * error
        now += seconds * factor
        buffer.made(seconds, seconds * factor)
        buffer.finish_clause()
        if wait is None:
            if not buffer.may_start():
                ends += seconds
                continue
            wait, ends = now, now + ends
        gaps += max(0.0, now - ends)
        ends = max(ends, now) + seconds
    assert wait is not None, "playing never started"
    return wait, gaps


TEXTS = [
    "This is a clause of some length,",
    "and here comes another one.",
    "Short.",
    "The end is near.",
]


def test_a_fast_voice_starts_with_its_first_sound():
    wait, gaps = play(TEXTS, 0.02)
    assert wait == pytest.approx(0.02 * speech_seconds(Clause(TEXTS[0])))
    assert gaps == 0


@given(
    st.lists(st.integers(3, 150).map(lambda n: "x" * n), min_size=1, max_size=8),
    st.floats(0.05, 3),
)
def test_slow_speech_that_is_estimated_well_never_stutters(texts, factor):
    total = sum(speech_seconds(Clause(t)) for t in texts)
    _, gaps = play(texts, factor)
    # Past the longest wait it starts in any case.
    assert gaps == pytest.approx(0, abs=1e-6) or total > StartBuffer.Config().longest_wait


def test_speech_slower_than_real_time_waits_but_not_for_all_of_it():
    texts = ["This is a clause of some length, ok,"] * 3
    total = 1.3 * sum(speech_seconds(Clause(t)) for t in texts)
    wait, gaps = play(texts, 1.3)
    assert gaps == 0
    assert 1.3 * speech_seconds(Clause(texts[0])) < wait < total


def test_lengths_that_were_guessed_ten_percent_wrong_do_not_stutter():
    assert play(TEXTS * 2, 0.9, error=1.1)[1] == pytest.approx(0, abs=1e-6)


def test_nothing_starts_before_there_is_sound():
    buffer = StartBuffer()
    assert not buffer.may_start()
    buffer.expect(Clause("Hi."))
    assert not buffer.may_start()


def test_a_long_answer_starts_when_enough_is_in_hand():
    buffer = StartBuffer(StartBuffer.Config(longest_wait=3))
    for _ in range(20):
        buffer.expect(Clause("x" * 100))
    buffer.made(2.9, 9)
    assert not buffer.may_start()
    buffer.made(0.2, 1)
    assert buffer.may_start()


def test_chinese_takes_longer_per_character_than_english():
    assert speech_seconds(Clause("法国的首都是巴黎")) > speech_seconds(Clause("abcdefgh"))
