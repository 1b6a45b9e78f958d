"""A scripted server, and the page in a real browser before it: what the tests of the page share.

The browser tests need the playwright package and a Chromium; without them they are skipped.
"""

import asyncio
import base64
import contextlib
import re
import threading
import time
import wave
from pathlib import Path

import numpy as np
import uvicorn
from fastapi import FastAPI, Header, HTTPException, WebSocket, WebSocketDisconnect

from demo.app import mount

RATE = 24000
QUESTION = "What is the capital of France?"
ANSWER = ["The capital ", "of France ", "is Paris, ", "a city on ", "the Seine."]
ANSWER_SECONDS = 4.0
STAGES = {"silence": 110.0, "turn_end": 260.0, "transcript": 310.0, "first_token": 480.0}
TIMINGS = {"speech_end": 0.0, **STAGES, "first_clause": 600.0, "first_audio": 640.0}


class ScriptedServer:
    """A part of the Realtime API: turns by loudness, always the same answer."""

    def __init__(self) -> None:
        self.received: list[dict] = []
        self.heard = bytearray()
        self.close_with: tuple[int, str] | None = None
        self.paused = False
        self.sessions = 0
        self.keeps = False
        self.key = ""
        self.items: list[dict] = []
        self.app = FastAPI()
        self.app.websocket("/v1/realtime")(self.talk)
        self.status = "ready"
        self.waits = False
        self.app.get("/health")(lambda: {"status": self.status, "model": "scripted"})
        self.app.get("/v1/models")(self.models)
        mount(self.app)

    def models(self, authorization: str = Header("")) -> dict:
        if self.key and authorization != f"Bearer {self.key}":
            raise HTTPException(401)
        return {"data": []}

    async def talk(self, ws: WebSocket) -> None:
        while self.waits:  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.02)
        offered = ws.scope["subprotocols"]
        if self.key and f"openai-insecure-api-key.{self.key}" not in offered:
            await ws.close(1008)
            return
        await ws.accept("realtime" if "realtime" in offered else None)
        self.sessions += 1
        if self.close_with:
            await ws.close(*self.close_with)
            return
        self.ws, self.turns, self.quiet, self.turn, self.response = ws, 0, 0.0, None, None
        self.position, self.held, self.pushes = 0.0, bytearray(), False
        self.loop = asyncio.get_running_loop()
        if "session_id" in ws.query_params and not self.keeps:
            error = {"code": "session_not_found", "message": "there is no such session"}
            await self.tell("error", error=error)
            await ws.close(1008, "session_not_found")
            return
        if "session_id" not in ws.query_params:
            self.items.clear()
        await self.tell("session.created", session={"id": "sess", "type": "realtime"})
        for item in self.items:
            await self.tell("conversation.item.added", item=item)
            await self.tell("conversation.item.done", item=item)
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                event = await ws.receive_json()
                if event["type"] == "input_audio_buffer.append":
                    await self.listen(base64.b64decode(event["audio"]))
                    continue
                self.received.append(event)
                if event["type"] == "conversation.item.create":
                    self.items.append(event["item"])
                    await self.tell("conversation.item.added", item=event["item"])
                if event["type"] == "conversation.item.retrieve":
                    error = {"code": "item_not_found", "event_id": event["event_id"]}
                    await self.tell("error", error=error | {"message": "there is no such item"})
                if event["type"] == "session.update":
                    sound = event["session"].get("audio", {}).get("input", {})
                    if "turn_detection" in sound:
                        self.pushes = sound["turn_detection"] is None
                if event["type"] == "input_audio_buffer.clear":
                    self.held.clear()
                    await self.tell("input_audio_buffer.cleared")
                if event["type"] == "input_audio_buffer.commit":
                    self.turns += 1
                    await self.tell("input_audio_buffer.committed", item_id=f"user_{self.turns}")
                    await self.transcribe(f"user_{self.turns}")
                if event["type"] == "response.create":
                    await self.respond(item="typed")
                if event["type"] == "response.cancel":
                    await self.finish("cancelled")

    async def tell(self, kind: str, **fields: object) -> None:
        await self.ws.send_json({"type": kind, **fields})

    async def listen(self, pcm: bytes) -> None:
        self.heard += pcm
        self.position += len(pcm) / 2 / RATE
        if self.pushes:
            self.held += pcm
            return
        samples = np.frombuffer(pcm, "<i2").astype("f4") / 32768
        loud = np.sqrt((samples**2).mean()) > 0.02
        self.quiet = 0.0 if loud else self.quiet + len(samples) / RATE
        if loud and self.turn is None:
            self.turns += 1
            self.turn = f"user_{self.turns}"
            await self.tell("input_audio_buffer.speech_started", item_id=self.turn)
            if self.response:
                await self.finish("cancelled")
        elif self.turn and self.quiet > 0.4:
            item, self.turn = self.turn, None
            end = round((self.position - self.quiet) * 1000)
            await self.tell("input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=end)
            await asyncio.sleep(0.05)
            await self.tell("input_audio_buffer.committed", item_id=item)
            await self.transcribe(item)
            await self.respond(item)

    async def transcribe(self, item: str) -> None:
        prefix = "conversation.item.input_audio_transcription."
        await self.tell(prefix + "delta", item_id=item, delta="What is ")
        await self.tell(prefix + "completed", item_id=item, transcript=QUESTION)

    async def respond(self, item: str) -> None:
        self.response = f"resp_{len(self.received)}_{item}"
        self.answer = f"answer_{len(self.received)}_{item}"
        ids = {"response_id": self.response, "item_id": self.answer}
        await self.tell("response.created", response={"id": self.response})
        message = {"id": self.answer, "type": "message", "role": "assistant"}
        await self.tell("response.output_item.added", response_id=self.response, item=message)
        if self.paused:
            return
        for words in ANSWER:
            await self.tell("response.output_audio_transcript.delta", delta=words, **ids)
        tone = 0.3 * np.sin(2 * np.pi * 330 * np.arange(int(RATE * ANSWER_SECONDS)) / RATE)
        pcm = (tone * 32767).astype("<i2").tobytes()
        for begin in range(0, len(pcm), 9600):
            delta = base64.b64encode(pcm[begin : begin + 9600]).decode()
            await self.tell("response.output_audio.delta", delta=delta, **ids)
        await self.tell("response.output_audio.done", **ids)
        await self.finish("completed")

    async def finish(self, status: str) -> None:
        done = {"id": self.response, "status": status, "output": [{"id": self.answer}]}
        self.response = None
        await self.tell("response.done", response=done | {"timings": TIMINGS})

    def close(self, code: int, reason: str) -> None:
        asyncio.run_coroutine_threadsafe(self.ws.close(code, reason), self.loop).result()

    def of_type(self, kind: str) -> list[dict]:
        return [event for event in list(self.received) if event["type"] == kind]

    def until(self, kind: str, count: int = 1, seconds: float = 10) -> dict:
        deadline = time.monotonic() + seconds
        while len(self.of_type(kind)) < count:
            assert time.monotonic() < deadline, f"no {kind} in {seconds} s"
            time.sleep(0.02)
        return self.of_type(kind)[count - 1]


@contextlib.contextmanager
def serving(app: FastAPI, port: int):
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_level="error", ws="websockets-sansio")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://localhost:{port}"
    finally:
        server.should_exit = True
        thread.join()


