import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from fakes import Running
from omni import events as ev
from omni.errors import BusyError
from omni.types import AudioChunk, Message, Sampling
from runtime import device
from runtime.engine import Engine


def words(events) -> str:
    return "".join(e.text for e in events if isinstance(e, ev.TextDelta))


@pytest.fixture
def running():
    with Running() as running:
        running.open("a")
        yield running


def test_text_and_sound_of_an_answer_leave_as_they_are_made(running):
    events = running.answer("a", "hello")
    assert words(events) == "You said hello."
    sound = sum(len(e.chunk.pcm) for e in events if isinstance(e, ev.AudioDelta))
    assert sound == 240 * len("You said hello.")
    assert isinstance(events[-1], ev.ResponseDone)
    assert events[-1].reason == "stop"
    assert all(e.response_id == "r" for e in events)


def test_only_the_new_turn_is_read_the_second_time(running):
    first = (Message("user", ("hello",)),)
    running.engine.submit("a", ev.Start("1", first))
    running.until("a", ev.ResponseDone)
    second = (*first, Message("assistant", ("You said hello.",)), Message("user", ("again",)))
    running.engine.submit("a", ev.Start("2", second))
    usage = running.until("a", ev.ResponseDone)[-1].usage
    assert usage.cached_tokens == len("\x02user:hello\x03\x02assistant:You said hello.")


def test_a_prepared_prompt_is_not_read_again(running):
    messages = (Message("user", ("hello",)),)
    running.engine.submit("a", ev.Prepare(messages))
    while running.engine.parts.llm.fed[-1] == [1]:
        time.sleep(0.01)
    time.sleep(0.05)
    usage = running.answer("a", "hello")[-1].usage
    assert usage.cached_tokens == usage.input_tokens


def test_a_cancelled_answer_ends_between_two_steps_and_says_so():
    with Running(lambda asked: "word " * 500, pace=0.002) as running:
        running.open("a")
        running.ask("a", "talk")
        running.until("a", ev.AudioDelta)
        running.engine.submit("a", ev.Cancel("r"))
        events = running.until("a", ev.ResponseDone)
        assert events[-1].reason == "cancelled"
        assert len(words(events)) < 500
        assert words(running.answer("a", "more", response="r2")).startswith("word word")


def test_two_sessions_decode_in_one_batch_and_hear_only_themselves():
    with Running(lambda asked: f"{asked} " * 20, pace=0.002) as running:
        for name in ("a", "b"):
            running.open(name)
            running.ask(name, name, speak=False)
        for name in ("a", "b"):
            assert set(words(running.until(name, ev.ResponseDone)).split()) == {name}
        assert [1, 1] in running.parts.llm.fed


def test_the_oldest_turns_are_dropped_whole_when_the_context_is_full():
    with Running(max_context=200) as running:
        running.open("a")
        turns = []
        for i in range(10):
            turns += [Message("user", (f"question {i}",)), Message("assistant", (f"answer {i}",))]
        messages = (Message("system", ("Be good.",)), *turns, Message("user", ("last",)))
        running.engine.submit("a", ev.Start("r", messages, Sampling(max_tokens=30), speak=False))
        events = running.until("a", ev.ResponseDone)
        usage = events[-1].usage
        assert words(events) == "You said last."
        assert usage.dropped_messages > 0
        assert usage.dropped_messages % 2 == 0, "a question goes together with its answer"
        assert usage.input_tokens + 30 <= 200


def test_a_message_longer_than_the_context_fails_with_what_to_do():
    with Running(max_context=200) as running:
        running.open("a")
        done = running.answer("a", "x" * 500)[-1]
        assert done.reason == "failed"
        assert "shorten it" in done.error
        assert words(running.answer("a", "hi")) == "You said hi."


def test_a_stop_string_never_leaves(running):
    events = running.answer("a", "one STOP two", sampling=Sampling(stop=("STOP",)), speak=False)
    assert words(events) == "You said one "
    assert events[-1].reason == "stop"


