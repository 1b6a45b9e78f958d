"""Sessions that survive, over real sockets and tiny parts."""

import asyncio
import base64
import contextlib
import json
import threading

import httpx
import numpy as np
import pytest
import websockets
from test_session import ENDLESS, Running, ask, say, send, until

from encoders.media import read_audio
from omni.errors import StoreError
from runtime.archive import Archive
from runtime.engine import Engine
from runtime.server import ServerConfig
from runtime.store import Keep

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@contextlib.contextmanager
def keeping(directory, *, keys=(), **options):
    keep = Keep(directory) if directory is not None else None
    config = ServerConfig(engine=Engine.Config(max_sessions=4), keep=keep, api_keys=keys)
    with Running(config=config, **options) as running:
        running.until(lambda: running.health().status_code == 200)
        yield running
    assert not running.tracebacks, running.tracebacks


@pytest.fixture
def running(tmp_path):
    with keeping(tmp_path) as running:
        yield running


@contextlib.asynccontextmanager
async def connected(running, session_id=None, **options):
    """A socket and the session that it opened."""
    query = "" if session_id is None else f"&session_id={session_id}"
    async with websockets.connect(running.ws + query, max_size=None, **options) as socket:
        created = json.loads(await socket.recv())
        assert created["type"] == "session.created", created
        assert json.loads(await socket.recv())["type"] == "conversation.created"
        yield socket, created["session"]


async def refusal(running, session_id, **options):
    async with websockets.connect(f"{running.ws}&session_id={session_id}", **options) as socket:
        error = json.loads(await socket.recv())["error"]
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
        return error["code"], error["message"].replace(session_id, "ID"), socket.close_code


async def replayed(socket) -> list[dict]:
    """The items of the conversation as a client that has come back is told them."""
    await send(socket, type="input_audio_buffer.clear")
    events = await until(socket, "input_audio_buffer.cleared")
    done = [e["item"] for e in events if e["type"] == "conversation.item.done"]
    added = [e["item"] for e in events if e["type"] == "conversation.item.added"]
    assert added == done
    return done


def spoken(event) -> str:
    """The words of an answer that an event carries."""
    delta = event["type"] == "response.output_audio_transcript.delta"
    return event["delta"] if delta else ""


def words(items) -> list[str]:
    return [p.get("text") or p.get("transcript") or "" for item in items for p in item["content"]]


async def closed(running) -> None:
    await running.settled(lambda: running.engine.sessions == 0)


async def test_a_client_that_comes_back_goes_on_where_it_was(running):
    async with connected(running) as (socket, session):
        change = {"type": "realtime", "instructions": "Be brief.", "temperature": 0.5}
        await send(socket, type="session.update", session=change)
        await ask(socket, "my name is Ada")
        socket.transport.abort()
    await closed(running)
    asked = []
    tokenizer = running.engine.parts.llm.tokenizer
    encode = tokenizer.encode_chat

    def encoding(messages, *rest, **more):
        asked.append([message.text for message in messages])
        return encode(messages, *rest, **more)

    tokenizer.encode_chat = encoding
    async with connected(running, session["id"]) as (socket, again):
        assert again == {**session, "instructions": "Be brief.", "temperature": 0.5}
        items = await replayed(socket)
        assert words(items) == ["my name is Ada", "You said my name is Ada."]
        assert [item["status"] for item in items] == ["completed", "completed"]
        await ask(socket, "what is my name?")
        assert asked[-1][:4] == [
            "Be brief.",
            "my name is Ada",
            "You said my name is Ada.",
            "what is my name?",
        ]
        # What is deleted stays deleted.
        await send(socket, type="conversation.item.delete", item_id=items[0]["id"])
        await until(socket, "conversation.item.deleted")
    await closed(running)
    async with connected(running, session["id"]) as (socket, _):
        assert words(await replayed(socket))[0] == "You said my name is Ada."


