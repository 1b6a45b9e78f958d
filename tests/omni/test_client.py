"""The client SDK against a small scripted server that speaks a part of the Realtime API."""

import asyncio
import base64
import contextlib
import json
import subprocess
import sys
import wave
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
from PIL import Image
from websockets.asyncio.server import Server, ServerConnection, serve

from omni.client import (
    AsyncOmniClient,
    Event,
    OmniClient,
    OmniServerError,
    OmniTimeoutError,
    Reply,
    end_of_speech,
    load_audio,
    speak_in_real_time,
)
from omni.client.handshake import realtime_uri
from omni.client.media import WireAudio, audio_to_wire, image_to_wire, pcm16_to_float
from omni.errors import BusyError, ConnectionClosedError, InputError, MediaError
from omni.types import AudioChunk, ImageFrame

ANSWER = (np.sin(np.arange(4800) / 20) * 12000).astype("<i2")


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype("f4")


class ScriptedServer:
    """Answers every response.create with the same words; notes all that it received."""

    def __init__(self) -> None:
        self.received: list[dict] = []
        self.headers: dict[str, str] = {}
        self.path = ""
        self.on: dict[str, Callable] = {
            "session.update": self.update,
            "conversation.item.create": self.add_item,
            "response.create": self.respond,
        }
        self.last_item: dict = {}
        self.greet = True

    async def __call__(self, socket: ServerConnection) -> None:
        self.headers = {k.lower(): v for k, v in socket.request.headers.raw_items()}
        self.path = socket.request.path
        self.session = {"type": "realtime", "audio": {"input": {"transcription": {"model": "w"}}}}
        if self.greet:
            await self.tell(socket, "session.created", session=self.session)
        async for message in socket:
            event = json.loads(message)
            self.received.append(event)
            if handler := self.on.get(event["type"]):
                await handler(socket, event)

    async def tell(self, socket: ServerConnection, kind: str, **fields: object) -> None:
        await socket.send(json.dumps({"type": kind, "event_id": "e", **fields}))

    async def update(self, socket: ServerConnection, event: dict) -> None:
        if "bogus" in event["session"]:
            await self.refuse(socket, event, "unknown_parameter", "session.bogus")
            return
        self.session = {**self.session, **event["session"]}
        await self.tell(socket, "session.updated", session=self.session)

    async def refuse(self, socket: ServerConnection, event: dict, code: str, param: str) -> None:
        error = {
            "type": "invalid_request_error",
            "code": code,
            "param": param,
            "message": f"{param} cannot be used",
            "event_id": event["event_id"],
        }
        await self.tell(socket, "error", error=error)

    async def add_item(self, socket: ServerConnection, event: dict) -> None:
        self.last_item = event["item"]
        await self.tell(socket, "conversation.item.added", item=event["item"])

    async def respond(self, socket: ServerConnection, event: dict) -> None:
        ids = {"response_id": "resp_1", "item_id": "item_a", "output_index": 0, "content_index": 0}
        await self.tell(socket, "response.created", response={"id": "resp_1"})
        for word in ("It is ", "Paris."):
            await self.tell(socket, "response.output_audio_transcript.delta", delta=word, **ids)
        stale = {**ids, "response_id": "resp_0"}
        await self.tell(socket, "response.output_audio_transcript.delta", delta="stale", **stale)
        for part in (ANSWER[:3000], ANSWER[3000:]):
            delta = base64.b64encode(part.tobytes()).decode()
            await self.tell(socket, "response.output_audio.delta", delta=delta, **ids)
        done = {"id": "resp_1", "status": "completed", "timings": {"first_audio": 640.0}}
        await self.tell(socket, "response.done", response=done | {"usage": {"total_tokens": 7}})
        if any(part["type"] == "input_audio" for part in self.last_item["content"]):
            await self.tell(  # after the answer: the wire promises no order
                socket,
                "conversation.item.input_audio_transcription.completed",
                item_id=self.last_item["id"],
                transcript="What is the capital of France?",
            )

    def of_type(self, kind: str) -> list[dict]:
        return [event for event in self.received if event["type"] == kind]

    async def until(self, kind: str) -> dict:
        async with asyncio.timeout(5):
            while not self.of_type(kind):  # noqa: ASYNC110 - a test may look at any moment
                await asyncio.sleep(0.005)
        return self.of_type(kind)[-1]


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@contextlib.asynccontextmanager
async def listening(handler: Callable) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0) as server:
        yield address(server)


