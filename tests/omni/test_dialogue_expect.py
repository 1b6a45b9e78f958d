"""Every expectation, met and not met, on turns that are made up."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dialogue_play import write

from omni.dialogues.expect import judge, latency, over_repeats, percentile
from omni.dialogues.format import Expectation
from omni.dialogues.observed import TOO_LATE
from omni.dialogues.reading import read
from omni.dialogues.results import (
    AssistantTurn,
    Call,
    Media,
    Moment,
    Repeat,
    TurnResult,
    UserTurn,
)
from omni.errors import InputError

SOUND = Media(Path("answer.wav"), seconds=1.0)
TURN = TurnResult(
    0,
    2,
    UserTurn(said="What is the capital of France?", heard="What's the capital of France?"),
    AssistantTurn(
        text="The capital of France is Paris.",
        audio=SOUND,
        calls=(Call("weather", '{"city": "Paris", "unit": "c"}', "sunny"),),
        statuses=("completed",),
    ),
    (
        Moment("user.speech_stopped", 1.0),
        Moment("response.created", 1.2),
        Moment("response.done", 2.0),
    ),
    measured={"first_audio": 900.0, "done": 1500.0, "stopped": 300.0},
)
SILENT = TurnResult(0, 2)


class Ears:
    """Transcribes everything as one text, and embeds by the letters that a text has."""

    def __init__(self, hears: str = "the capital of france is paris") -> None:
        self.hears = hears

    async def transcribe(self, recording, language=None):
        return self.hears

    async def embed(self, texts):
        counts = np.array([[t.lower().count(c) for c in "abcdefgh"] for t in texts], float)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


class Deaf(Ears):
    async def transcribe(self, recording, language=None):
        raise InputError("no ears")

    async def embed(self, texts):
        raise InputError("no idea")


async def checks(tmp_path, expect: str, turn: TurnResult = TURN, service=None):
    script = read(write(tmp_path, f"turns:\n- type: Hi\n  expect:\n    {expect}"))
    _, found = await judge(script, script.dialogue.turns[0], turn, service or Ears())
    assert all(check.line == 4 for check in found)
    return found


@pytest.mark.parametrize(
    "expect",
    [
        "words: capital of france",
        "words: {any: [Rome, Paris], none: Rome}",
        "words: {regex: 'paris.$'}",
        "meaning: The capital of France is Paris!",
        "meaning: [Something else, The capital of France is Paris!]",
        "language: [de, en]",
        "spoken: true",
        "picture: false",
        "sounds_like: 0.0",
        "sounds_like: {wer: 0.2, text: capital of France is Paris}",
        "calls: weather",
        "calls: {name: weather, arguments: {city: paris}}",
        "nothing_said: false",
        "answers: 1",
        "stopped: 300",
        "events: [response.created, response.done]",
        "heard: {all: capital, wer: 0.4}",
    ],
)
async def test_an_expectation_is_met(tmp_path, expect):
    found = await checks(tmp_path, expect)
    assert found
    assert all(check.passed for check in found)


@pytest.mark.parametrize(
    ("expect", "found"),
    [
        ("words: Berlin", "The capital of France is Paris."),
        ("words: {none: [Paris]}", "The capital of France is Paris."),
        ("words: {regex: '^paris'}", "The capital of France is Paris."),
        ("meaning: {like: zzz ggg, at_least: 0.9}", "0.00: The capital of France is Paris."),
        ("language: zh", "en or fr"),
        ("spoken: false", "spoken"),
        ("picture: true", "no picture"),
        ("sounds_like: {wer: 0.1, text: something else}", "300%: “the capital of france is paris”"),
        ("calls: timer", 'weather({"city": "Paris", "unit": "c"})'),
        ("calls: {name: weather, arguments: {city: Rome}}", "weather("),
        ("calls: false", "weather("),
        ("nothing_said: true", "The capital of France is Paris."),
        ("answers: 2", "1 begun"),
        ("stopped: 299", "300 ms"),
        ("events: [response.done, response.created]", "no response.created in its place in: user."),
        ("heard: {wer: 0.1}", "33%: “What's the capital of France?”"),
        ("heard: Spain", "What's the capital of France?"),
    ],
)
async def test_an_expectation_is_not_met_and_what_was_found_is_told(tmp_path, expect, found):
    (check,) = await checks(tmp_path, expect)
    assert check.failed
    assert check.kind == expect.partition(":")[0]
    assert check.found.startswith(found)


@pytest.mark.parametrize(
    ("expect", "found"),
    [
        ("words: Paris", "nothing"),
        ("meaning: Paris", "nothing"),
        ("language: en", "none"),
        ("spoken: true", "not spoken"),
        ("sounds_like: 0.5", "no sound"),
        ("calls: weather", "no call"),
        ("nothing_said: false", "nothing"),
        ("stopped: 500", "it spoke on"),
        ("heard: capital", "nothing"),
    ],
)
async def test_nothing_at_all_is_found_wanting(tmp_path, expect, found):
    (check,) = await checks(tmp_path, expect, SILENT)
    assert (check.passed, check.found) == (False, found)


async def test_silence_is_what_was_expected(tmp_path):
    (check,) = await checks(tmp_path, "nothing_said: true", SILENT)
    assert check.passed


async def test_who_came_too_late_did_not_stop_anything(tmp_path):
    late = replace(TURN, events=(Moment(TOO_LATE, 0.0),))
    (check,) = await checks(tmp_path, "stopped: 500", late)
    assert (check.passed, check.found) == (
        False,
        "the answer was over before it was interrupted",
    )


@pytest.mark.parametrize("expect", ["meaning: Paris", "sounds_like: 0.5"])
async def test_what_the_server_does_not_judge_has_failed(tmp_path, expect):
    (check,) = await checks(tmp_path, expect, service=Deaf())
    assert not check.passed
    assert check.kind == expect.partition(":")[0]
    assert "the server gave none: no" in check.found


async def test_the_transcript_of_the_answer_is_kept(tmp_path):
    script = read(write(tmp_path, "turns: [{type: Hi, expect: {sounds_like: 0.5}}]"))
    turn, _ = await judge(script, script.dialogue.turns[0], TURN, Ears("peris"))
    assert turn.assistant.transcript == "peris"


def test_percentiles_are_interpolated():
    values = [100.0, 200.0, 300.0, 400.0, 1000.0]
    assert percentile(values, "p50") == 300
    assert percentile(values, "p95") == pytest.approx(880)
    assert percentile(values, "max") == 1000
    assert percentile([7.0], "p90") == 7


def test_latency_is_judged_over_all_repeats():
    played = [replace(TURN, measured={"done": ms}) for ms in (100.0, 200.0, 900.0)]
    expected = Expectation.model_validate({"latency": {"done": {"p50": 200, "max": 800}}})
    median, longest = latency(expected, played)
    assert (median.passed, median.found) == (True, "200 ms")
    assert (longest.passed, longest.found) == (False, "900 ms")
    assert longest.score == pytest.approx(2 / 3)
    number = Expectation.model_validate({"latency": {"done": 1000}, "soft": True})
    (check,) = latency(number, played)
    assert (check.wanted, check.passed, check.soft) == ("done max of at most 1000 ms", True, True)
    (absent,) = latency(Expectation.model_validate({"latency": {"first_token": 5}}), played)
    assert not absent.passed


async def test_soft_expectations_are_averaged(tmp_path):
    text = "turns: [{type: Hi, expect: {words: [Paris, Rome, Oslo, Bern], soft: true}}]"
    script = read(write(tmp_path, text))
    turns = []
    for answer in ("Paris", "Paris, Rome, Oslo, Bern", "none"):
        said = replace(TURN, assistant=AssistantTurn(text=answer))
        turn, found = await judge(script, script.dialogue.turns[0], said, Ears())
        turns.append(replace(turn, checks=found))
    assert all(turn.passed for turn in turns)
    (mean,) = over_repeats(script, [Repeat((turn,)) for turn in turns])
    assert mean.score == pytest.approx(1.25 / 3)
    assert (mean.turn, mean.failed) == (0, False)
    assert "1 of 3 repeats passed" in mean.found