def write_question(path: Path) -> Path:
    """Half a second of silence, 1.2 s of a tone, 1.8 s of silence: it repeats in the browser."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(1.2 * 48000)) / 48000)
    sound = np.concatenate([np.zeros(24000), tone, np.zeros(int(1.8 * 48000))])
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    return path


def wait_for_state(page, *states: str, seconds: float = 15) -> None:
    css = ", ".join(f'#omni[data-state="{state}"]' for state in states)
    page.wait_for_selector(css, timeout=seconds * 1000)


def entries(page, role: str):
    return page.locator(f".omni-{role}")


def contrast(page, selector: str) -> float:
    """WCAG contrast of an element's text against the first background that is not transparent."""
    script = """(selector) => {
      let element = document.querySelector(selector);
      const ink = getComputedStyle(element).color;
      let paper = 'rgba(0, 0, 0, 0)';
      while (element && paper === 'rgba(0, 0, 0, 0)') {
        paper = getComputedStyle(element).backgroundColor;
        element = element.parentElement;
      }
      return [ink, paper];
    }"""
    lights = []
    for color in page.evaluate(script, selector):
        channels = np.array([float(x) for x in re.findall(r"[\d.]+", color)[:3]]) / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(lights) + 0.05) / (min(lights) + 0.05)