@pytest.fixture
def server() -> ScriptedServer:
    return ScriptedServer()


@pytest.fixture
async def url(server: ScriptedServer) -> AsyncIterator[str]:
    async with listening(server) as where:
        yield where


async def test_ask_collects_words_sound_timings_and_usage_of_its_own_response(url):
    async with AsyncOmniClient(url) as omni:
        reply = await omni.ask("What is the capital of France?")
    assert reply.text == "It is Paris."
    assert reply.transcript is None
    assert reply.timings == {"first_audio": 640.0}
    assert reply.usage == {"total_tokens": 7}
    assert reply.status == "completed"
    assert reply.audio.sample_rate == 24000
    np.testing.assert_allclose(reply.audio.pcm, ANSWER / 32768, atol=1e-6)


async def test_ask_sends_picture_sound_and_words_as_one_message(url, server, tmp_path):
    picture = tmp_path / "cup.png"
    Image.new("RGB", (8, 6), "red").save(picture)
    async with AsyncOmniClient(url) as omni:
        reply = await omni.ask("And this?", audio=tone(0.5, 16000), rate=16000, image=picture)
    image, audio, text = server.last_item["content"]
    assert image["image_url"] == (
        "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    )
    assert len(base64.b64decode(audio["audio"])) == pytest.approx(24000, abs=100)
    assert text == {"type": "input_text", "text": "And this?"}
    assert server.last_item["role"] == "user"
    assert not server.of_type("input_audio_buffer.append")
    assert reply.transcript == "What is the capital of France?"


async def test_options_of_ask_go_into_response_create(url, server):
    async with AsyncOmniClient(url) as omni:
        await omni.ask("Hello", output_modalities=["text"])
    options = server.of_type("response.create")[0]["response"]
    assert options["output_modalities"] == ["text"]


async def test_key_and_model_reach_the_server(url, server):
    async with AsyncOmniClient(url, api_key="secret", model="tiny"):
        pass
    assert server.headers["authorization"] == "Bearer secret"
    assert server.path == "/v1/realtime?model=tiny"


async def test_session_settings_are_applied_at_connect_and_reported(url, server):
    omni = await AsyncOmniClient(url).connect(session={"instructions": "Be brief."})
    assert omni.session["instructions"] == "Be brief."
    assert server.of_type("session.update")[0]["session"]["type"] == "realtime"
    assert (await omni.update_session(instructions="Sing."))["instructions"] == "Sing."
    await omni.close()


async def test_a_refused_setting_raises_with_code_and_param_and_the_session_goes_on(url):
    async with AsyncOmniClient(url) as omni:
        with pytest.raises(OmniServerError, match="cannot be used") as caught:
            await omni.update_session(bogus=1)
        assert (caught.value.code, caught.value.param) == ("unknown_parameter", "session.bogus")
        assert (await omni.ask("Hello")).text == "It is Paris."


async def test_events_come_in_order_and_none_is_lost_between_two_loops(url):
    async with AsyncOmniClient(url) as omni:
        await omni.send_text("Hello")
        await omni.create_response()
        async for event in omni.events():
            if event.type == "response.created":
                break
        words = ""
        async for event in omni.events():
            if event.type == "response.output_audio_transcript.delta":
                words += event.delta
            if event.type == "response.done":
                break
        assert words == "It is Paris.stale"
        assert event.response["id"] == "resp_1"


async def test_events_used_by_ask_do_not_come_again_unless_someone_reads(url):
    async with AsyncOmniClient(url) as omni:
        await omni.ask("Hello")
        await omni.update_session(instructions="x")
        seen = []
        async for event in omni.events():
            seen.append(event.type)
            if event.type == "session.updated":
                break
        assert "response.done" not in seen

        stream = omni.events()
        await omni.ask("Hello")
        async with asyncio.timeout(5):
            while (await anext(stream)).type != "response.done":
                pass


async def test_a_server_error_is_raised_by_the_loop_which_may_go_on(url, server):
    async def broken(socket, event):
        await server.refuse(socket, event, "buffer_empty", "audio")
        await server.tell(socket, "input_audio_buffer.cleared")

    server.on["input_audio_buffer.commit"] = broken
    async with AsyncOmniClient(url) as omni:
        await omni.commit()
        events = omni.events()
        assert (await anext(events)).type == "session.created"
        with pytest.raises(OmniServerError) as caught:
            await anext(events)
        assert caught.value.code == "buffer_empty"
        assert (await anext(events)).type == "input_audio_buffer.cleared"
        await omni.commit()
        assert (await anext(omni.events(raise_errors=False))).type == "error"


async def test_a_refused_question_raises_and_its_answer_is_cancelled(url, server):
    async def refuse(socket, event):
        await server.refuse(socket, event, "invalid_audio", "item.content[0].audio")

    async def silent(socket, event):
        pass

    server.on |= {"conversation.item.create": refuse, "response.create": silent}
    async with AsyncOmniClient(url) as omni:
        with pytest.raises(OmniServerError) as caught:
            await omni.ask("Hello")
        assert caught.value.param == "item.content[0].audio"
        await server.until("response.cancel")


async def test_a_trouble_of_the_server_alone_does_not_end_a_question(url, server):
    answer = server.on["response.create"]

    async def complain(socket, event):
        trouble = {"type": "server_error", "code": "not_kept", "message": "the disk is full"}
        await server.tell(socket, "error", error=trouble)
        await answer(socket, event)

    server.on["response.create"] = complain
    async with AsyncOmniClient(url) as omni:
        assert (await omni.ask("Hello")).text == "It is Paris."


async def test_a_failed_response_raises_what_the_server_said(url, server):
    async def fail(socket, event):
        details = {"type": "failed", "error": {"code": "out_of_memory", "message": "no memory"}}
        response = {"id": "r", "status": "failed", "status_details": details}
        await server.tell(socket, "response.created", response={"id": "r"})
        await server.tell(socket, "response.done", response=response)

    server.on["response.create"] = fail
    async with AsyncOmniClient(url) as omni:
        with pytest.raises(OmniServerError, match="no memory") as caught:
            await omni.ask("Hello")
    assert caught.value.code == "out_of_memory"


async def test_timeout_and_cancel_of_ask_stop_the_answer_on_the_server(url, server):
    async def start_only(socket, event):
        await server.tell(socket, "response.created", response={"id": "resp_slow"})

    server.on["response.create"] = start_only
    async with AsyncOmniClient(url) as omni:
        with pytest.raises(OmniTimeoutError, match="longer timeout"):
            await omni.ask("Hello", timeout=0.2)
        assert (await server.until("response.cancel"))["response_id"] == "resp_slow"

        server.received.clear()
        task = asyncio.create_task(omni.ask("Hello"))
        await server.until("response.create")
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await server.until("response.cancel"))["response_id"] == "resp_slow"


