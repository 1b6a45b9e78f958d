"""What users get: the real server on the default weights, with real clients."""

import asyncio
import base64
import contextlib
import json
import re
import signal

import httpx
import numpy as np
import openai
import pytest
import websockets

from omni.client import AsyncOmniClient, OmniClient, load_audio, speak_in_real_time
from omni.errors import BusyError, ConnectionClosedError
from omni.types import AudioChunk
from support import DATA, start_server

pytestmark = pytest.mark.e2e

FRANCE = DATA / "speech" / "france_slt.flac"


@contextlib.asynccontextmanager
async def talk_to(url: str):
    """A session whose answers do not depend on chance."""
    async with AsyncOmniClient(url) as client:
        await client.update_session(temperature=0)
        yield client


async def spoken_turn(client: AsyncOmniClient, clip: AudioChunk, answers: int = 1):
    """Say ``clip`` in real time; give back the events until so many answers are done."""
    seen = []
    speaking = asyncio.create_task(speak_in_real_time(client, clip, tail_silence=30))
    try:
        async with asyncio.timeout(40):
            async for event in client.events():
                seen.append(event)
                answers -= event.type == "response.done"
                if not answers:
                    return seen
    finally:
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
    raise AssertionError("the session ended")


def sound(events) -> AudioChunk:
    pieces = [e.audio_chunk().pcm for e in events if e.type == "response.output_audio.delta"]
    return AudioChunk(np.concatenate(pieces), 24_000)


def heard(events) -> str:
    kind = "conversation.item.input_audio_transcription.completed"
    return " ".join(e.transcript for e in events if e.type == kind)


def said(events) -> str:
    kind = "response.output_audio_transcript.done"
    return " ".join(e.transcript for e in events if e.type == kind)


async def test_a_spoken_question_is_answered_aloud_and_a_follow_up_is_understood(
    server, transcribe
):
    async with talk_to(server) as client:
        events = await spoken_turn(client, load_audio(FRANCE))
        assert "capital of france" in heard(events).lower()
        assert "Paris" in said(events)
        assert "paris" in transcribe(sound(events), "en").lower()
        order = [e.type for e in events]
        for earlier, later in zip(
            (
                "input_audio_buffer.speech_started",
                "input_audio_buffer.speech_stopped",
                "input_audio_buffer.committed",
                "response.created",
                "response.output_audio.delta",
            ),
            (
                "input_audio_buffer.speech_stopped",
                "input_audio_buffer.committed",
                "response.created",
                "response.output_audio.delta",
                "response.done",
            ),
            strict=True,
        ):
            assert order.index(earlier) < order.index(later)
        timings = events[-1].response["timings"]
        assert 0 < timings["silence"] < timings["first_token"] < timings["first_audio"]
        reply = await client.ask("Which country did I just ask about? Answer in one word.")
        assert "France" in reply.text


async def test_a_chinese_question_is_answered_in_chinese_and_spoken(server, transcribe):
    async with talk_to(server) as client:
        reply = await client.ask("法国的首都是哪里？", timeout=120)
    assert re.search("[一-鿿]", reply.text)
    assert "巴黎" in reply.text
    assert reply.audio is not None
    # 是巴黎 sounds like 十八里 to Whisper; the words before it do not.
    assert "首都" in transcribe(reply.audio, "zh")


@pytest.mark.parametrize(("photo", "name"), [("cat.jpg", "cat"), ("coffee.jpg", "cup|coffee")])
def test_a_photograph_is_named(server, photo, name):
    with OmniClient(server) as client:
        client.update_session(temperature=0)
        reply = client.ask("What is this?", image=DATA / "photos" / photo)
    assert re.search(name, reply.text.lower()), reply.text


async def test_what_the_camera_shows_belongs_to_the_spoken_question(server):
    async with talk_to(server) as client:
        await client.send_image(DATA / "photos" / "cat.jpg")
        events = await spoken_turn(client, load_audio(DATA / "speech" / "picture_emma.flac"))
    assert "cat" in said(events).lower(), (heard(events), said(events))


