"""A recorded conversation brings the same events in the same order, each time."""

import asyncio
import base64
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import websockets
from realtime_types import checked

from omni.client import load_audio

pytestmark = pytest.mark.e2e

DATA = Path(__file__).parent.parent / "data"
RECORDING = DATA / "replay" / "ten_turns.jsonl"
ORDER = DATA / "replay" / "ten_turns.order.txt"


class Replay:
    """One run of the recording against the server; ``order`` is what came."""

    def __init__(self, socket) -> None:
        self._socket = socket
        self._ids = {"$spoken": "", "$call": ""}
        self.order: list[str] = []

    async def run(self) -> None:
        for line in RECORDING.read_text().splitlines():
            step = json.loads(line)
            if "until" in step:
                await self._until(step["until"])
            if "event" in step:
                await self._socket.send(json.dumps(self._filled(step["event"])))
            if "speech" in step:
                await self._speak(step)

    async def _until(self, kind: str) -> None:
        try:
            async with asyncio.timeout(90):
                while True:
                    event = json.loads(await self._socket.recv())
                    checked(event)
                    self._note(event)
                    if event["type"] == kind:
                        return
        except TimeoutError:
            raise AssertionError(f"no {kind}; the last came {self.order[-8:]}") from None

    def _note(self, event: dict) -> None:
        kind = event["type"]
        words = [kind]
        if kind.endswith(".delta"):
            words = ["…"]
        elif "item" in event:
            words += [event["item"]["type"], event["item"]["status"]]
        elif "response" in event:
            details = event["response"]["status_details"] or {}
            words += [event["response"]["status"], details.get("reason") or ""]
        elif kind == "error":
            words.append(event["error"]["code"])
        if kind == "response.output_audio.delta":
            self._ids["$spoken"] = event["item_id"]
        elif kind == "response.function_call_arguments.done":
            self._ids["$call"] = event["call_id"]
        line = " ".join(word for word in words if word)
        if line != "…" or self.order[-1] != "…":
            self.order.append(line)

    def _filled(self, value):
        if isinstance(value, dict):
            if value.get("type") == "input_image_buffer.append":
                picture = (DATA / value["image"]).read_bytes()
                return {**value, "image": base64.b64encode(picture).decode()}
            return {key: self._filled(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._filled(inner) for inner in value]
        if isinstance(value, str) and value.startswith("photos/"):
            data = base64.b64encode((DATA / value).read_bytes()).decode()
            return f"data:image/jpeg;base64,{data}"
        return self._ids.get(value, value) if isinstance(value, str) else value

    async def _speak(self, step: dict) -> None:
        clip = load_audio(DATA / "speech" / step["speech"])
        at = np.arange(0, len(clip.pcm), clip.sample_rate / 24_000)
        pcm = np.interp(at, np.arange(len(clip.pcm)), clip.pcm)
        end = int(step["end"] * 24_000) if "end" in step else None
        pcm = pcm[int(step.get("begin", 0) * 24_000) : end]
        pcm = np.concatenate([pcm, np.zeros(int(step.get("silence", 0) * 24_000))])
        data = (pcm * 32767).astype("<i2").tobytes()
        for begin in range(0, len(data), 9600):
            sound = base64.b64encode(data[begin : begin + 9600]).decode()
            event = {"type": "input_audio_buffer.append", "audio": sound}
            await self._socket.send(json.dumps(event))


async def replay(server: str) -> list[str]:
    url = server.replace("http", "ws") + "/v1/realtime?model=omni"
    async with websockets.connect(url, max_size=None) as socket:
        run = Replay(socket)
        await run.run()
        return run.order


async def test_ten_turns_bring_the_same_events_in_the_same_order_each_time(server):
    expected = ORDER.read_text().splitlines()
    for _ in range(2):
        assert await replay(server) == expected


def test_the_recording_has_what_it_is_about():
    order = ORDER.read_text()
    for what in (
        "conversation.item.added function_call in_progress",
        "response.done cancelled turn_detected",
        "response.done cancelled client_cancelled",
        "conversation.item.truncated",
        "input_audio_buffer.speech_stopped",
        "error item_retrieve_invalid_item_id",
    ):
        assert what in order
    assert order.count("response.created") >= 10


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    ORDER.write_text("".join(f"{line}\n" for line in asyncio.run(replay(sys.argv[1]))))