async def test_questions_of_two_tasks_wait_for_each_other(url, server):
    async with AsyncOmniClient(url) as omni:
        replies = await asyncio.gather(omni.ask("one"), omni.ask("two"))
    assert [reply.text for reply in replies] == ["It is Paris."] * 2
    kinds = [event["type"] for event in server.received]
    assert kinds == ["conversation.item.create", "response.create"] * 2


async def test_sound_in_pieces_is_resampled_as_one_stream(url, server):
    sound = tone(1.0, 44100)
    async with AsyncOmniClient(url) as omni:
        for begin in range(0, len(sound), 441):
            await omni.send_audio(sound[begin : begin + 441], rate=44100)
        await omni.commit()
        await server.until("input_audio_buffer.commit")
    pieces = server.of_type("input_audio_buffer.append")
    sent = b"".join(base64.b64decode(event["audio"]) for event in pieces)
    expected = audio_to_wire(sound, 44100)
    assert len(sent) == len(expected) == 48000
    difference = pcm16_to_float(sent) - pcm16_to_float(expected)
    assert np.abs(difference).max() < 2e-4


async def test_control_events_have_the_names_of_the_wire(url, server):
    async with AsyncOmniClient(url) as omni:
        await omni.truncate("item_7", 1234)
        await omni.cancel()
        await omni.clear_audio()
        await omni.send_image(np.zeros((4, 5, 3), np.uint8))
        await server.until("input_image_buffer.append")
    truncate, cancel, clear, image = server.received
    assert (truncate["item_id"], truncate["content_index"], truncate["audio_end_ms"]) == (
        "item_7",
        0,
        1234,
    )
    assert cancel["type"] == "response.cancel"
    assert "response_id" not in cancel
    assert clear["type"] == "input_audio_buffer.clear"
    assert base64.b64decode(image["image"]).startswith(b"\xff\xd8\xff")