async def test_speaking_over_the_answer_stops_it_and_the_next_answer_is_about_the_new_question(
    server,
):
    async with talk_to(server) as client:
        # An answer that is still being generated when the user, one second later, speaks over it.
        await client.update_session(instructions="You are a teller of long stories.")
        await client.send_text("Tell me a long story about a fox, a crow and a cat.")
        await client.create_response()
        async with asyncio.timeout(60):
            async for event in client.events():
                if event.type == "response.output_audio.delta":
                    break
        story = event.response_id
        events = await spoken_turn(client, load_audio(FRANCE), answers=2)
    done = [e for e in events if e.type == "response.done"]
    assert done[0].response["id"] == story
    assert done[0].response["status"] == "cancelled"
    assert done[0].response["status_details"]["reason"] == "turn_detected"
    started = [e.type for e in events].index("input_audio_buffer.speech_started")
    late = [e for e in events[started:] if e.type == "response.output_audio.delta"]
    assert late, "the new question was answered aloud"
    assert all(e.response_id != story for e in late)
    assert "Paris" in said(events[events.index(done[0]) :])


async def test_two_clients_talk_at_once_and_neither_hears_the_other(server):
    async def talk(question: str, word: str) -> None:
        async with talk_to(server) as client:
            for _ in range(2):
                reply = await client.ask(question, timeout=90)
                assert word in reply.text, reply.text

    await asyncio.gather(
        talk("What is the capital of Italy? One word.", "Rome"),
        talk("What is the capital of Japan? One word.", "Tokyo"),
    )


async def test_the_official_openai_client_holds_a_spoken_conversation(server, transcribe):
    clip = load_audio(FRANCE)
    client = openai.AsyncOpenAI(base_url=f"{server}/v1", api_key="none")
    async with client.realtime.connect(model="omni") as connection:
        await connection.session.update(
            session={
                "type": "realtime",
                "instructions": "Answer in one short sentence.",
                "temperature": 0,
                "audio": {"input": {"turn_detection": {"type": "server_vad"}}},
            }
        )
        resampled = np.interp(
            np.arange(0, len(clip.pcm), clip.sample_rate / 24_000),
            np.arange(len(clip.pcm)),
            clip.pcm,
        )
        pcm = (np.concatenate([resampled, np.zeros(24_000)]) * 32767).astype("<i2").tobytes()
        for begin in range(0, len(pcm), 4800):
            await connection.input_audio_buffer.append(
                audio=base64.b64encode(pcm[begin : begin + 4800]).decode()
            )
        audio, words, question = b"", "", ""
        async with asyncio.timeout(60):
            async for event in connection:
                if event.type == "response.output_audio.delta":
                    audio += base64.b64decode(event.delta)
                elif event.type == "response.output_audio_transcript.delta":
                    words += event.delta
                elif event.type == "conversation.item.input_audio_transcription.completed":
                    question = event.transcript
                elif event.type == "response.done":
                    break
        assert "france" in question.lower()
        assert "Paris" in words
        spoken = AudioChunk(np.frombuffer(audio, "<i2").astype(np.float32) / 32768, 24_000)
        assert "paris" in transcribe(spoken, "en").lower()
        await connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "What is the capital of Italy?"}],
            }
        )
        await connection.response.create(response={"output_modalities": ["text"]})
        text = ""
        async with asyncio.timeout(60):
            async for event in connection:
                if event.type == "response.output_text.done":
                    text = event.text
                elif event.type == "response.done":
                    break
        assert "Rome" in text


async def test_silence_and_noise_get_no_answer(server):
    noise = np.random.default_rng(0).normal(0, 0.02, 3 * 16_000).astype(np.float32)
    async with talk_to(server) as client:
        await speak_in_real_time(client, AudioChunk(noise, 16_000), tail_silence=1.0)
        await client.send_text("Say yes.")
        await client.create_response()
        seen = []
        async with asyncio.timeout(60):
            async for event in client.events():
                seen.append(event.type)
                if event.type == "response.done":
                    break
    assert "input_audio_buffer.speech_started" not in seen
    assert seen.count("response.created") == 1


async def test_a_page_of_another_origin_may_not_connect(server):
    url = server.replace("http", "ws") + "/v1/realtime"
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(url, origin="https://elsewhere.example")
    assert refused.value.response.status_code == 403
    async with websockets.connect(url, origin=server) as socket:
        assert json.loads(await socket.recv())["type"] == "session.created"


async def test_a_full_server_says_so_and_a_stopped_one_ends_its_sessions_with_a_reason(tmp_path):
    process, url = await asyncio.to_thread(
        start_server, tmp_path / "log.txt", "--max-sessions", "1"
    )
    try:
        async with AsyncOmniClient(url, reconnect=False) as client:
            with pytest.raises(BusyError, match="max-sessions"):
                async with AsyncOmniClient(url):
                    pass
            health = await asyncio.to_thread(httpx.get, f"{url}/health")
            assert health.json()["sessions"] == 1
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosedError, match="shutting down"):
                async for _ in client.events():
                    pass
        assert await asyncio.to_thread(process.wait, 20) in (0, -15)
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