async def test_an_acknowledgement_waits_for_the_disk_and_nothing_before_it_does(running):
    begun, gate = threading.Event(), threading.Event()
    archive = running.server._app.state.hub.store._archive
    write = archive.write

    def slowly(batch):
        begun.set()
        gate.wait(10)
        return write(batch)

    archive.write = slowly
    async with connected(running) as (socket, _):
        content = [{"type": "input_text", "text": "hello"}]
        item = {"id": "mine", "type": "message", "role": "user", "content": content}
        await send(socket, type="input_audio_buffer.clear")
        await send(socket, type="conversation.item.create", item=item)
        await until(socket, "input_audio_buffer.cleared")
        assert await asyncio.to_thread(begun.wait, 10)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.recv(), 0.2)
        gate.set()
        events = await until(socket, "conversation.item.done")
        assert events[0]["type"] == "conversation.item.added"


async def test_a_newcomer_takes_a_session_over_with_all_that_it_was_told(tmp_path):
    with keeping(tmp_path, script=lambda asked: ENDLESS, pace=0.001) as running:
        async with connected(running) as (old, session):
            await say(old, "talk")
            text = ""
            while len(text) < 300:
                text += spoken(json.loads(await old.recv()))
            async with connected(running, session["id"]) as (new, _):
                with contextlib.suppress(websockets.ConnectionClosed):
                    while True:
                        text += spoken(json.loads(await old.recv()))
                assert old.close_code == 4001
                assert old.close_reason == "the session goes on over another connection"
                _, answer = await replayed(new)
                assert answer["status"] == "incomplete"
                assert words([answer])[0].startswith(text)
                assert running.engine.sessions == 1


async def test_unknown_sessions_and_those_of_others_get_the_same_answer(tmp_path):
    with keeping(tmp_path, keys=("key-of-ann", "key-of-bob")) as running:
        ann, bob = (
            {"additional_headers": {"Authorization": f"Bearer key-of-{name}"}}
            for name in ("ann", "bob")
        )
        async with connected(running, **ann) as (socket, session):
            await ask(socket, "hello")
            stranger = await refusal(running, session["id"], **bob)
            assert stranger == await refusal(running, "sess_unknown", **bob)
            assert (stranger[0], stranger[2]) == ("session_not_found", 1008)
            assert await ask(socket, "still here?") == "You said still here?."
        await closed(running)
        async with connected(running, session["id"], **ann) as (_, again):
            assert again["id"] == session["id"]


async def test_a_client_secret_brings_settings_and_its_sessions_belong_to_its_key(tmp_path):
    with keeping(tmp_path, keys=("key-of-ann", "key-of-bob")) as running:
        ann = {"Authorization": "Bearer key-of-ann"}

        async def secret(instructions):
            session = {"type": "realtime", "instructions": instructions}
            async with httpx.AsyncClient(base_url=running.url, headers=ann) as http:
                body = await http.post("/v1/realtime/client_secrets", json={"session": session})
            return {"additional_headers": {"Authorization": f"Bearer {body.json()['value']}"}}

        async with connected(running, **await secret("Be brief.")) as (socket, session):
            updated = (await until(socket, "session.updated"))[-1]["session"]
            assert updated["instructions"] == "Be brief."
            change = {"type": "realtime", "instructions": "Be briefer."}
            await send(socket, type="session.update", session=change)
            await ask(socket, "hello")
        await closed(running)
        # What was set in the session is what goes on, also with another secret of the same key.
        async with connected(running, session["id"], **await secret("Be long.")) as (_, again):
            assert again["instructions"] == "Be briefer."


async def test_a_session_in_which_nothing_was_said_leaves_nothing_behind(running, tmp_path):
    async with connected(running) as (socket, session):
        change = {"type": "realtime", "instructions": "a secret"}
        await send(socket, type="session.update", session=change)
        await until(socket, "session.updated")
    await closed(running)
    assert (await refusal(running, session["id"]))[0] == "session_not_found"
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"a secret" in data for data in written)


async def test_a_server_that_keeps_nothing_resumes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with keeping(None) as running:
        async with connected(running) as (socket, session):
            await ask(socket, "hello")
        await closed(running)
        assert (await refusal(running, session["id"]))[0] == "session_not_found"
        response = await asyncio.to_thread(httpx.get, f"{running.url}/v1/sessions")
        assert response.status_code == 404
        assert "--keep" in response.json()["error"]["message"]
    assert list(tmp_path.iterdir()) == []


