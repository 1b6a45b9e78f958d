"""The official OpenAI client for Python: all its client events, and strictly typed answers."""

import asyncio
import base64
import contextlib
import json
import re
from collections import Counter

import numpy as np
import openai
import pytest
from others import pcm24
from realtime_types import CLIENT, SERVER, checked

from omni.types import AudioChunk
from support import DATA

pytestmark = pytest.mark.e2e

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}
NOT_HERE = {
    "conversation.item.input_audio_transcription.failed",
    "conversation.item.input_audio_transcription.segment",
    "input_audio_buffer.dtmf_event_received",
    "input_audio_buffer.timeout_triggered",
    "output_audio_buffer.started",
    "output_audio_buffer.stopped",
}
"""Events of the protocol that this conversation does not bring about, besides those of MCP."""


class Talk:
    """A connection that checks every event of the server as it comes, and keeps them all."""

    def __init__(self, connection) -> None:
        self.connection = connection
        self.seen = []
        self.sent = set()

    def __getattr__(self, name):
        return getattr(self.connection, name)

    async def send(self, event: dict) -> None:
        self.sent.add(event["type"])
        await self.connection.send(event)

    async def until(self, kind: str, count: int = 1, seconds: float = 60.0) -> list:
        """The events up to the next of ``kind``, as the client types them."""
        events = []
        async with waiting(seconds, kind, self):
            while count:
                data = await self.connection.recv_bytes()
                checked(json.loads(data))
                event = self.connection.parse_event(data)
                assert type(event) is SERVER[event.type]
                self.seen.append(event)
                events.append(event)
                count -= event.type == kind
        return events

    async def say(self, text: str, **fields) -> None:
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content, **fields}
        await self.conversation.item.create(item=item)

    async def answer(self, **response):
        await self.response.create(response=response)
        return (await self.until("response.done"))[-1].response

    async def hear(self, pcm: bytes) -> None:
        for begin in range(0, len(pcm), 9600):
            part = base64.b64encode(pcm[begin : begin + 9600]).decode()
            await self.input_audio_buffer.append(audio=part)


@contextlib.asynccontextmanager
async def waiting(seconds: float, kind: str, talk: Talk):
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        last = [event.type for event in talk.seen[-8:]]
        raise AssertionError(f"no {kind} in {seconds} s; last came {last}") from None


@pytest.fixture
async def talk(server):
    client = openai.AsyncOpenAI(base_url=f"{server}/v1", api_key="none")
    beta = {"OpenAI-Beta": "realtime=v1"}  # as older programs send it
    async with client.realtime.connect(model="gpt-realtime", extra_headers=beta) as connection:
        talk = Talk(connection)
        await talk.until("session.created")
        yield talk
    consistent(talk.seen)


def consistent(events) -> None:
    """What holds of every session, whatever it was about."""
    ids = [event.event_id for event in events]
    assert len(ids) == len(set(ids))
    created = [e.response.id for e in events if e.type == "response.created"]
    assert created == [e.response.id for e in events if e.type == "response.done"]
    added = Counter(e.item.id for e in events if e.type == "conversation.item.added")
    assert set(added.values()) <= {1}
    done = Counter(e.item.id for e in events if e.type == "conversation.item.done")
    assert done == added
    for kind, field in (
        ("response.output_text", "text"),
        ("response.output_audio_transcript", "transcript"),
        ("response.function_call_arguments", "arguments"),
    ):
        deltas = Counter()
        for event in events:
            if event.type == f"{kind}.delta":
                deltas[event.item_id, event.output_index] += 1
                assert event.delta
            elif event.type == f"{kind}.done":
                whole = "".join(
                    e.delta
                    for e in events
                    if e.type == f"{kind}.delta" and e.item_id == event.item_id
                )
                assert whole == getattr(event, field)


def words(response) -> str:
    parts = [part for item in response.output if item.type == "message" for part in item.content]
    return " ".join(part.text or part.transcript or "" for part in parts)


def picture(name: str) -> str:
    data = base64.b64encode((DATA / "photos" / name).read_bytes()).decode()
    return f"data:image/jpeg;base64,{data}"


