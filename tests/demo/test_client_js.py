"""The JavaScript client, run by Node against the scripted server."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from realtime_fake import SOUND, FakeRealtime, call, words

SCRIPT = Path(__file__).with_name("omni_client_test.mjs")


class Client:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def do(self, step: str, argument: object = None) -> dict:
        self.process.stdin.write(json.dumps([step, argument]).encode() + b"\n")
        async with asyncio.timeout(20):
            line = await self.process.stdout.readline()
        return json.loads(line)

    async def value(self, step: str, argument: object = None):
        result = await self.do(step, argument)
        assert "error" not in result, result
        return result["value"]


@contextlib.asynccontextmanager
async def node(url: str) -> AsyncIterator[Client]:
    program = shutil.which("node")
    if not program:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("node is not installed")
    process = await asyncio.create_subprocess_exec(
        *(program, "--experimental-websocket", "--no-warnings", SCRIPT, url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Client(process)
    finally:
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 20)


@pytest.fixture
def server() -> FakeRealtime:
    return FakeRealtime()


@pytest.fixture
async def client(server):
    async with server.listening() as url, node(url) as client:
        yield client


async def test_a_question_is_answered_with_all_that_belongs_to_it(client, server):
    connected = await client.value("connect")
    assert connected == {"id": "sess_1", "open": True}
    server.answers = [[words("It is ", "Paris.")]]
    reply = await client.value("ask", {"question": "Capital?", "output_modalities": ["text"]})
    assert reply == {
        "text": "It is Paris.",
        "audio": None,
        "toolCalls": [],
        "transcript": None,
        "timings": {"first_token": 100.0},
        "usage": {"total_tokens": 3, "input_token_details": {"cached_tokens": 1}},
        "status": "completed",
    }
    options = server.of_type("response.create")[0]["response"]
    assert options["output_modalities"] == ["text"]


async def test_sound_goes_in_and_comes_out_as_samples(client, server):
    await client.value("connect")
    server.answers = [[words("Yes.", sound=True)]]
    reply = await client.value("spoken", [0.0, 0.5, -1.0, 2.0])
    np.testing.assert_allclose(reply["audio"], SOUND[:3] / 32768)
    audio, text = server.of_type("conversation.item.create")[0]["item"]["content"]
    sent = np.frombuffer(base64.b64decode(audio["audio"]), "<i2")
    np.testing.assert_allclose(sent, [0, 16384, -32767, 32767], atol=1)
    assert text == {"type": "input_text", "text": "And?"}


async def test_a_stream_of_sound_leaves_in_small_events(client, server):
    await client.value("connect")
    await client.value("audio", 6000)
    await server.until("input_audio_buffer.commit")
    sizes = [len(base64.b64decode(e["audio"])) for e in server.of_type("input_audio_buffer.append")]
    assert sizes == [4800, 4800, 2400]


async def test_tools_are_called_and_their_errors_told_to_the_model(client, server):
    await client.value("connect")
    server.answers = [
        [words("Let me see."), call("add", a=1, b=2), call("add", a=13, b=0)],
        [words("Three.")],
    ]
    reply = await client.value("ask", {"question": "1 + 2?", "tools": True})
    assert reply["text"] == "Let me see.\nThree."
    outputs = [(one["arguments"], one["output"]) for one in reply["toolCalls"]]
    assert outputs == [
        ({"a": 1, "b": 2}, "3"),
        ({"a": 13, "b": 0}, '{"error":"13 is not a number"}'),
    ]
    assert [one["output"] for one in server.outputs] == ["3", '{"error":"13 is not a number"}']
    assert reply["usage"]["total_tokens"] == 6
    first, second = (event["response"] for event in server.of_type("response.create"))
    assert first["tools"] == second["tools"]
    assert "run" not in first["tools"][0]


async def test_a_model_that_does_not_stop_calling_has_to_answer_in_words(client, server):
    await client.value("connect")
    server.answers = [[call("add", a=1, b=1)]] * 8 + [[words("Two.")]]
    reply = await client.value("ask", {"question": "?", "tools": True, "tool_choice": "required"})
    assert (reply["text"], len(reply["toolCalls"])) == ("Two.", 8)
    choices = [event["response"]["tool_choice"] for event in server.of_type("response.create")]
    assert choices == ["required", *["auto"] * 7, "none"]


async def test_tools_of_the_session_are_answered_in_live_talk(client, server):
    await client.value("connect")
    server.answers = [[call("add", a=1, b=2)], [words("Three.")]]
    assert await client.value("liveTool") == "Three."
    assert server.outputs[0]["output"] == "3"


async def test_an_answer_can_be_stopped_and_takes_too_long(client, server):
    await client.value("connect")
    server.answers = [[words("Once"), "wait"], [words("Twice"), "wait"]]
    assert (await client.do("stopped"))["error"] == "enough"
    await server.until("response.cancel")
    result = await client.do("ask", {"question": "Again", "timeout": 0.2})
    assert result["error"] == "no whole answer in 0.2 s"
    await server.until("response.cancel", 2)


async def test_a_lost_connection_is_restored_and_what_got_lost_is_sent_again(client, server):
    await client.value("connect")
    await client.value("ask", {"question": "Hello"})
    server.answers = [["drop"], [words("Paris.")]]
    assert (await client.value("ask", {"question": "Capital?"}))["text"] == "Paris."
    story = await client.value("waitFor", "client.disconnected")
    assert [name for name, _ in story] == [
        "client.connecting",
        "client.connected",
        "client.disconnected",
        "client.connecting",
        "client.connected",
    ]
    lost, back = story[2][1], story[4][1]
    assert (lost["cause"], lost["code"], lost["reason"]) == ("gone", 1011, "broken")
    assert (back["resumed"], len(back["resent"]), back["broken"]) == (True, 1, [])
    assert server.queries[1].endswith("session_id=sess_1")
    assert len(server.of_type("conversation.item.create")) == 2


async def test_an_answer_that_broke_off_is_an_error_and_the_session_goes_on(client, server):
    await client.value("connect")
    server.answers = [[words("It is "), "drop"]]
    result = await client.do("ask", {"question": "Capital?"})
    assert "in the middle of this answer" in result["error"]
    assert (await client.value("ask", {"question": "Hello"}))["text"] == "Yes."
    assert len(server.sessions) == 1


async def test_without_a_connection_messages_wait_and_sound_is_dropped(server, unused_tcp_port):
    async with server.listening(unused_tcp_port) as url:
        leaving = node(url)
        client = await leaving.__aenter__()
        await client.value("connect")
        await client.value("ask", {"question": "Hello"})
    await client.value("waitFor", "client.disconnected")
    assert not await client.value("send", ["input_audio_buffer.append", {"audio": "AAAA"}])
    assert await client.value("send", ["conversation.item.create", {"item": {"id": "late"}}])
    async with server.listening(unused_tcp_port):
        await client.value("waitFor", "client.connected")
        assert (await server.until("conversation.item.create", 2))["item"]["id"] == "late"
        await leaving.__aexit__(None, None, None)


async def test_a_session_in_which_nothing_was_said_is_begun_anew_with_its_settings(client, server):
    await client.value("connect")
    await client.value("update", {"instructions": "Be brief.", "audio": {"output": {"speed": 2}}})
    await client.value("update", {"audio": {"output": {"voice": "a"}}})
    await client.value("waitFor", "client.connected")
    server.sessions.clear()
    await server.sockets[0].close(1012)
    await client.value("waitFor", "client.connected")
    await server.until("session.update", 3)
    session = server.received[-1]["session"]
    assert session["instructions"] == "Be brief."
    assert session["audio"] == {"output": {"speed": 2, "voice": "a"}}


async def test_a_forgotten_session_is_told_and_connecting_again_opens_a_new_one(client, server):
    await client.value("connect")
    await client.value("ask", {"question": "Hello"})
    await client.value("waitFor", "client.connected")
    server.sessions.clear()
    await server.sockets[0].close(1012)
    result = await client.do("ask", {"question": "Hello"})
    assert result["error"] == "there is no session sess_1"
    assert result["code"] == "session_not_found"
    story = await client.value("waitFor", "client.disconnected")
    assert story[-1][1]["cause"] == "forgotten"
    assert story[-1][1]["wait"] is None


async def test_an_earlier_session_is_resumed_by_its_id(client, server):
    server.sessions["sess_9"] = {"items": [], "settings": {"id": "sess_9"}}
    assert (await client.value("connect", {"sessionId": "sess_9"}))["id"] == "sess_9"


@pytest.mark.parametrize(
    ("options", "code", "cause"),
    [({"reconnect": False}, 1013, "full"), ({}, 1008, "ended")],
)
async def test_a_server_that_does_not_want_the_session_is_believed(
    client, server, options, code, cause
):
    server.refuse = (code, "go away")
    result = await client.do("connect", options)
    assert (result["error"], result["omni"]) == ("go away", True)
    (_, (_, event)) = await client.value("waitFor", "client.disconnected")
    assert (event["cause"], event["wait"]) == (cause, None)


async def test_a_refused_question_rejects_with_what_the_server_said(client, server):
    async def refuse(socket, session, options):
        event_id = server.received[-1]["event_id"]
        error = {"code": "invalid_value", "message": "too hot", "event_id": event_id}
        await server.tell(socket, "error", error=error)

    await client.value("connect")
    server.respond = refuse
    result = await client.do("ask", {"question": "?", "temperature": 9})
    assert (result["error"], result["code"]) == ("too hot", "invalid_value")
    assert "nothing was asked" in (await client.do("ask", {"question": "  "}))["error"]


async def test_the_key_goes_as_a_subprotocol(server):
    from websockets.asyncio.server import serve

    seen = []

    async def handler(socket):
        seen.append(socket.request.headers["Sec-WebSocket-Protocol"])
        await server(socket)

    async with (
        serve(handler, "127.0.0.1", 0, subprotocols=["realtime"]) as listening,
        node(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}") as client,
    ):
        await client.value("connect", {"apiKey": "secret"})
    assert [part.strip() for part in seen[0].split(",")] == [
        "realtime",
        "openai-insecure-api-key.secret",
    ]


async def test_samples_survive_the_way_through_base64(client):
    text, back = await client.value("pcm", [0.0, 1.0, -1.0, 0.25])
    assert base64.b64decode(text) == np.array([0, 32767, -32767, 8192], "<i2").tobytes()
    np.testing.assert_allclose(back, [0, 1, -1, 0.25], atol=1e-4)
