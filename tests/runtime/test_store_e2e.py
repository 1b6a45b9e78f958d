"""Sessions that survive: the real server is killed, or its client's connection is."""

import asyncio
import base64
import contextlib
import json

import httpx
import pytest
import websockets

from encoders.media import read_audio
from support import DATA, start_server

pytestmark = pytest.mark.e2e

FRANCE = DATA / "speech" / "france_slt.flac"
CAT = DATA / "photos" / "cat.jpg"
DELTA = "response.output_audio_transcript.delta"


class Client:
    """A bare client that notes everything it is told."""

    def __init__(self, socket) -> None:
        self.socket = socket
        self.log: list[dict] = []

    async def send(self, kind, **fields) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def next(self) -> dict:
        event = json.loads(await self.socket.recv())
        self.log.append(event)
        assert event["type"] != "error", event
        return event

    async def until(self, kind) -> dict:
        async with asyncio.timeout(90):
            while (event := await self.next())["type"] != kind:
                pass
        return event

    def all(self, kind) -> list[dict]:
        return [event for event in self.log if event["type"] == kind]

    async def say(self, text, *images) -> None:
        content = [{"type": "input_text", "text": text}]
        for image in images:
            data = base64.b64encode(image.read_bytes()).decode()
            content.append({"type": "input_image", "image_url": f"data:image/jpeg;base64,{data}"})
        item = {"type": "message", "role": "user", "content": content}
        await self.send("conversation.item.create", item=item)

    async def ask(self, text, *images) -> str:
        await self.say(text, *images)
        await self.send("response.create", response={"output_modalities": ["text"]})
        done = (await self.until("response.done"))["response"]
        assert done["status"] == "completed", done
        return done["output"][-1]["content"][0]["text"]

    async def speak(self, path) -> None:
        pcm = (read_audio(path, 24_000).pcm * 32767).astype("<i2")
        silence = bytes(2 * 24_000)
        data = silence[:4_800] + pcm.tobytes() + 2 * silence
        for begin in range(0, len(data), 4_800):
            audio = base64.b64encode(data[begin : begin + 4_800]).decode()
            await self.send("input_audio_buffer.append", audio=audio)
            await asyncio.sleep(0.1)

    async def hear(self, letters) -> str:
        """The words of an answer until there are so many."""
        text = ""
        async with asyncio.timeout(60):
            while len(text) < letters:
                event = await self.next()
                text += event["delta"] if event["type"] == DELTA else ""
        return text

    async def replay(self) -> list[dict]:
        """The items as they are told to a client that has come back."""
        await self.send("input_audio_buffer.clear")
        await self.until("input_audio_buffer.cleared")
        return [event["item"] for event in self.all("conversation.item.done")]


@contextlib.asynccontextmanager
async def connected(url, session_id=None):
    query = "" if session_id is None else f"?session_id={session_id}"
    address = url.replace("http", "ws") + f"/v1/realtime{query}"
    async with websockets.connect(address, max_size=None) as socket:
        client = Client(socket)
        await client.until("session.created")
        yield client


async def story(client) -> str:
    """Begin a long spoken answer; gives its first words once many more have come."""
    change = {"instructions": "You are a teller of long stories.", "type": "realtime"}
    await client.send("session.update", session=change)
    await client.say("Tell me a long story about a fox, a crow and a cat.")
    await client.send("response.create")
    first = await client.hear(120)
    await client.hear(150)
    return first


def check(items, client, first) -> None:
    """All that ``client`` was told is in ``items``, and of the answer cut off the ``first`` words.

    What was acknowledged as done is there exactly as it was told.
    """
    here = {item["id"]: item for item in items}
    done = [event["item"] for event in client.all("conversation.item.done")]
    transcripts = {
        event["item_id"]: event["transcript"]
        for event in client.all("conversation.item.input_audio_transcription.completed")
    }
    assert transcripts
    for item in done:
        if item["id"] in transcripts:
            item["content"][-1]["transcript"] = transcripts[item["id"]]
        assert here[item["id"]] == item
    for event in client.all("response.done"):
        for item in event["response"]["output"]:
            assert here[item["id"]] == item
    assert [item["id"] for item in items[:-1]] == [item["id"] for item in done]
    cut = items[-1]
    assert (cut["role"], cut["status"]) == ("assistant", "incomplete")
    assert cut["content"][0]["transcript"].startswith(first)


async def converse(client) -> None:
    """A typed turn with a picture, and a spoken one."""
    await client.send("session.update", session={"type": "realtime", "temperature": 0})
    await client.ask("My name is Ada. What is this?", CAT)
    await client.speak(FRANCE)
    done = (await client.until("response.done"))["response"]
    assert "Paris" in done["output"][-1]["content"][0]["transcript"]


async def test_nothing_acknowledged_is_lost_when_the_server_is_killed_in_the_middle_of_an_answer(
    tmp_path,
):
    options = ("--data-dir", str(tmp_path / "sessions"))
    process, url = await asyncio.to_thread(start_server, tmp_path / "one.txt", *options)
    try:
        async with connected(url) as before:
            session = before.log[0]["session"]["id"]
            await converse(before)
            first = await story(before)
            process.kill()
            with contextlib.suppress(websockets.ConnectionClosed):
                while True:  # what was on its way was told, too
                    await before.next()
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)

    process, url = await asyncio.to_thread(start_server, tmp_path / "two.txt", *options)
    try:
        async with connected(url, session) as after:
            assert after.log[0]["session"]["id"] == session
            assert after.log[0]["session"]["instructions"] == "You are a teller of long stories."
            check(await after.replay(), before, first)
            change = {"type": "realtime", "instructions": "Answer in one short sentence."}
            await after.send("session.update", session=change)
            assert "Ada" in await after.ask("What is my name?")
            async with httpx.AsyncClient(base_url=f"{url}/v1/sessions") as http:
                media = (await http.get(f"/{session}")).json()["media"]
                pictures = [m for m in media if m["type"] == "image/jpeg"]
                sounds = [m for m in media if m["type"] == "audio/flac"]
                got = (await http.get(f"/{session}/media/{pictures[0]['name']}")).content
                assert got == CAT.read_bytes()
                heard = await http.get(f"/{session}/media/{sounds[0]['name']}")
                spoken = read_audio(heard.content)
                assert spoken.seconds > read_audio(FRANCE).seconds * 0.8
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)
    assert "Traceback" not in (tmp_path / "two.txt").read_text()


async def test_a_client_whose_connection_is_cut_comes_back_to_the_living_server(tmp_path):
    process, url = await asyncio.to_thread(
        start_server, tmp_path / "log.txt", "--data-dir", str(tmp_path / "sessions")
    )
    try:
        async with connected(url) as before:
            session = before.log[0]["session"]["id"]
            await converse(before)
            first = await story(before)
            before.socket.transport.abort()
        async with connected(url, session) as after:
            check(await after.replay(), before, first)
            assert "Ada" in await after.ask("What is my name? Answer in one short sentence.")
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