async def test_a_disk_that_fails_is_told_once_and_the_session_goes_on(running):
    archive = running.server._app.state.hub.store._archive
    write, full = archive.write, StoreError("the disk is full")
    archive.write = lambda batch: [full] * len(batch)
    async with connected(running) as (socket, session):
        events = []
        for text in ("one", "two"):
            await say(socket, text, output_modalities=["text"])
            events += await until(socket, "response.done")
        errors = [e["error"] for e in events if e["type"] == "error"]
        assert [(e["type"], e["code"]) for e in errors] == [("server_error", "not_kept")]
        # There is room again: what is said from now on is kept.
        archive.write = write
        await ask(socket, "three")
    await closed(running)
    async with connected(running, session["id"]) as (socket, _):
        assert words(await replayed(socket))[-2:] == ["three", "You said three."]


async def test_what_was_spoken_and_shown_is_kept_as_files(running, tmp_path):
    loud = np.full(12_000, 16_000, "<i2")
    silence = np.zeros(48_000, "<i2")
    async with connected(running) as (socket, session):
        await send(socket, type="input_image_buffer.append", image=base64.b64encode(PNG).decode())
        for begin in range(0, 60_000, 2_400):
            piece = np.concatenate([loud, silence])[begin : begin + 2_400]
            audio = base64.b64encode(piece.tobytes()).decode()
            await send(socket, type="input_audio_buffer.append", audio=audio)
        await until(socket, "response.done")
    await closed(running)
    with contextlib.closing(Archive(tmp_path, create=False)) as archive:
        media = archive.media(session["id"])
        items = archive.load(session["id"]).items
    by_type = {medium.type: medium for medium in media}
    assert by_type["image/png"].path.read_bytes() == PNG
    names = {part["media"] for part in items[0]["parts"]}
    heard = next(m for m in media if m.name in names and m.type == "audio/flac")
    pcm = read_audio(heard.path, 24_000).pcm
    assert np.count_nonzero(pcm == np.float32(16_000 / 32768)) == 12_000
    assert 0.5 <= heard.seconds <= 2.5
    # The answer's sound too.
    assert [m for m in media if m.name in {p["media"] for p in items[1]["parts"]}]


async def test_conversations_are_listed_fetched_and_deleted_over_http(running, tmp_path):
    async with connected(running) as (socket, session):
        content = [
            {"type": "input_text", "text": "my passport"},
            {
                "type": "input_image",
                "image_url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}",
            },
        ]
        item = {"type": "message", "role": "user", "content": content}
        await send(socket, type="conversation.item.create", item=item)
        await until(socket, "conversation.item.done")
        async with httpx.AsyncClient(base_url=running.url) as http:
            listed = (await http.get("/v1/sessions")).json()
            assert [(s["id"], s["title"]) for s in listed["data"]] == [
                (session["id"], "my passport")
            ]
            assert listed["has_more"] is False
            path = f"/v1/sessions/{session['id']}"
            fetched = (await http.get(path)).json()
            (medium,) = fetched["media"]
            picture = await http.get(f"{path}/media/{medium['name']}")
            assert (picture.content, picture.headers["content-type"]) == (PNG, "image/png")
            for wrong in (f"{path}/media/../../sessions.db", f"{path}/media/x", "/v1/sessions/x"):
                assert (await http.get(wrong)).status_code == 404
            assert (await http.get("/v1/sessions?limit=0")).status_code == 400
            assert (await http.delete(path)).json()["deleted"] is True
            assert (await http.delete(path)).status_code == 404
            # It goes on, but nothing of it is kept any more.
            await ask(socket, "another secret")
            assert (await http.get(path)).status_code == 404
    await closed(running)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(secret in data for data in written for secret in (b"passport", b"secret", PNG))


async def test_a_server_that_is_stopped_keeps_the_answer_as_far_as_it_was_sent(tmp_path):
    text = ""
    with keeping(tmp_path, script=lambda asked: ENDLESS, pace=0.001) as running:
        async with connected(running) as (socket, session):
            await say(socket, "talk")
            while len(text) < 300:
                text += spoken(json.loads(await socket.recv()))
            await asyncio.to_thread(running.__exit__)
    with keeping(tmp_path) as running:
        async with connected(running, session["id"]) as (socket, _):
            _, answer = await replayed(socket)
            assert words([answer])[0].startswith(text)
            assert await ask(socket, "and now?") == "You said and now?."
