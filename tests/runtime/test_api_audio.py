"""Transcriptions and speech over tiny parts, through OpenAI's own client."""

import base64
import io
import json
import threading

import numpy as np
import openai
import pytest
from http_server import served

from encoders.media import read_audio, wav_bytes
from fakes import LoudnessHearing, fake_parts
from omni.types import AudioChunk, Segment, Transcript, Word, call
from runtime import guard
from runtime.api import transcriptions


class SecondsHearing(LoudnessHearing):
    """Hears a word in every second; ``gate`` can hold it up."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()

    def transcribe_windows(self, sound, language=None, *, times=False, run=call):
        count = 0
        for chunk in sound:
            for _ in range(round(chunk.seconds)):
                yield run(lambda number=count: self._hear(number, times))
                count += 1

    def _hear(self, number: int, times: bool) -> Transcript:
        self.gate.wait(10)
        text = f"word{number}."
        if not times:
            return Transcript(text, "en", 1.0)
        words = (Word(text, number + 0.25, number + 0.5),)
        segments = (Segment(text, number + 0.25, number + 0.5),)
        return Transcript(text, "en", 1.0, words=words, segments=segments)


def parts():
    made = fake_parts()
    return type(made)(**{**vars(made), "hearing": SecondsHearing()})


@pytest.fixture(scope="module")
def server():
    with served(parts()) as running:
        yield running


def recording(seconds: float = 3.0) -> bytes:
    return wav_bytes(AudioChunk(np.full(int(16_000 * seconds), 0.5, np.float32), 16_000))


def hear(server, data: bytes | None = None, **options):
    file = ("sound.wav", recording() if data is None else data)
    return server.openai.audio.transcriptions.create(model="whisper-1", file=file, **options)


# Transcriptions


def test_a_recording_becomes_words(server):
    assert hear(server).text == "word0. word1. word2."
    assert hear(server, response_format="text") == "word0. word1. word2.\n"


def test_subtitles_have_their_times(server):
    assert hear(server, response_format="srt").split("\n\n")[1] == (
        "2\n00:00:01,250 --> 00:00:01,500\nword1."
    )
    vtt = hear(server, response_format="vtt")
    assert vtt.startswith("WEBVTT\n\n00:00:00.250 --> 00:00:00.500\nword0.\n")


def test_verbose_json_has_the_times_that_were_asked_for(server):
    heard = hear(server, response_format="verbose_json")
    assert heard.duration == 3.0
    assert heard.language == "en"
    assert [(s.id, s.start, s.text) for s in heard.segments][1] == (1, 1.25, "word1.")
    assert heard.words is None
    heard = hear(server, response_format="verbose_json", timestamp_granularities=["word"])
    assert [(w.word, w.start, w.end) for w in heard.words][2] == ("word2.", 2.25, 2.5)
    assert heard.segments is None


def test_a_stream_tells_the_words_while_they_are_heard(server):
    events = list(hear(server, stream=True))
    assert [e.type for e in events] == ["transcript.text.delta"] * 3 + ["transcript.text.done"]
    assert "".join(e.delta for e in events[:-1]) == events[-1].text == "word0. word1. word2."


def test_the_first_words_come_before_the_last_are_heard():
    made = parts()
    with served(made) as server:
        events = iter(hear(server, stream=True))
        made.hearing.gate.clear()
        assert next(events).type == "transcript.text.delta"
        made.hearing.gate.set()
        assert [event.type for event in events][-1] == "transcript.text.done"


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"prompt": "Names: Ada"}, "prompt", "unsupported"),
        ({"temperature": 0.5}, "temperature", "unsupported"),
        ({"include": ["logprobs"]}, "include", "unsupported"),
        ({"response_format": "diarized_json"}, "response_format", "invalid_value"),
        ({"extra_body": {"colour": "red"}}, "colour", "unknown_field"),
        ({"response_format": "srt", "stream": True}, "response_format", "invalid_value"),
        (
            {"response_format": "verbose_json", "timestamp_granularities": ["letter"]},
            "timestamp_granularities.0",
            "invalid_value",
        ),
        ({"data": b"no sound at all"}, "file", "invalid_value"),
        ({"data": b""}, "file", "invalid_value"),
    ],
)
def test_what_cannot_be_transcribed_is_refused_by_name(server, options, param, code):
    with pytest.raises(openai.BadRequestError) as refused:
        hear(server, **options)
    assert (refused.value.param, refused.value.code) == (param, code), refused.value


def test_options_that_ask_for_nothing_are_accepted(server):
    assert hear(server, prompt="", temperature=0.0, chunking_strategy="auto", language="").text


def test_a_file_must_be_there(server):
    post = server.http.post
    missing = post("/v1/audio/transcriptions", files={"other": b"x"})
    assert missing.status_code == 400
    missing = post("/v1/audio/transcriptions", data={"model": "omni"}, files={"x": ("", b"")})
    assert missing.json()["error"]["type"] == "invalid_request_error"
    no_form = post("/v1/audio/transcriptions", json={"file": "x"})
    assert no_form.json()["error"]["code"] == "invalid_body"


def test_too_long_and_too_large_recordings_are_refused(server, monkeypatch):
    monkeypatch.setattr(transcriptions, "MAX_SECONDS", 2.0)
    with pytest.raises(openai.BadRequestError) as refused:
        hear(server)
    assert refused.value.code == "too_long"
    monkeypatch.setattr(guard, "MAX_UPLOAD", 10_000)
    with pytest.raises(openai.APIStatusError) as refused:
        hear(server)
    assert refused.value.status_code == 413
    # Without a length in the header, too.
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    chunks = (piece for piece in (head, *[b"x" * 4000] * 5))
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    response = server.http.post("/v1/audio/transcriptions", content=chunks, headers=kind)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "too_large"


# Speech


def say(server, text: str = "Hello there. How are you?", **options):
    return server.openai.audio.speech.create(model="tts-1", voice="alloy", input=text, **options)


@pytest.mark.parametrize("format", ["wav", "mp3", "opus", "flac", "aac", "pcm"])
def test_speech_is_a_file_of_its_length_and_loudness(server, format):
    answer = say(server, response_format=format)
    data = answer.content
    if format == "pcm":
        pcm = np.frombuffer(data, "<i2").astype(np.float32) / 32768
    else:
        pcm = read_audio(data, 24_000).pcm
    assert len(pcm) / 24_000 == pytest.approx(0.24, abs=0.1)
    assert np.sqrt(np.mean(pcm**2)) > 0.1
    if format == "mp3":
        assert answer.response.headers["content-type"] == "audio/mpeg"


def test_speech_comes_clause_by_clause():
    made = fake_parts()
    with served(made) as server:
        body = {"input": "Hello there. How are you?", "response_format": "pcm"}
        with server.http.stream("POST", "/v1/audio/speech", json=body) as response:
            pieces = response.iter_raw()
            first = next(pieces)
            made.voice.gate.clear()  # what is not asked for yet cannot be needed
            assert len(first) > 0
            made.voice.gate.set()
            rest = b"".join(pieces)
    assert len(first) + len(rest) == pytest.approx(2 * 0.24 * 24_000, rel=0.1)


def test_speech_comes_as_events_when_asked(server):
    body = {"input": "Hello there.", "response_format": "pcm", "stream_format": "sse"}
    text = server.http.post("/v1/audio/speech", json=body).text
    events = [json.loads(line.removeprefix("data: ")) for line in text.strip().split("\n\n")]
    assert events[-1]["type"] == "speech.audio.done"
    pcm = b"".join(base64.b64decode(e["audio"]) for e in events[:-1])
    assert len(pcm) / 2 / 24_000 == pytest.approx(0.12, abs=0.01)


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"input": "x" * 4097}, "input", "invalid_value"),
        ({"input": "  "}, "input", "invalid_value"),
        ({"input": "您好，今天天气很好。"}, "input", "unsupported_language"),
        ({"voice": "nobody"}, "voice", "invalid_value"),
        ({"speed": 5.0}, "speed", "invalid_value"),
        ({"instructions": "whisper"}, "instructions", "unsupported"),
        ({"response_format": "midi"}, "response_format", "invalid_value"),
        ({"pitch": 1}, "pitch", "unknown_field"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(server, change, param, code):
    body = {"model": "omni", "voice": "alloy", "input": "Hello.", **change}
    response = server.http.post("/v1/audio/speech", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code), error


def test_what_no_voice_can_say_is_told_and_left_out(server):
    body = {"input": "Good morning to you. 您好，今天天气很好。", "response_format": "pcm"}
    response = server.http.post("/v1/audio/speech", json=body)
    assert response.headers["x-omni-unspoken-languages"] == "zh"
    assert len(response.content) / 2 / 24_000 == pytest.approx(0.2, abs=0.05)


def test_a_client_that_leaves_gives_its_place_back():
    made = fake_parts()
    with served(made, max_sessions=1) as server:
        made.voice.gate.clear()
        body = {"input": "Hello there."}
        with pytest.raises(Exception, match="timed out"):
            server.http.post("/v1/audio/speech", json=body, timeout=0.3)
        made.voice.gate.set()
        server.until(lambda: server.engine.sessions == 0)
        assert io.BytesIO(say(server).content).read(1)