def test_max_tokens_ends_an_answer_as_length(running):
    done = running.answer("a", "hello", sampling=Sampling(max_tokens=4), speak=False)[-1]
    assert (done.reason, done.usage.output_tokens) == ("length", 4)


def test_voice_activity_is_on_the_clock_of_the_input_whatever_the_size_of_the_pieces(running):
    pcm = np.concatenate([np.zeros(24_000), np.full(24_000, 0.5)]).astype(np.float32)
    for begin in range(0, len(pcm), 700):
        running.engine.submit("a", ev.Append(AudioChunk(pcm[begin : begin + 700], 24_000)))
    events = []
    while not events or events[-1].end < 1.9:
        events += running.until("a", ev.VoiceActivity)
    first = next(e for e in events if max(e.probabilities) > 0.5)
    assert first.end == pytest.approx(1.0, abs=0.08)


def test_only_the_asked_part_of_the_sound_is_transcribed(running):
    quiet, loud = np.zeros(24_000, np.float32), np.full(12_000, 0.5, np.float32)
    for pcm in (quiet, loud, quiet):
        running.engine.submit("a", ev.Append(AudioChunk(pcm, 24_000)))
    for key, start, end in (("all", 0.0, 2.5), ("silence", 0.0, 0.8)):
        running.engine.submit("a", ev.Transcribe(key, start, end))
    seen = [e for e in running.until("a", ev.Transcribed) if isinstance(e, ev.Transcribed)]
    seen += [running.until("a", ev.Transcribed)[-1]]
    assert {e.key: e.transcript.text for e in seen} == {"all": "5 tenths", "silence": ""}


def test_discarded_sound_is_gone_and_what_is_left_keeps_its_time(running):
    for pcm in (np.full(24_000, 0.5, np.float32), np.full(24_000, 0.5, np.float32)):
        running.engine.submit("a", ev.Append(AudioChunk(pcm, 24_000)))
    running.engine.submit("a", ev.Discard(1.0))
    running.engine.submit("a", ev.Transcribe("k", 0.0, 2.0))
    transcript = running.until("a", ev.Transcribed)[-1].transcript
    assert transcript.text in ("10 tenths", "11 tenths")


def test_a_picture_is_seen_and_a_broken_one_is_told(running):
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "PNG")
    running.engine.submit("a", ev.See("good", file.getvalue()))
    assert running.until("a", ev.Seen)[-1].span.text == "40 by 30"
    running.engine.submit("a", ev.See("bad", b"not a picture"))
    failed = running.until("a", ev.InputFailed)[-1]
    assert failed.key == "bad"
    assert failed.message


def test_a_clause_in_a_language_without_a_voice_is_told(running):
    events = running.answer("a", "你好吗")
    assert [e.language for e in events if isinstance(e, ev.VoiceMissing)]
    assert "你好吗" in words(events)


def test_a_full_engine_refuses_and_has_room_again_after_a_session_ends():
    with Running(config=Engine.Config(max_sessions=1)) as running:
        running.open("a")
        with pytest.raises(BusyError, match="max-sessions"):
            running.open("b")
        running.engine.release("a")
        running.open("b")


def test_nothing_is_emitted_for_a_session_that_has_ended():
    with Running(lambda asked: "word " * 200, pace=0.002) as running:
        running.open("a")
        running.ask("a", "talk")
        running.until("a", ev.TextDelta)
        running.engine.release("a")
        running.open("b")
        running.answer("b", "x", sampling=Sampling(max_tokens=5))
        while not running.boxes["a"].empty():
            assert not isinstance(running.boxes["a"].get(), ev.ResponseDone)


