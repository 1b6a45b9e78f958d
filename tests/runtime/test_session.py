"""The real server over tiny parts: real sockets, real clients, and clients that misbehave."""

import asyncio
import base64
import contextlib
import gc
import json
import logging
import threading
import time

import httpx
import numpy as np
import openai
import pytest
import websockets

from fakes import fake_parts
from omni.client import AsyncOmniClient
from omni.errors import BusyError, ConnectionClosedError, WeightsError
from runtime import server as server_module
from runtime import session as session_module
from runtime.engine import Engine
from runtime.server import Server, ServerConfig, create_app, listen

DEAF = {"max_queue": 1, "ping_interval": None, "compression": None, "close_timeout": 1}
"""Options of a client that takes one event and then no more; what it is owed stays as large."""
ENDLESS = "one two three, " * 4000


class Running:
    """A server in a thread; ``log`` holds what it logged at WARNING and above."""

    def __init__(self, build=None, config=None, **llm) -> None:
        self.engine: Engine | None = None
        self._build = build or (lambda: Engine(fake_parts(**llm), self.config.engine))
        self.config = config or ServerConfig(engine=Engine.Config(max_sessions=4))
        self.log: list[str] = []

    def __enter__(self):
        def build() -> Engine:
            self.engine = self._build()
            return self.engine

        listening = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self.ws = self.url.replace("http", "ws") + "/v1/realtime?model=omni"
        self.server = Server(create_app(self.config, build), self.config, listening)
        self._handler = logging.Handler(logging.WARNING)
        formatter = logging.Formatter()
        self._handler.emit = lambda record: self.log.append(formatter.format(record))
        for name in ("", "uvicorn"):
            logging.getLogger(name).addHandler(self._handler)
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()
        self.until(lambda: self.server.started)
        return self

    def __exit__(self, *error):
        self.server.should_exit = True
        self._thread.join(20)
        for name in ("", "uvicorn"):
            logging.getLogger(name).removeHandler(self._handler)
        assert not self._thread.is_alive(), "the server did not stop"
        gc.collect()

    @property
    def tracebacks(self) -> list[str]:
        return [line for line in self.log if "Traceback" in line]

    def health(self) -> httpx.Response:
        return httpx.get(f"{self.url}/health")

    def until(self, condition, seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not in {seconds} s; log: {self.log}"
            time.sleep(0.01)

    async def settled(self, condition, seconds: float = 10.0) -> None:
        await asyncio.to_thread(self.until, condition, seconds)


@pytest.fixture
def running():
    with Running() as running:
        running.until(lambda: running.health().status_code == 200)
        yield running
    assert not running.tracebacks, running.tracebacks


@contextlib.asynccontextmanager
async def talking(running, **options):
    """A bare websocket that has got its first events."""
    async with websockets.connect(running.ws, max_size=None, **options) as socket:
        assert json.loads(await socket.recv())["type"] == "session.created"
        assert json.loads(await socket.recv())["type"] == "conversation.created"
        yield socket


async def send(socket, **event) -> None:
    await socket.send(json.dumps(event))


async def until(socket, kind: str) -> list[dict]:
    seen = []
    async with asyncio.timeout(20):
        while not seen or seen[-1]["type"] != kind:
            seen.append(json.loads(await socket.recv()))
    return seen


async def say(socket, text: str, **options) -> None:
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    await send(socket, type="conversation.item.create", item=item)
    await send(socket, type="response.create", response=options)


async def ask(socket, text: str) -> str:
    await say(socket, text, output_modalities=["text"])
    done = (await until(socket, "response.done"))[-1]["response"]
    assert done["status"] == "completed", done
    return done["output"][0]["content"][0]["text"]


async def ask_for_much(socket) -> None:
    """Send little and be owed 20 MB."""
    content = [{"type": "input_text", "text": "x" * 200_000}]
    item = {"id": "long", "type": "message", "role": "user", "content": content}
    await send(socket, type="conversation.item.create", item=item)
    for _ in range(100):
        await send(socket, type="conversation.item.retrieve", item_id="long")


async def read_to_the_end(socket) -> None:
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            await socket.recv()


def sound(seconds: float, level: float = 0.0) -> str:
    pcm = np.full(int(seconds * 24_000), level * 32767).astype("<i2")
    return base64.b64encode(pcm.tobytes()).decode()


# Sessions


async def test_the_end_of_a_truncated_answer_is_a_whole_number_in_its_sound(running):
    async with talking(running) as socket:
        await say(socket, "hello")
        done = (await until(socket, "response.done"))[-1]
        where = {"item_id": done["response"]["output"][0]["id"], "content_index": 0}
        for wrong in ("5", 5.5, -1, 10**400, True, 10**6):
            await send(socket, type="conversation.item.truncate", **where, audio_end_ms=wrong)
            assert (await until(socket, "error"))[-1]["error"]["param"] == "audio_end_ms"
        await send(socket, type="conversation.item.truncate", **where, audio_end_ms=60)
        await until(socket, "conversation.item.truncated")


async def test_two_sessions_answer_at_once_and_know_nothing_of_each_other(running):
    async with talking(running) as one, talking(running) as two:
        answers = await asyncio.gather(
            *(
                ask(socket, f"{name} {i}")
                for i, (name, socket) in enumerate([("a", one), ("b", two)])
            )
        )
        assert answers == ["You said a 0.", "You said b 1."]
        await send(two, type="input_audio_buffer.append", audio=sound(0.5, 0.5))
        await until(two, "input_audio_buffer.speech_started")
        assert await ask(one, "still alone") == "You said still alone."


async def test_the_official_client_and_ours_talk_to_it(running):
    async with AsyncOmniClient(running.url) as client:
        reply = await client.ask("hello")
        assert reply.text == "You said hello."
        assert reply.audio is not None
    official = openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none")
    async with official.realtime.connect(model="omni") as connection:
        created = await connection.recv()
        assert created.type == "session.created"
        assert (await connection.recv()).type == "conversation.created"
        await connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
        updated = await connection.recv()
        assert updated.session.instructions == "Be brief."


async def test_an_offered_subprotocol_is_chosen(running):
    async with talking(running, subprotocols=["realtime", "openai-insecure-api-key.x"]) as socket:
        assert socket.subprotocol == "realtime"
    async with talking(running, subprotocols=["other"]) as socket:
        assert socket.subprotocol is None


async def test_a_full_server_says_so_and_has_room_when_a_session_ends(running):
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            last = await stack.enter_async_context(talking(running))
        async with websockets.connect(running.ws) as fifth:
            event = json.loads(await fifth.recv())
            assert event["type"] == "error"
            assert event["error"]["code"] == "server_full"
            assert "--max-sessions" in event["error"]["message"]
            with pytest.raises(websockets.ConnectionClosed):
                await fifth.recv()
            assert fifth.close_code == 1013
        with pytest.raises(BusyError):
            async with AsyncOmniClient(running.url):
                pass
        await last.close()
        await running.settled(lambda: running.engine.sessions == 3)
        async with talking(running) as socket:
            assert await ask(socket, "hi") == "You said hi."


async def test_a_client_that_vanishes_in_the_middle_of_an_answer_frees_its_session():
    with Running(script=lambda asked: ENDLESS, pace=0.001) as running:
        for _ in range(3):
            async with talking(running) as socket:
                await say(socket, "talk")
                await until(socket, "response.output_audio.delta")
                socket.transport.abort()
        await running.settled(lambda: running.engine.sessions == 0)
        await running.settled(lambda: running.engine._device.generator.idle)
    assert not running.tracebacks


async def test_a_question_right_after_a_cancel_is_answered():
    with Running(script=lambda asked: ENDLESS if asked == "talk" else "Yes.", pace=0.01) as running:
        async with talking(running) as socket:
            await say(socket, "talk")
            await until(socket, "response.output_audio.delta")
            for _ in range(3):
                await send(socket, type="response.cancel")
                await say(socket, "and now?", output_modalities=["text"])
            statuses = []
            while len(statuses) < 4:
                seen = await until(socket, "response.done")
                assert not [e for e in seen if e["type"] == "error"], seen
                statuses.append(seen[-1]["response"]["status"])
            assert statuses == ["cancelled"] * 3 + ["completed"]
            assert seen[-1]["response"]["output"][0]["content"][0]["text"] == "Yes."
    assert not running.tracebacks


# Limits


async def test_sound_that_comes_too_fast_waits_and_none_of_it_is_lost():
    seconds, chunk = 40, sound(0.1)
    most = 0.0

    with Running() as running:
        running.until(lambda: running.engine is not None)
        feed = running.engine.parts.vad.stream().feed

        class SlowVad:
            def feed(self, pcm):
                time.sleep(0.002)
                return feed(pcm)

        running.engine.parts.vad.stream = SlowVad
        async with talking(running) as socket:
            (key,) = running.engine._sessions
            session = running.engine._sessions[key]
            await send(
                socket,
                type="session.update",
                session={"type": "realtime", "audio": {"input": {"turn_detection": None}}},
            )
            await until(socket, "session.updated")
            for _ in range(seconds * 10):
                await send(socket, type="input_audio_buffer.append", audio=chunk)
                most = max(most, running.engine.backlog(key))
            await send(socket, type="input_audio_buffer.commit")
            await until(socket, "conversation.item.done")
            await running.settled(lambda: running.engine.backlog(key) < 1e-6)
            assert session.position == pytest.approx(seconds)
            assert (
                running.engine.config.max_backlog - 1
                < most
                < (running.engine.config.max_backlog + 0.11)
            )
    assert not running.tracebacks


async def test_a_client_that_never_reads_is_let_go_with_the_reason_and_the_others_go_on(
    monkeypatch,
):
    monkeypatch.setattr(session_module, "HIGH_WATER", 2_000_000)
    monkeypatch.setattr(session_module, "FLUSH", 0.2)
    with Running(script=lambda asked: "Yes.") as running:
        async with talking(running) as other, websockets.connect(running.ws, **DEAF) as deaf:
            await ask_for_much(deaf)
            await running.settled(lambda: running.engine.sessions == 1)
            assert await ask(other, "are you there?") == "Yes."
            # It reads at last, and learns why.
            await read_to_the_end(deaf)
            assert (deaf.close_code, deaf.close_reason) == (1008, "the client reads too slowly")
    assert not running.tracebacks


async def test_a_server_stops_though_a_client_never_reads(monkeypatch):
    monkeypatch.setattr(session_module, "FLUSH", 0.2)
    monkeypatch.setattr(server_module, "LINGER", 0.5)
    with Running() as running:
        async with websockets.connect(running.ws, **DEAF) as deaf:
            await ask_for_much(deaf)
            await running.settled(lambda: _stuck(running))
            began = time.monotonic()
            await asyncio.to_thread(running.__exit__)
            assert time.monotonic() - began < 4.0
            assert running.log == []


def _stuck(running) -> bool:
    """Whether some socket takes no more."""
    return any(not c.writable.is_set() for c in running.server.server_state.connections)


async def test_a_message_that_is_too_large_ends_only_its_session(running, monkeypatch):
    async with talking(running) as other, talking(running) as socket:
        await socket.send("x" * (server_module.MAX_MESSAGE + 1))
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1009
        assert await ask(other, "and you?") == "You said and you?."
        await running.settled(lambda: running.engine.sessions == 1)


async def test_pictures_that_come_faster_than_they_are_seen_wait_but_only_the_last_frame_counts(
    running,
):
    gate = threading.Event()
    see = running.engine.parts.sight.encode
    seen = []

    def encode(frames):
        gate.wait(10)
        seen.append(frames)
        return see(frames)

    running.engine.parts.sight.encode = encode
    png = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
    )
    async with talking(running) as socket:
        frame = base64.b64encode(png).decode()
        for _ in range(30):
            await send(socket, type="input_image_buffer.append", image=frame)
        gate.set()
        await ask(socket, "what is it?")
        assert len(seen) < 30


