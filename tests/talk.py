"""A conversation under a virtual clock, for tests that play the engine themselves."""

import base64
import itertools
import json

import numpy as np
from openai.types import realtime as rt
from pydantic import TypeAdapter

from omni import events as ev
from omni.types import AudioChunk, Transcript, Usage
from runtime.conversation import Conversation
from runtime.records import DropItem, KeepItem, KeepSettings, Record, Saved
from runtime.settings import Defaults

SERVER_EVENT = TypeAdapter(rt.RealtimeServerEvent)
STEP = 0.032


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Talk:
    """A conversation under a virtual clock, with the engine played by the test."""

    def __init__(self, **session) -> None:
        counter = itertools.count(1)
        self.clock = Clock()
        self.machine = Conversation(
            Defaults(voices=("heart",), languages=frozenset({"en", "zh"})),
            clock=self.clock,
            new_id=lambda p: f"{p}_{next(counter)}",
        )
        self.events: list[dict] = []
        self.commands: list[ev.Command] = []
        self.records: list[Record] = []
        self.position = 0.0
        self._note(self.machine.open())
        if session:
            self.send("session.update", session={"type": "realtime", **session})

    def _note(self, effects):
        for effect in effects:
            if isinstance(effect, dict):
                self.events.append(effect)
                if effect["type"] == "input_audio_buffer.partial_transcript":
                    continue  # our own
                SERVER_EVENT.validate_python(json.loads(json.dumps(effect)))
            elif isinstance(effect, Record):
                self.records.append(effect)
            else:
                self.commands.append(effect)

    def send(self, kind: str, **fields):
        self._note(self.machine.receive(json.dumps({"type": kind, **fields})))

    def engine(self, event):
        self._note(self.machine.handle(event))

    def sound(self, probability: float, seconds: float):
        for _ in range(round(seconds / STEP)):
            pcm = np.zeros(768, "<i2").tobytes()
            self.clock.now += STEP
            self.position += STEP
            self.send("input_audio_buffer.append", audio=base64.b64encode(pcm).decode())
            self.engine(ev.VoiceActivity((probability,), self.position, STEP, self.clock.now))

    def last(self, kind: type):
        return next(c for c in reversed(self.commands) if isinstance(c, kind))

    def named(self, kind: str) -> list[dict]:
        return [e for e in self.events if e["type"] == kind]

    @property
    def types(self) -> list[str]:
        return [e["type"] for e in self.events]

    def hear(self, text: str):
        key = self.last(ev.Transcribe).key
        self.engine(ev.Transcribed(key, Transcript(text, "en", 1.0), self.clock.now))

    def turn(self, text: str):
        """The user says ``text``; the turn ends; the transcript arrives."""
        self.sound(0.9, 1.0)
        self.sound(0.01, 0.16)
        judge = self.last(ev.JudgeTurn)
        self.engine(ev.TurnJudged(judge.key, 0.95, self.clock.now))
        self.sound(0.01, 0.16)
        self.hear(text)

    def answer(
        self, text: str, seconds: float = 1.0, end: bool = True, heard: float | None = None
    ) -> str:
        start = self.last(ev.Start)
        now = self.clock.now
        self.engine(ev.TextDelta(start.response_id, text, now))
        self.engine(ev.ClauseReady(start.response_id, text, now))
        if start.speak:
            chunk = AudioChunk(np.zeros(int(24_000 * seconds), np.float32), 24_000)
            self.engine(ev.AudioDelta(start.response_id, chunk, text, True, now))
        if end:
            self.end()
            self.clock.now += seconds if heard is None else heard
        return start.response_id

    def end(self, reason: str = "stop"):
        start = self.last(ev.Start)
        self.engine(ev.ResponseDone(start.response_id, reason, Usage(20, 10, 5), self.clock.now))


def read(command: ev.Start | ev.Prepare) -> list[tuple[str, str]]:
    return [(m.role, m.text) for m in command.messages if m.role != "system"]


def typed(text: str) -> dict:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def call(talk: Talk, arguments: str = '{"city":"Oslo"}', index: int = 0, end: bool = True):
    start = talk.last(ev.Start)
    now = talk.clock.now
    talk.engine(ev.ToolCallStarted(start.response_id, index, "weather", now))
    half = len(arguments) // 2
    talk.engine(ev.ToolCallDelta(start.response_id, index, arguments[:half], now))
    talk.engine(ev.ToolCallDelta(start.response_id, index, arguments[half:], now))
    if end:
        talk.engine(ev.ToolCallEnded(start.response_id, index, arguments, now))


def kept(talk: Talk) -> Saved:
    """What a store would give back."""
    items: list[dict] = []
    settings: dict = {}
    for record in talk.records:
        match record:
            case KeepSettings(settings):
                pass
            case KeepItem(index, data):
                if any(item["id"] == data["id"] for item in items):
                    assert items[index]["id"] == data["id"]
                    items[index] = data
                else:
                    items.insert(index, data)
            case DropItem(item_id):
                items = [item for item in items if item["id"] != item_id]
    machine = talk.machine
    return Saved(
        machine.id,
        machine.conversation_id,
        json.loads(json.dumps(settings)),
        tuple(json.loads(json.dumps(items))),
    )