async def test_without_a_server_the_error_says_how_to_start_one(unused_tcp_port):
    with pytest.raises(ConnectionClosedError, match="start it with `omni serve`"):
        await AsyncOmniClient(f"http://127.0.0.1:{unused_tcp_port}").connect()


async def test_a_full_server_is_busy_whether_it_refuses_or_closes(server):
    async def full(socket):
        await socket.close(1013, "8 of 8 sessions are in use")

    async with listening(full) as where:
        with pytest.raises(BusyError, match="8 of 8 sessions"):
            await AsyncOmniClient(where).connect()

    async with serve(
        full, "127.0.0.1", 0, process_request=lambda c, r: c.respond(503, "full")
    ) as refusing:
        with pytest.raises(BusyError, match="full"):
            await AsyncOmniClient(address(refusing)).connect()


async def test_a_server_that_refuses_the_key_is_told_apart(server):
    async with serve(
        server, "127.0.0.1", 0, process_request=lambda c, r: c.respond(401, "no")
    ) as refusing:
        with pytest.raises(ConnectionClosedError, match="HTTP 401; check api_key"):
            await AsyncOmniClient(address(refusing)).connect()


async def test_a_server_that_opens_no_session_times_out(url, server):
    server.greet = False
    with pytest.raises(OmniTimeoutError, match=r"no session\.created in 0\.2 s"):
        await AsyncOmniClient(url, timeout=0.2).connect()


async def test_a_server_that_leaves_the_handshake_waiting_times_out_with_advice(server):
    async def wait(connection, request):
        await asyncio.sleep(1)

    async with serve(server, "127.0.0.1", 0, process_request=wait) as waiting:
        with pytest.raises(OmniTimeoutError, match="still be loading"):
            await AsyncOmniClient(address(waiting), timeout=0.2).connect()


async def test_a_lost_session_ends_ask_events_and_sending_and_can_be_opened_anew(url, server):
    async def drop(socket, event):
        await socket.close(1001, "the server is shutting down")

    answer = server.on["response.create"]
    server.on["response.create"] = drop
    async with AsyncOmniClient(url) as omni:
        with pytest.raises(ConnectionClosedError, match="shutting down"):
            await omni.ask("Hello")
        with pytest.raises(ConnectionClosedError, match="shutting down"):
            async for _ in omni.events():
                pass
        with pytest.raises(ConnectionClosedError, match="connect\\(\\) opens a new one"):
            await omni.send_text("Hello")
        server.on["response.create"] = answer
        await omni.connect()
        assert (await omni.ask("Hello")).text == "It is Paris."


async def test_what_is_not_an_event_ends_the_session_with_a_clear_error(server):
    async def babble(socket):
        await server.tell(socket, "session.created", session={})
        await socket.send("[1, 2]")
        await socket.wait_closed()

    async with listening(babble) as where, AsyncOmniClient(where) as omni:
        events = omni.events()
        await anext(events)
        with pytest.raises(ConnectionClosedError, match="not a Realtime event"):
            await anext(events)