# What is not an event


async def test_wrong_messages_get_an_error_and_the_session_goes_on(running):
    deep = '{"type":"session.update","session":' + '{"a":' * 700 + "1" + "}" * 700 + "}"
    wrong = [
        b"\xff\xfe\x00",
        b"\x00",
        "",
        "null",
        "NaN",
        '{"type": 5}',
        '{"type": ["session.update"]}',
        "[" * 100_000,
        deep,
        '{"type": "response.create", "event_id": "\\ud800"}',
        *(
            json.dumps({"type": "session.update", "session": {"type": "realtime", **change}})
            for change in (
                {"audio": "x"},
                {"audio": {"input": {"format": "pcm16"}}},
                {"audio": {"input": {"turn_detection": {"type": []}}}},
                {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": "1"}}}},
                {"id": "mine"},
                {"model": "another"},
                {"max_output_tokens": "5"},
                {"max_output_tokens": True},
            )
        ),
        *(
            json.dumps({"type": "response.create", "response": change})
            for change in (
                {"input": "x"},
                {"input": ["x"]},
                {"input": [{"type": "item_reference"}]},
                {"max_output_tokens": "5"},
                {"audio": {"output": {"format": {"type": "audio/mp3"}}}},
            )
        ),
        *(
            json.dumps({"type": "conversation.item.create", "item": item})
            for item in (
                {"type": "message", "role": [], "content": []},
                {"type": "message", "role": "user", "content": [{"type": {}}]},
            )
        ),
    ]
    async with talking(running) as socket:
        for message in wrong:
            await socket.send(message)
            event = json.loads(await socket.recv())
            assert event["type"] == "error", message[:80]
            assert event["error"]["type"] == "invalid_request_error"
        # Text that is no UTF-8: no client sends it through its library.
        socket.protocol.send_text(b'{"type": "\xff"}')
        socket.transport.write(b"".join(socket.protocol.data_to_send()))
        event = json.loads(await socket.recv())
        assert event["error"]["code"] == "invalid_json"
        # A binary frame that holds an event is as good as a text frame.
        await socket.send(json.dumps({"type": "input_audio_buffer.clear"}).encode())
        assert (await until(socket, "input_audio_buffer.cleared"))[0]["type"] != "error"
        assert await ask(socket, "fine?") == "You said fine?."


# Origins and health


async def test_only_pages_of_this_server_or_of_allowed_origins_may_connect():
    config = ServerConfig(origins=("https://allowed.example",))
    with Running(config=config) as running:
        for origin in (
            "https://elsewhere.example",
            "null",
            "http://[",
            "http://127.0.0.1:1",
        ):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(running.ws, origin=origin)
            assert refused.value.response.status_code == 403
        # A name of another's that was made to point at this machine.
        port = running.url.rpartition(":")[2]
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(
                running.ws.replace("127.0.0.1", "rebound.example"),
                host="127.0.0.1",
                port=int(port),
                origin=f"http://rebound.example:{port}",
                proxy=None,
            )
        for origin in (running.url, "https://allowed.example", None):
            async with talking(running, origin=origin):
                pass
    assert not running.tracebacks


async def test_health_tells_starting_ready_and_failed_and_a_session_waits_for_the_models():
    gate = threading.Event()

    def build() -> Engine:
        gate.wait(10)
        return Engine(fake_parts())

    with Running(build) as running:
        response = await asyncio.to_thread(running.health)
        assert (response.status_code, response.json()["status"]) == (503, "starting")
        async with websockets.connect(running.ws) as early:
            gone = await websockets.connect(running.ws)
            await gone.close()
            gate.set()
            assert json.loads(await early.recv())["type"] == "session.created"
            response = await asyncio.to_thread(running.health)
            assert response.status_code == 200
            body = response.json()
            assert (body["status"], body["model"]) == ("ready", "scripted")
        await running.settled(lambda: running.engine.sessions == 0)
    assert not running.tracebacks


async def test_a_failed_start_is_told_to_health_and_to_sessions():
    def build() -> Engine:
        raise WeightsError("the disk is full; free 1 GB")

    with Running(build) as running:
        await running.settled(lambda: running.health().json()["status"] == "failed")
        response = await asyncio.to_thread(running.health)
        assert response.status_code == 503
        assert response.json()["problem"] == "the disk is full; free 1 GB"
        async with websockets.connect(running.ws) as socket:
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 1013
    assert not running.tracebacks


async def test_sessions_learn_that_the_server_shuts_down():
    with Running(script=lambda asked: ENDLESS, pace=0.001) as running:
        client = AsyncOmniClient(running.url, reconnect=False)
        async with client, talking(running) as socket:
            await say(socket, "talk")
            await until(socket, "response.output_audio.delta")
            await asyncio.to_thread(running.__exit__)
            await read_to_the_end(socket)
            assert socket.close_code == 1001
            assert socket.close_reason == "the server is shutting down"
            with pytest.raises(ConnectionClosedError, match="shutting down"):
                async for _ in client.events():
                    pass
        assert not [t for t in threading.enumerate() if t.name.startswith("omni-d")]
    assert not running.tracebacks
