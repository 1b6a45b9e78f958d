"""``POST /v1/answers`` over tiny parts."""

import io

import httpx
import jsonschema
import numpy as np
import pytest
from http_server import served
from PIL import Image

from encoders.media import wav_bytes
from fakes import LoudnessHearing, ScriptedLlm, fake_parts
from omni.batch.schema import SCHEMA
from omni.types import AudioChunk, Segment, Transcript, Word, call


class Hearing(LoudnessHearing):
    def transcribe_windows(self, sound, language=None, *, times=False, run=call):
        at = 0.0
        for chunk in sound:
            words = (Word("hello", at, at + 0.5),)
            segments = (Segment(f"hello {at:.0f}", at, at + 0.5),)
            yield run(
                lambda words=words, segments=segments, seconds=chunk.seconds: Transcript(
                    segments[0].text, language or "en", seconds, words=words, segments=segments
                )
            )
            at += chunk.seconds


@pytest.fixture(scope="module")
def server():
    made = fake_parts()
    llm = ScriptedLlm(lambda text: f"read: {text}")
    with served(type(made)(**{**vars(made), "hearing": Hearing(), "llm": llm})) as running:
        yield running


def sound(seconds: float = 3.0) -> bytes:
    return wav_bytes(AudioChunk(np.full(int(16_000 * seconds), 0.5, np.float32), 16_000))


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(out, "png")
    return out.getvalue()


def post(server, data, **fields):
    return httpx.post(
        f"{server.url}/v1/answers", files={"file": ("f.bin", data)}, data=fields, timeout=60
    )


def test_a_recording_is_transcribed_and_every_question_answered(server):
    response = post(server, sound(), ask=["One?", "Two?"], words="true")
    assert response.status_code == 200, response.text
    result = response.json()
    jsonschema.validate(result, SCHEMA)
    [medium] = result["media"]
    assert medium["kind"] == "audio"
    assert medium["seconds"] == 3.0
    assert medium["transcript"]["segments"][1]["start"] == pytest.approx(1.0, abs=0.1)
    assert medium["transcript"]["words"][0]["word"] == "hello"
    assert [a["ask"] for a in result["answers"]] == ["One?", "Two?"]
    assert result["answers"][1]["answer"] == "read: hello 0\nhello 1\nhello 2\n\nTwo?"
    assert result["usage"]["output_tokens"] > 0


def test_without_a_question_it_is_only_transcribed(server):
    result = post(server, sound(), language="de").json()
    assert result["answers"] == []
    assert result["media"][0]["transcript"]["language"] == "de"
    assert "words" not in result["media"][0]["transcript"]


def test_what_is_said_can_be_the_question(server):
    result = post(server, sound(0.5), answer="true").json()
    assert result["answers"] == [{"ask": None, "answer": "read: hello 0"}]


def test_a_picture_is_looked_at(server):
    result = post(server, picture(), ask="What?").json()
    assert result["media"][0]["kind"] == "image"
    assert result["media"][0]["seen"][0]["text"]
    assert result["answers"][0]["answer"].startswith("read: [Your camera shows")


@pytest.mark.parametrize(
    ("data", "fields", "param", "words"),
    [
        (b"", {}, "file", "0 bytes"),
        (b"just some words", {}, "file", "is a text"),
        (b"PK\x03\x04" + bytes(60), {}, "file", "ZIP"),
        (bytes(range(256)) * 30, {}, "file", "not a recording"),
        (sound()[:30_000], {}, "file", "cut off"),
        (sound(), {"asks": "x"}, "asks", "unknown"),
        (sound(), {"ask": " "}, "ask", "questions"),
        (sound(), {"max_tokens": "0"}, "max_tokens", "1 to 4096"),
        (sound(), {"words": "maybe"}, "words", "true or false"),
    ],
)
def test_what_is_wrong_is_named(server, data, fields, param, words):
    response = post(server, data, **fields)
    assert 400 <= response.status_code < 500, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert words in error["message"]


def test_a_form_without_a_file_is_refused(server):
    response = httpx.post(f"{server.url}/v1/answers", data={"ask": "x"})
    assert response.status_code == 400
    response = httpx.post(f"{server.url}/v1/answers", files={"ask": (None, "x")})
    assert response.json()["error"]["param"] == "file"