async def test_a_long_session_uses_every_event_and_each_is_as_the_types_say(talk):
    question = pcm24("france_slt.flac")
    silence = bytes(48_000)

    # Settings: a partial update merges, what is in force comes back.
    await talk.session.update(
        session={
            "type": "realtime",
            "model": "gpt-realtime",
            "instructions": "Answer in one short sentence.",
            "output_modalities": ["text"],
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": {"model": "gpt-4o-mini-transcribe", "language": "en"},
                    "noise_reduction": {"type": "near_field"},
                    "turn_detection": None,
                },
                "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin"},
            },
            "tools": [WEATHER],
            "tool_choice": "none",
            "max_output_tokens": "inf",
            "truncation": {"type": "retention_ratio", "retention_ratio": 0.8},
            "tracing": "auto",
            "temperature": 0,
        }
    )
    session = (await talk.until("session.updated"))[-1].session
    assert session.audio.input.turn_detection is None
    assert session.audio.input.noise_reduction.type == "near_field"
    assert [tool.name for tool in session.tools] == ["get_weather"]

    # Typed text.
    await talk.say("What is the capital of France?", id="item_question")
    done = await talk.answer()
    assert done.status == "completed"
    assert "Paris" in words(done)
    usage = done.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens > 0

    # A picture.
    await talk.conversation.item.create(
        item={
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is this?"},
                {"type": "input_image", "image_url": picture("cat.jpg")},
            ],
        }
    )
    assert re.search("cat|egyptian mau", words(await talk.answer()).lower())

    # An answer aloud, cut to what was heard of it, and looked up.
    await talk.say("Count from one to ten in words.")
    begin = len(talk.seen)
    spoken = await talk.answer(output_modalities=["audio"], metadata={"why": "counting"})
    assert spoken.metadata == {"why": "counting"}
    sound = [e for e in talk.seen[begin:] if e.type == "response.output_audio.delta"]
    assert sum(len(base64.b64decode(e.delta)) for e in sound) > 24_000
    said = spoken.output[0]
    await talk.conversation.item.truncate(item_id=said.id, content_index=0, audio_end_ms=700)
    await talk.until("conversation.item.truncated")
    await talk.conversation.item.retrieve(item_id=said.id)
    cut = (await talk.until("conversation.item.retrieved"))[-1].item
    assert len(cut.content[0].transcript) < len(said.content[0].transcript)

    # A tool: the call as it streams, its output, and the answer that knows it.
    await talk.say("How is the weather in Oslo in celsius?")
    begin = len(talk.seen)
    done = await talk.answer(tool_choice={"type": "function", "name": "get_weather"})
    call = next(item for item in done.output if item.type == "function_call")
    assert json.loads(call.arguments) == {"city": "Oslo", "unit": "celsius"}
    order = [e.type for e in talk.seen[begin:]]
    assert order.index("conversation.item.added") < order.index(
        "response.function_call_arguments.done"
    )
    await talk.conversation.item.create(
        item={
            "type": "function_call_output",
            "call_id": call.call_id,
            "output": '{"degrees": 31, "sky": "sunny"}',
        }
    )
    answered = words(await talk.answer())
    assert "31" in answered or "sunny" in answered, answered

    # An answer apart from the conversation.
    begin = len(talk.seen)
    apart = await talk.answer(
        conversation="none",
        input=[
            {"type": "item_reference", "id": "item_question"},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "The capital of France is Paris."}],
            },
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "And what is that of Italy?"}],
            },
        ],
        metadata={"topic": "apart"},
    )
    assert "Rome" in words(apart)
    assert apart.conversation_id is None
    assert not any(e.type.startswith("conversation.") for e in talk.seen[begin:])

    # An answer that the client cancels.
    await talk.say("Tell me a long story about a fox, a crow and a cat.")
    await talk.response.create()
    await talk.until("response.output_text.delta", 3)
    await talk.response.cancel()
    done = (await talk.until("response.done"))[-1].response
    assert (done.status, done.status_details.reason) == ("cancelled", "client_cancelled")

    # What is deleted is gone, and the error about it says so and names the event.
    await talk.conversation.item.delete(item_id="item_question")
    await talk.until("conversation.item.deleted")
    await talk.conversation.item.retrieve(item_id="item_question", event_id="mine")
    error = (await talk.until("error"))[-1].error
    assert (error.type, error.param, error.event_id) == ("invalid_request_error", "item_id", "mine")

    # Push to talk.
    await talk.hear(question)
    await talk.input_audio_buffer.clear()
    await talk.until("input_audio_buffer.cleared")
    await talk.hear(question)
    await talk.input_audio_buffer.commit()
    events = await talk.until("conversation.item.input_audio_transcription.completed")
    assert "capital of france" in events[-1].transcript.lower()
    assert events[-1].usage.seconds > 1
    assert "Paris" in words(await talk.answer(instructions="Answer in one short sentence."))

    # The server finds the turns, and an answer ends when the user speaks over it.
    await talk.session.update(
        session={
            "type": "realtime",
            "output_modalities": ["audio"],
            "audio": {"input": {"turn_detection": {"type": "server_vad"}}},
        }
    )
    detection = (await talk.until("session.updated"))[-1].session.audio.input.turn_detection
    assert detection.interrupt_response
    assert detection.create_response
    await talk.response.create(
        response={
            "instructions": "You are a teller of long stories.",
            "input": [
                {
                    "type": "message",
                    "role": "user",
                    "content": [
                        {
                            "type": "input_text",
                            "text": "Tell me a long story about a fox, a crow and a cat.",
                        }
                    ],
                }
            ],
        }
    )
    await talk.until("response.output_audio.delta")
    await talk.hear(question + silence * 2)
    events = await talk.until("response.done", 2, 90)
    first, second = (e.response for e in events if e.type == "response.done")
    assert (first.status, first.status_details.reason) == ("cancelled", "turn_detected")
    assert "Paris" in words(second)
    order = [e.type for e in events]
    for earlier, later in (
        ("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"),
        ("input_audio_buffer.speech_stopped", "input_audio_buffer.committed"),
        ("input_audio_buffer.committed", "conversation.item.added"),
    ):
        assert order.index(earlier) < order.index(later)

    # The player is told to be silent.
    await talk.output_audio_buffer.clear()
    await talk.until("output_audio_buffer.cleared")

    kinds = {event.type for event in talk.seen}
    meant = {kind for kind in SERVER if "mcp" not in kind} - NOT_HERE
    assert kinds >= meant, sorted(meant - kinds)


