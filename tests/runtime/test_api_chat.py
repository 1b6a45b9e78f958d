"""Chat completions over tiny parts, through OpenAI's own client."""

import base64
import io
import json
import logging

import httpx
import numpy as np
import openai
import pytest
from http_server import served
from PIL import Image

from encoders.media import read_audio, wav_bytes
from fakes import fake_parts
from omni.types import AudioChunk


@pytest.fixture(scope="module")
def server():
    with served() as running:
        yield running


def ask(server, content, **options):
    messages = [{"role": "user", "content": content}]
    return server.openai.chat.completions.create(model="omni", messages=messages, **options)


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture(width: int, height: int) -> str:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return data_url(file.getvalue())


def recording(seconds: float) -> str:
    loud = np.full(int(16_000 * seconds), 0.5, np.float32)
    return base64.b64encode(wav_bytes(AudioChunk(loud, 16_000))).decode()


def test_a_question_is_answered_with_its_usage(server):
    done = ask(server, "hello")
    assert done.object == "chat.completion"
    assert done.model == "scripted"
    assert done.choices[0].message.content == "You said hello."
    assert done.choices[0].finish_reason == "stop"
    assert done.usage.completion_tokens == len("You said hello.")
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    assert done.usage.prompt_tokens_details.cached_tokens == 0


def test_a_stream_gives_the_same_words_and_counts_them_when_asked(server):
    pieces = list(ask(server, "hello", stream=True, stream_options={"include_usage": True}))
    assert pieces[0].choices[0].delta.role == "assistant"
    said = "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
    assert said == "You said hello."
    assert pieces[-2].choices[0].finish_reason == "stop"
    assert pieces[-1].choices == []
    assert pieces[-1].usage.completion_tokens == len(said)
    assert len({piece.id for piece in pieces}) == 1


def test_a_stream_ends_with_done(server):
    body = {"stream": True, "messages": [{"role": "user", "content": "hi"}]}
    lines = server.http.post("/v1/chat/completions", json=body).text.strip().split("\n\n")
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: ")) for line in lines[:-1])


def test_stop_words_and_limits_end_an_answer(server):
    assert ask(server, "a b c", stop=" b").choices[0].message.content == "You said a"
    short = ask(server, "hello", max_tokens=3)
    assert short.choices[0].message.content == "You"
    assert short.choices[0].finish_reason == "length"
    assert ask(server, "hello", max_completion_tokens=4).usage.completion_tokens == 4


def test_pictures_and_recordings_reach_the_model_as_words(server):
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": picture(30, 20)}},
        {"type": "input_audio", "input_audio": {"data": recording(0.5), "format": "wav"}},
    ]
    said = ask(server, content).choices[0].message.content
    assert said == "You said [Your camera shows 30 by 20]\nWhat is it?\n5 tenths."


def test_the_whole_conversation_is_read():
    seen = []
    with served(fake_parts(lambda asked: seen.append(asked) or "ok")) as server:
        server.openai.chat.completions.create(
            model="omni",
            messages=[
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": "first"},
                {"role": "assistant", "content": "one"},
                {"role": "user", "content": [{"type": "text", "text": "second"}]},
            ],
        )
    assert seen[-1] == "second"


@pytest.mark.parametrize("format", ["wav", "mp3", "flac", "opus", "aac", "pcm16"])
def test_a_spoken_answer_is_a_file_of_its_length(server, format):
    options = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": format}}
    message = ask(server, "hello", **options).choices[0].message
    assert message.content is None
    assert message.audio.transcript == "You said hello."
    data = base64.b64decode(message.audio.data)
    seconds = len(data) / 2 / 24_000 if format == "pcm16" else read_audio(data).seconds
    assert seconds == pytest.approx(0.01 * len("You said hello."), abs=0.1)


def test_a_spoken_stream_has_words_and_sound(server):
    options = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}
    pieces = list(ask(server, "hello", stream=True, **options))
    audio = [p.choices[0].delta.audio for p in pieces if p.choices[0].delta.audio]
    assert "".join(a.transcript or "" for a in audio) == "You said hello."
    pcm = b"".join(base64.b64decode(a.data or "") for a in audio)
    assert len(pcm) / 2 / 24_000 == pytest.approx(0.15, abs=0.01)
    assert audio[-1].expires_at


def test_a_spoken_answer_can_be_pointed_at_later():
    prompts = []
    parts = fake_parts(lambda asked: f"You said {asked}.")
    encode = parts.llm.tokenizer.encode_chat
    parts.llm.tokenizer.encode_chat = lambda messages, *a, **k: (
        prompts.append([m.text for m in messages]) or encode(messages, *a, **k)
    )
    with served(parts) as server:
        options = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
        first = ask(server, "hello", **options).choices[0].message
        messages = [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "audio": {"id": first.audio.id}},
            {"role": "user", "content": "and now"},
        ]
        server.openai.chat.completions.create(model="omni", messages=messages)
        assert prompts[-1] == ["hello", "You said hello.", "and now"]
        messages[1]["audio"]["id"] = "audio_of_another"
        with pytest.raises(openai.BadRequestError) as refused:
            server.openai.chat.completions.create(model="omni", messages=messages)
        assert refused.value.param == "messages.1.audio.id"


def test_an_answer_that_no_voice_can_say_stays_text():
    with served(fake_parts(lambda asked: "您好，今天天气很好。")) as server:
        options = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
        message = ask(server, "hello", **options).choices[0].message
    assert message.audio is None
    assert message.content == "您好，今天天气很好。"