def test_a_failure_of_the_model_ends_the_answer_and_not_the_engine():
    def script(asked: str) -> str:
        if asked == "bad":
            raise RuntimeError("boom")
        return "fine."

    with Running(script) as running:
        running.open("a")
        done = running.answer("a", "bad")[-1]
        assert (done.reason, done.error) == ("failed", "the model failed: boom")
        assert words(running.answer("a", "good")) == "fine."


def test_hours_of_talk_cost_a_few_readings_of_the_history_and_not_one_for_each_turn(running):
    encode, readings = running.parts.llm.tokenizer.encode_chat, []

    def counted(messages, **options):
        readings.append(len(messages))
        return encode(messages, **options)

    running.parts.llm.tokenizer.encode_chat = counted
    talk = [
        Message(role, (f"{role} says {i}",)) for i in range(2000) for role in ("user", "assistant")
    ]
    start = ev.Start("r", (Message("system", ("Be brief.",)), *talk, Message("user", ("last?",))))
    running.engine.submit("a", start)
    done = running.until("a", ev.ResponseDone)
    assert words(done) == "You said last?."
    kept = len(talk) + 1 - done[-1].usage.dropped_messages
    assert 50 < kept < 400
    assert kept % 2 == 1, "turns go whole"
    assert len(readings) < 15


def test_an_answer_that_cannot_be_started_is_told_and_the_engine_goes_on(running):
    encode = running.parts.llm.tokenizer.encode_chat

    def fails(messages, **options):
        raise RuntimeError("the tokenizer broke")

    running.parts.llm.tokenizer.encode_chat = fails
    done = running.answer("a", "hello")[-1]
    assert (done.reason, done.error) == ("failed", "the tokenizer broke")
    running.parts.llm.tokenizer.encode_chat = encode
    assert words(running.answer("a", "again", response="r2")) == "You said again."


def test_a_long_recording_lets_the_answers_of_others_through():
    with Running(lambda asked: "word " * 40, pace=0.002) as running:
        hearing, windows = running.parts.hearing, []
        transcribe_long = hearing.transcribe_long

        def slow(chunk):
            windows.append(running.boxes["b"].qsize())
            time.sleep(0.05)
            return transcribe_long(chunk)

        hearing.transcribe_long = slow
        running.open("a")
        running.open("b")
        recording = AudioChunk(np.full(16_000 * 30, 0.5, np.float32), 16_000)
        running.engine.submit("a", ev.Transcribe("k", chunk=recording))
        while not windows:
            time.sleep(0.001)
        running.ask("b", "talk", speak=False)
        running.engine.submit("a", ev.JudgeTurn("turn", 0.0, 1.0))
        answered = running.until("b", ev.ResponseDone)
        during = len(windows)
        events = running.until("a", ev.Transcribed)
        assert words(answered) == "word " * 40
        assert during < 5, "the answer waits for one window"
        assert [type(event) for event in events] == [ev.TurnJudged, ev.Transcribed]
        assert events[-1].transcript.text == " ".join(["10 tenths"] * 30)
        assert events[-1].transcript.seconds == 30


def test_a_long_recording_that_nobody_wants_any_more_is_left(running):
    hearing, gate, windows = running.parts.hearing, threading.Event(), []
    transcribe_long = hearing.transcribe_long

    def waiting(chunk):
        windows.append(chunk)
        gate.wait(10)
        return transcribe_long(chunk)

    hearing.transcribe_long = waiting
    recording = AudioChunk(np.full(16_000 * 30, 0.5, np.float32), 16_000)
    running.engine.submit("a", ev.Transcribe("k", chunk=recording))
    while not windows:
        time.sleep(0.001)
    running.engine.submit("a", ev.Forget(("k",)))
    running.engine.submit("a", ev.JudgeTurn("turn", 0.0, 1.0))  # behind it in the ears
    while running.engine._sessions["a"].recordings:
        time.sleep(0.001)
    gate.set()
    assert [type(event) for event in running.until("a", ev.TurnJudged)] == [ev.TurnJudged]
    time.sleep(0.05)
    assert running.boxes["a"].empty()
    assert len(windows) == 1