async def test_closing_ends_readers_and_leaves_no_task(url):
    before = asyncio.all_tasks()
    omni = await AsyncOmniClient(url).connect()
    seen = []

    async def read():
        async for event in omni.events():
            seen.append(event.type)

    reader = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    await omni.close()
    await omni.close()
    await asyncio.wait_for(reader, 5)
    assert seen == ["session.created"]
    assert {task for task in asyncio.all_tasks() - before if "client" in task.get_name()} == set()
    with pytest.raises(ConnectionClosedError, match="no session is open"):
        await omni.send_text("Hello")


async def test_asking_nothing_is_an_input_error(url):
    async with AsyncOmniClient(url) as omni:
        with pytest.raises(InputError, match="nothing was asked"):
            await omni.ask("  ")


async def test_the_blocking_client_holds_the_same_conversation(url, server):
    def talk() -> Reply:
        with OmniClient(url) as omni:
            first = omni.ask("Hello")
            omni.send_text("And?")
            omni.create_response()
            for event in omni.events():
                if event.type == "response.done":
                    break
            with pytest.raises(OmniServerError):
                omni.update_session(bogus=1)
        with pytest.raises(ConnectionClosedError, match="no session is open"):
            omni.ask("Hello")
        return first

    assert (await asyncio.to_thread(talk)).text == "It is Paris."


def test_the_blocking_client_without_a_server_raises_and_leaves_no_thread(unused_tcp_port):
    import threading

    with pytest.raises(ConnectionClosedError, match="omni serve"):
        OmniClient(f"127.0.0.1:{unused_tcp_port}").connect()
    assert "omni-client" not in [thread.name for thread in threading.enumerate()]


async def test_a_recording_is_played_at_the_pace_of_the_clock(url, server):
    loop = asyncio.get_running_loop()
    recording = np.concatenate([tone(0.3, 16000), np.zeros(1600, np.float32)])
    async with AsyncOmniClient(url) as omni:
        spoken = await speak_in_real_time(omni, AudioChunk(recording, 16000), tail_silence=0.2)
        took = loop.time() - spoken.start
    assert took >= 0.6
    assert spoken.speech_end - spoken.start == pytest.approx(0.3, abs=0.011)
    assert spoken.late < took
    sent = sum(
        len(base64.b64decode(event["audio"]))
        for event in server.of_type("input_audio_buffer.append")
    )
    assert sent / 48000 == pytest.approx(0.6, abs=0.05)


def test_end_of_speech_ignores_quiet_noise_and_silence_altogether():
    noise = np.random.default_rng(0).normal(0, 1e-4, 8000).astype("f4")
    assert end_of_speech(AudioChunk(np.concatenate([tone(0.5, 16000), noise]), 16000)) == 0.5
    assert end_of_speech(AudioChunk(np.zeros(16000, np.float32), 16000)) == 1.0


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_resampling_in_pieces_equals_resampling_at_once_and_keeps_the_pitch(rate):
    sound = tone(0.7, rate)
    stream, streamed = WireAudio(), b""
    for begin in range(0, len(sound), 333):
        streamed += stream.feed(AudioChunk(sound[begin : begin + 333], rate))
    streamed += stream.flush()
    whole = audio_to_wire(sound, rate)
    assert len(streamed) == len(whole)
    spectrum = np.abs(np.fft.rfft(pcm16_to_float(streamed)))
    assert np.argmax(spectrum) * 24000 / (len(streamed) / 2) == pytest.approx(440, abs=2)


@pytest.mark.parametrize(
    ("audio", "rate", "words"),
    [
        (np.zeros((100, 2), np.float32), 16000, "send mono"),
        (np.zeros(100, np.float32), None, "sample rate is not known"),
        (np.zeros(100, np.float32), 100, "expected 4000 to"),
        (np.full(100, np.nan, np.float32), 16000, "NaN"),
        (np.full(100, 9000.0, np.float32), 16000, "int16"),
        (np.zeros(100, np.int64), 16000, "int64"),
        (np.zeros(601 * 8000, np.float32), 8000, "601 s long"),
        ("missing.wav", None, "no such file"),
    ],
)
def test_sound_that_cannot_be_sent_is_refused_in_words(audio, rate, words):
    with pytest.raises(MediaError, match=words):
        audio_to_wire(audio, rate)