REFUSED = [
    ({"n": 2}, "n", "unsupported"),
    ({"logprobs": True}, "logprobs", "unsupported"),
    ({"frequency_penalty": 0.5}, "frequency_penalty", "unsupported"),
    ({"functions": [{"name": "f"}]}, "functions", "unsupported"),
    ({"top_k": 5}, "top_k", "unknown_field"),
    ({"temperature": 3}, "temperature", "invalid_value"),
    ({"temperature": "1"}, "temperature", "invalid_value"),
    ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ({"messages": []}, "messages", "invalid_value"),
    ({"messages": [{"role": "user"}]}, "messages.0.content", "missing_field"),
    ({"messages": [{"role": "user", "content": []}]}, "messages.0.content", "invalid_value"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0", "invalid_value"),
    ({"messages": [{"role": "assistant"}]}, "messages.0.content", "invalid_value"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages.0.content.0.image_url.url",
        "missing_field",
    ),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "x", "colour": "red"}]}
            ]
        },
        "messages.0.content.0.colour",
        "unknown_field",
    ),
    ({"modalities": ["audio"]}, "audio", "missing_field"),
    (
        {"modalities": ["audio"], "audio": {"voice": "alloy", "format": "mp3"}, "stream": True},
        "audio.format",
        "invalid_value",
    ),
    (
        {"modalities": ["audio"], "audio": {"voice": "nobody", "format": "wav"}},
        "audio.voice",
        "invalid_value",
    ),
    ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    ({"tool_choice": "required"}, "tools", "invalid_value"),
    (
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        "tool_choice.function.name",
        "invalid_value",
    ),
    ({"stop": ["", "b"]}, "stop.0", "invalid_value"),
]


@pytest.mark.parametrize(("change", "param", "code"), REFUSED)
def test_what_cannot_be_done_is_refused_by_name(server, change, param, code):
    body = {"model": "omni", "messages": [{"role": "user", "content": "x"}], **change}
    response = server.http.post("/v1/chat/completions", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code), error
    assert error["type"] == "invalid_request_error"


def test_what_changes_nothing_is_accepted(server):
    done = ask(
        server,
        "hello",
        user="me",
        store=False,
        metadata={"a": "b"},
        service_tier="auto",
        n=1,
        frequency_penalty=0,
        logprobs=False,
        parallel_tool_calls=True,
    )
    assert done.choices[0].message.content == "You said hello."


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://example.org/cat.jpg", "unsupported_url"),
        ("file:///etc/passwd", "invalid_url"),
        ("data:image/png;base64,AAA", "invalid_base64"),
        (data_url(b"no picture"), "invalid_value"),
    ],
)
def test_a_picture_that_cannot_be_used_is_named(server, url, code):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(server, [{"type": "image_url", "image_url": {"url": url}}])
    assert refused.value.code == code
    assert refused.value.param.startswith("messages.0.content.0")


def test_broken_bodies_are_refused(server):
    for content, kind, code in (
        (b"{", "application/json", "invalid_json"),
        (b"[]", "application/json", "invalid_body"),
        (b"{}", "text/plain", "invalid_body"),
    ):
        response = server.http.post(
            "/v1/chat/completions", content=content, headers={"Content-Type": kind}
        )
        assert response.status_code == 400
        assert response.json()["error"]["code"] == code, response.text


def test_a_model_that_is_not_here_is_not_found(server):
    with pytest.raises(openai.NotFoundError) as refused:
        server.openai.chat.completions.create(
            model="llama", messages=[{"role": "user", "content": "x"}]
        )
    assert refused.value.code == "model_not_found"


def test_a_conversation_that_is_too_long_is_refused(server):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(server, "x" * 10_000)
    assert refused.value.code == "context_length_exceeded"


def test_a_full_server_says_when_to_come_back():
    with served(fake_parts(pace=0.02), max_sessions=1) as server:
        stream = ask(server, "one two three four five", stream=True)
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as refused:
            ask(server, "hello")
        assert int(refused.value.response.headers["retry-after"]) > 0
        stream.close()
        server.until(lambda: server.engine.sessions == 0)
        assert ask(server, "hello").choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_answer(stream):
    parts = fake_parts(lambda asked: "word " * 700, pace=0.01)
    with served(parts) as server:
        body = {"messages": [{"role": "user", "content": "x"}], "stream": stream}
        with httpx.Client() as client:
            if stream:
                with client.stream("POST", f"{server.url}/v1/chat/completions", json=body) as r:
                    assert r.status_code == 200, r.read()
                    next(r.iter_lines())
                    server.until(lambda: server.engine.sessions == 1, 3)
            else:
                with pytest.raises(httpx.ReadTimeout):
                    client.post(f"{server.url}/v1/chat/completions", json=body, timeout=0.5)
        server.until(lambda: server.engine.sessions == 0, 3)
        assert 0 < len(parts.llm.fed) < 500


def test_a_model_that_fails_is_the_servers_fault(monkeypatch):
    def fail(asked):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(logging.getLogger("runtime.device"), "propagate", False)
    with served() as server:
        server.engine.parts.llm.script = fail
        with pytest.raises(openai.InternalServerError, match="out of memory"):
            ask(server, "hello")
        server.engine.parts.llm.script = lambda asked: "fine"
        assert ask(server, "hello").choices[0].message.content == "fine"