async def test_what_the_client_can_send_is_all_understood(talk):
    """Each event alone, with just what it needs: none is unknown, whatever else is wrong."""
    needed = {
        "session.update": {"session": {"type": "realtime"}},
        "input_audio_buffer.append": {"audio": ""},
        "conversation.item.create": {
            "item": {
                "type": "message",
                "role": "system",
                "content": [{"type": "input_text", "text": "It is night."}],
            }
        },
        "conversation.item.delete": {"item_id": "item_x"},
        "conversation.item.retrieve": {"item_id": "item_x"},
        "conversation.item.truncate": {"item_id": "x", "content_index": 0, "audio_end_ms": 0},
    }
    for kind in CLIENT:
        await talk.connection.send({"type": kind, "event_id": kind, **needed.get(kind, {})})
    await talk.conversation.item.retrieve(item_id="item_end", event_id="end")
    while (error := (await talk.until("error"))[-1].error).event_id != "end":
        assert error.code not in ("unknown_event", "missing_field", "unknown_field"), error
    if not any(event.type == "response.done" for event in talk.seen):
        await talk.until("response.done")


async def test_telephone_sound_goes_both_ways(talk, transcribe):
    """Mu-law at 8 kHz, as telephony bridges send and play it."""
    await talk.session.update(
        session={
            "type": "realtime",
            "instructions": "Answer in one short sentence.",
            "temperature": 0,
            "audio": {
                "input": {"format": {"type": "audio/pcmu"}, "turn_detection": None},
                "output": {"format": {"type": "audio/pcmu"}},
            },
        }
    )
    session = (await talk.until("session.updated"))[-1].session
    assert session.audio.output.format.type == "audio/pcmu"
    await talk.hear(mu_law(np.frombuffer(pcm24("france_slt.flac"), "<i2")[::3]))
    await talk.input_audio_buffer.commit()
    await talk.response.create()
    events = await talk.until("response.done")
    sound = b"".join(
        base64.b64decode(e.delta) for e in events if e.type == "response.output_audio.delta"
    )
    heard = [e.transcript for e in talk.seen if e.type.endswith("transcription.completed")]
    assert "capital of france" in heard[0].lower()
    assert "paris" in transcribe(AudioChunk(linear(sound), 8_000), "en").lower()


def mu_law(pcm: np.ndarray) -> bytes:
    """16-bit samples -> G.711 mu-law, by its formula."""
    size = np.minimum(np.abs(pcm.astype(np.int64)), 32_635) + 132
    exponent = np.floor(np.log2(size)).astype(np.int64) - 7
    code = (pcm < 0) << 7 | exponent << 4 | (size >> (exponent + 3)) & 15
    return (~code & 255).astype(np.uint8).tobytes()


def linear(data: bytes) -> np.ndarray:
    """G.711 mu-law -> samples in [-1, 1]."""
    code = ~np.frombuffer(data, np.uint8).astype(np.int64) & 255
    size = ((code & 15) * 8 + 132 << (code >> 4 & 7)) - 132
    return (np.where(code & 128, -size, size) / 32_768).astype(np.float32)