def test_files_are_read_at_their_own_rate_with_channels_averaged(tmp_path):
    left, right = tone(0.2, 22050), np.zeros(4410, np.float32)
    stereo = (np.stack([left, right], 1) * 32767).astype("<i2")
    with wave.open(str(tmp_path / "two.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(22050)
        file.writeframes(stereo.tobytes())
    chunk = load_audio(tmp_path / "two.wav")
    assert chunk.sample_rate == 22050
    np.testing.assert_allclose(chunk.pcm, left / 2, atol=1e-3)


def test_compressed_files_are_read_too(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "tone.flac"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=16000, layout="mono")
        samples = (tone(0.5, 16000) * 32767).astype("i2")[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 16000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    chunk = load_audio(path)
    assert chunk.sample_rate == 16000
    np.testing.assert_allclose(chunk.pcm, tone(0.5, 16000), atol=1e-3)


@pytest.mark.parametrize("content", [b"", b"RIFF\x00\x00", b"not sound at all" * 50])
def test_files_without_sound_are_refused(tmp_path, content):
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"bad\.wav"):
        load_audio(path)


def test_a_reply_without_sound_cannot_be_saved_and_one_with_sound_can(tmp_path):
    with pytest.raises(MediaError, match="no sound"):
        Reply("words").save(tmp_path / "none.wav")
    Reply("words", AudioChunk(tone(0.1, 24000), 24000)).save(tmp_path / "some.wav")
    np.testing.assert_allclose(load_audio(tmp_path / "some.wav").pcm, tone(0.1, 24000), atol=1e-4)


def test_pictures_of_every_kind_become_jpeg_or_stay_as_they_are(tmp_path):
    pixels = np.zeros((20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.webp")
    for picture in (pixels, ImageFrame(pixels), Image.fromarray(pixels), tmp_path / "p.webp"):
        data, kind = image_to_wire(picture)
        assert kind == "image/jpeg"
        assert data.startswith(b"\xff\xd8\xff")
    Image.fromarray(pixels).save(tmp_path / "p.png")
    assert image_to_wire(str(tmp_path / "p.png")) == (
        (tmp_path / "p.png").read_bytes(),
        "image/png",
    )


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (b"", "not a picture"),
        (b"hello there", "not a picture"),
        (np.zeros((4, 4), np.uint8), "expected RGB uint8"),
        (np.zeros((4, 4, 3), np.float32), "expected RGB uint8"),
        (7, "int is no picture"),
        ("missing.jpg", "cannot read missing.jpg"),
    ],
)
def test_what_is_no_picture_is_refused_in_words(picture, words):
    with pytest.raises(MediaError, match=words):
        image_to_wire(picture)


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        ("http://127.0.0.1:7860", "ws://127.0.0.1:7860/v1/realtime?model=omni"),
        ("https://example.org/v1/", "wss://example.org/v1/realtime?model=omni"),
        ("ws://host:1/base", "ws://host:1/base/v1/realtime?model=omni"),
        ("localhost:7860", "ws://localhost:7860/v1/realtime?model=omni"),
        ("wss://host/v1/realtime?model=x", "wss://host/v1/realtime?model=x"),
    ],
)
def test_a_server_address_in_any_form_leads_to_its_realtime_socket(url, uri):
    assert realtime_uri(url, "omni") == uri


@pytest.mark.parametrize("url", ["ftp://host", "http://", ""])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(InputError, match="expected one like"):
        AsyncOmniClient(url)


def test_event_fields_are_attributes_and_a_missing_one_is_named():
    event = Event.parse('{"type": "response.output_text.delta", "delta": "Hel"}')
    assert event.delta == "Hel"
    with pytest.raises(AttributeError, match="has no field 'dleta'; it has delta"):
        _ = event.dleta


def test_importing_the_client_loads_neither_torch_nor_other_heavy_packages():
    code = "import sys, omni.client; print(sorted(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(result.stdout.replace("'", '"')))
    assert not loaded & {"torch", "transformers", "gradio", "fastapi", "pydantic", "av", "openai"}
