from collections.abc import Iterable

import pytest

from runtime.turns import (
    Paused,
    Resumed,
    SpeechStarted,
    SpeechStopped,
    TurnDetection,
    TurnEvent,
    TurnTaker,
)

STEP = 0.032


class Speaker:
    """Feeds frames and notes when each event came, in seconds of the sound."""

    def __init__(self, detection: TurnDetection) -> None:
        self.taker = TurnTaker(detection)
        self.now = 0.0
        self.events: list[tuple[float, TurnEvent]] = []

    def frames(self, probability: float, seconds: float) -> "Speaker":
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            self.note(self.taker.feed(probability, self.now, STEP))
        return self

    def speak(self, seconds: float) -> "Speaker":
        return self.frames(0.95, seconds)

    def silence(self, seconds: float) -> "Speaker":
        return self.frames(0.02, seconds)

    def judge(self, probability: float) -> "Speaker":
        self.note(self.taker.judged(self.taker.pause, probability, self.now))
        return self

    def note(self, events: Iterable[TurnEvent]) -> None:
        self.events += [(self.now, event) for event in events]

    def of(self, kind: type) -> list[tuple[float, TurnEvent]]:
        return [(at, event) for at, event in self.events if isinstance(event, kind)]


def test_speech_is_reported_within_a_tenth_of_a_second_and_keeps_its_beginning():
    user = Speaker(TurnDetection()).silence(1.0).speak(0.5)
    [(at, started)] = user.of(SpeechStarted)
    assert at <= 1.0 + 0.13
    assert started.start == pytest.approx(1.0 - 0.3, abs=2 * STEP)


def test_a_click_is_no_speech():
    user = Speaker(TurnDetection()).silence(1.0).speak(0.064).silence(1.0)
    assert user.events == []


def test_a_pause_is_reported_after_a_tenth_of_a_second():
    user = Speaker(TurnDetection()).speak(1.0).silence(0.15)
    [(at, _)] = user.of(Paused)
    assert at - 1.0 <= 0.13


def test_a_finished_sentence_ends_the_turn_once_the_pause_has_settled():
    user = Speaker(TurnDetection()).speak(1.0).silence(0.12).judge(0.9)
    assert not user.of(SpeechStopped), "the pause is too short to be sure"
    user.silence(0.25)
    [(at, stopped)] = user.of(SpeechStopped)
    assert at - 1.0 <= 0.36
    assert stopped.end == pytest.approx(1.0, abs=2 * STEP)


def test_an_unfinished_sentence_is_waited_for_and_then_ended_by_silence():
    user = Speaker(TurnDetection()).speak(1.0).silence(0.12).judge(0.1).silence(1.2)
    assert not user.of(SpeechStopped)
    user.silence(0.6)
    assert len(user.of(SpeechStopped)) == 1


def test_a_sentence_that_only_seems_finished_is_given_a_little_longer():
    user = Speaker(TurnDetection()).speak(1.0).silence(0.12).judge(0.6).silence(0.28)
    assert not user.of(SpeechStopped)
    user.silence(0.1)
    assert len(user.of(SpeechStopped)) == 1


def test_an_undecided_pause_is_judged_again():
    user = Speaker(TurnDetection()).speak(1.0).silence(0.12).judge(0.3).silence(0.4)
    pauses = [event for _, event in user.of(Paused)]
    assert [pause.again for pause in pauses] == [False, True, True]
    user.judge(0.8)
    assert len(user.of(SpeechStopped)) == 1


def test_a_late_judgement_about_an_earlier_pause_is_ignored():
    user = Speaker(TurnDetection()).speak(1.0).silence(0.3)
    first = user.taker.pause
    user.speak(0.5)
    assert user.of(Resumed)
    user.silence(0.3)
    user.note(user.taker.judged(first, 0.99, user.now))
    assert not user.of(SpeechStopped)


def test_server_vad_ends_the_turn_by_silence_alone():
    detection = TurnDetection(kind="server_vad", silence=0.5)
    user = Speaker(detection).speak(1.0).silence(0.45)
    assert not user.of(SpeechStopped)
    user.silence(0.1)
    assert len(user.of(SpeechStopped)) == 1


@pytest.mark.parametrize(("eagerness", "least"), [("high", 0.6), ("auto", 1.5), ("low", 2.9)])
def test_eagerness_sets_how_long_an_unfinished_sentence_is_waited_for(eagerness, least):
    user = Speaker(TurnDetection(eagerness=eagerness)).speak(1.0).silence(0.12).judge(0.0)
    user.silence(4.0)
    [(at, _)] = user.of(SpeechStopped)
    assert least <= at - 1.0 <= least + 0.3


def test_a_flutter_of_the_probability_does_not_break_a_voice_that_is_on():
    user = Speaker(TurnDetection()).speak(0.5)
    for _ in range(10):
        user.frames(0.4, STEP)
    assert not user.of(Paused)


def test_the_next_turn_starts_afresh():
    user = Speaker(TurnDetection(kind="server_vad")).speak(0.5).silence(1.0).speak(0.5).silence(1.0)
    assert [type(e).__name__ for _, e in user.events] == [
        "SpeechStarted", "Paused", "SpeechStopped",
    ] * 2  # fmt: skip