def test_a_long_recording_that_fails_is_told(running):
    def fails(chunk):
        raise RuntimeError("boom")

    running.parts.hearing.transcribe_long = fails
    recording = AudioChunk(np.full(16_000 * 30, 0.5, np.float32), 16_000)
    running.engine.submit("a", ev.Transcribe("k", chunk=recording))
    failed = running.until("a", ev.InputFailed)[-1]
    assert (failed.key, failed.message) == ("k", "internal error: boom")


def test_an_engine_closes_in_the_middle_of_a_long_recording():
    with Running() as running:
        running.open("a")
        recording = AudioChunk(np.full(16_000 * 600, 0.5, np.float32), 16_000)
        seen = []
        transcribe_long = running.parts.hearing.transcribe_long

        def slow(chunk):
            seen.append(chunk)
            time.sleep(0.02)
            return transcribe_long(chunk)

        running.parts.hearing.transcribe_long = slow
        running.engine.submit("a", ev.Transcribe("k", chunk=recording))
        while not seen:
            time.sleep(0.001)
    assert len(seen) < 600
    assert running.boxes["a"].empty()


def test_work_in_the_background_is_done_though_answers_never_end(monkeypatch):
    monkeypatch.setattr(device, "PATIENCE", 0.1)
    with Running(lambda asked: "word " * 400, pace=0.005) as running:
        running.open("a")
        running.ask("a", "talk", speak=False)
        running.until("a", ev.TextDelta)
        done = [running.engine.in_background(lambda number=number: number) for number in range(5)]
        assert done == [0, 1, 2, 3, 4]
        while not running.boxes["a"].empty():
            assert not isinstance(running.boxes["a"].get(), ev.ResponseDone)


def test_work_in_the_background_gives_what_it_returns_or_raises(running):
    assert running.engine.in_background(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        running.engine.in_background(lambda: 1 / 0)


@pytest.mark.parametrize("rate", [8_000, 24_000])
def test_switching_noise_reduction_keeps_the_clock_of_the_input(running, rate):
    size, seconds = rate // 50, 8
    quiet, loud = np.zeros(size, np.float32), np.full(size, 0.5, np.float32)
    kinds = [None, "near_field", "far_field", None]
    for index in range(50 * seconds):
        kind = kinds[index // 50 % len(kinds)]
        pcm = loud if index >= 50 * 7 else quiet
        running.engine.submit("a", ev.Append(AudioChunk(pcm, rate), kind))
    events = []
    while not events or events[-1].end < seconds - 0.2:
        events += running.until("a", ev.VoiceActivity)
    frames = sum(len(event.probabilities) for event in events)
    assert events[-1].end == pytest.approx(frames * 0.032)
    first = next(event for event in events if max(event.probabilities) > 0.5)
    assert first.end == pytest.approx(7.0, abs=0.1)


def test_a_change_of_the_rate_loses_no_sound(running):
    for rate in (24_000, 8_000, 24_000, 8_000, 16_000):
        for _ in range(50):
            sound = AudioChunk(np.full(rate // 50, 0.5, np.float32), rate)
            running.engine.submit("a", ev.Append(sound))
    running.engine.submit("a", ev.Transcribe("k", 0.0, 5.0))
    transcript = running.until("a", ev.Transcribed)[-1].transcript
    assert transcript.seconds == pytest.approx(5.0, abs=0.002)


def test_who_waits_for_an_engine_that_closes_is_told(running):
    started, told = threading.Event(), []

    def upload():
        try:
            while True:
                running.engine.in_background(started.set)
        except BusyError as error:
            told.append(str(error))

    thread = threading.Thread(target=upload, daemon=True)
    thread.start()
    started.wait(10)
    running.engine.close()
    thread.join(10)
    assert "closing" in told[0]
