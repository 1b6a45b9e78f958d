"""The wire under random clients: valid, wrong, huge, cut short and binary events in any order."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import random

import numpy as np
import websockets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from realtime_types import checked, resolves
from test_session import Running

from omni import events as ev
from omni.types import AudioChunk, Span, Transcript, Usage
from runtime.conversation import Conversation
from runtime.engine import Engine
from runtime.server import ServerConfig
from runtime.settings import Defaults
from runtime.wire import CLIENT_EVENTS

STEP = 0.032
ABOUT_THE_SESSION = {
    "invalid_json",
    "invalid_event",
    "conversation_already_has_active_response",
    "response_cancel_not_active",
    "input_audio_buffer_commit_empty",
    "output_audio_buffer_clear_empty",
    "too_many",
}
"""Codes of errors that no field of the event is to blame for."""
LONGEST_MESSAGE = 2_000
"""Letters of an error's message: what was sent is not sent back whole."""


def sound(seconds: float, level: float = 0.5) -> str:
    pcm = np.full(int(seconds * 24_000), level * 32767).astype("<i2")
    return base64.b64encode(pcm.tobytes()).decode()


PICTURE = "data:image/png;base64,aGVsbG8="
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


def message(role: str, *content: dict, **fields) -> dict:
    return {"type": "message", "role": role, "content": list(content), **fields}


HELLO = message("user", {"type": "input_text", "text": "Hello."})
# $item, $last, $response and $call stand for ids that the conversation has given out.
VALID: list[dict] = [
    {"type": "session.update", "session": {"type": "realtime", "instructions": "Be brief."}},
    {
        "type": "session.update",
        "session": {
            "type": "realtime",
            "model": "gpt-realtime",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": {"model": "whisper-1", "language": "en", "partial": True},
                    "noise_reduction": {"type": "near_field"},
                    "turn_detection": {
                        "type": "server_vad",
                        "threshold": 0.5,
                        "prefix_padding_ms": 300,
                        "silence_duration_ms": 100,
                        "idle_timeout_ms": 6000,
                        "create_response": True,
                        "interrupt_response": False,
                    },
                },
                "output": {"format": {"type": "audio/pcm"}, "voice": "marin", "speed": 1.25},
            },
            "output_modalities": ["audio"],
            "max_output_tokens": 20,
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 1,
            "tools": [WEATHER],
            "tool_choice": "auto",
            "parallel_tool_calls": False,
            "tracing": "auto",
            "truncation": {
                "type": "retention_ratio",
                "retention_ratio": 0.8,
                "token_limits": {"post_instructions": 1000},
            },
        },
    },
    {
        "type": "session.update",
        "session": {
            "audio": {
                "input": {
                    "format": {"type": "audio/pcmu"},
                    "turn_detection": {"type": "semantic_vad", "eagerness": "high"},
                    "transcription": None,
                },
                "output": {"format": {"type": "audio/pcma"}},
            }
        },
    },
    {"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}},
    {"type": "session.update", "session": {"output_modalities": ["text"], "tools": []}},
    {
        "type": "session.update",
        "session": {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "weather"}},
    },
    {"type": "input_audio_buffer.append", "audio": sound(0.1)},
    {"type": "input_audio_buffer.append", "audio": sound(0.2, 0.0)},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "output_audio_buffer.clear"},
    {"type": "input_image_buffer.append", "image": "aGVsbG8="},
    {"type": "conversation.item.create", "item": HELLO},
    {
        "type": "conversation.item.create",
        "previous_item_id": "root",
        "item": message(
            "user",
            {"type": "input_text", "text": "hi"},
            {"type": "input_audio", "audio": sound(0.1)},
            {"type": "input_image", "image_url": PICTURE, "detail": "auto"},
            id="mine",
        ),
    },
    {
        "type": "conversation.item.create",
        "previous_item_id": "$item",
        "item": message("assistant", {"type": "output_text", "text": "So."}, status="completed"),
    },
    {
        "type": "conversation.item.create",
        "item": message("system", {"type": "input_text", "text": "It is night."}),
    },
    {
        "type": "conversation.item.create",
        "item": {
            "type": "function_call",
            "call_id": "call_own",
            "name": "weather",
            "arguments": '{"city": "Oslo"}',
        },
    },
    {
        "type": "conversation.item.create",
        "item": {"type": "function_call_output", "call_id": "$call", "output": '{"sky": "blue"}'},
    },
    {"type": "conversation.item.delete", "item_id": "$item"},
    {"type": "conversation.item.retrieve", "item_id": "$item"},
    {
        "type": "conversation.item.truncate",
        "item_id": "$last",
        "content_index": 0,
        "audio_end_ms": 5,
    },
    {"type": "response.create"},
    {"type": "response.create", "event_id": "mine", "response": {"output_modalities": ["text"]}},
    {
        "type": "response.create",
        "response": {
            "conversation": "none",
            "input": [{"type": "item_reference", "id": "$item"}, HELLO],
            "output_modalities": ["audio"],
            "audio": {"output": {"voice": "heart", "format": {"type": "audio/pcm"}}},
            "max_output_tokens": "inf",
            "metadata": {"a": "b"},
            "instructions": "Be brief.",
            "tools": [WEATHER],
            "tool_choice": "required",
        },
    },
    {"type": "response.cancel", "response_id": "$response"},
    {"type": "response.cancel"},
]

IS_LAST = {"is": "last"}
LAST = {
    "type": "response.create",
    "event_id": "last",
    "response": {
        "conversation": "none",
        "input": [HELLO],
        "output_modalities": ["text"],
        "tool_choice": "none",
        "max_output_tokens": 100,
        "metadata": IS_LAST,
    },
}


def paths(value, path=()):
    yield path
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in children:
        yield from paths(child, (*path, key))


PLACES = [(event, path) for event in VALID for path in paths(event) if path]

_LETTERS = st.text(max_size=8) | st.sampled_from(
    ["", "é" * 40, "x" * 50_000, "\x00", "\ud800", "\udfff\ud800", "<|im_end|>", "root", "none"]
)
_NUMBERS = (
    st.integers(-5, 5)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.sampled_from([2**31, 2**63, -(2**63), 10**400, 1e308, -0.0])
)
_JSON = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _LETTERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_LETTERS, inner, max_size=3),
    max_leaves=6,
)


def mutated(place, change: str, value) -> dict:
    whole, path = place
    event = json.loads(json.dumps(whole))
    inner = event
    for key in path[:-1]:
        inner = inner[key]
    if change == "replace":
        inner[path[-1]] = value
    elif change == "remove":
        del inner[path[-1]]
    elif isinstance(inner, dict):
        inner["extra"] = value
    return event


def deep(opening: str, depth: int) -> str:
    return f'{{"type": "session.update", "session": {opening * depth}'


_MUTATED = st.builds(
    mutated,
    st.sampled_from(PLACES),
    st.sampled_from(["replace", "replace", "remove", "add"]),
    _JSON,
)
_ANY = st.builds(
    lambda kind, rest: {**rest, "type": kind},
    st.sampled_from(sorted(CLIENT_EVENTS)),
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("item", "session", "response", "audio", "image", "item_id", "event_id"), _JSON
        ),
    ),
)
_RAW = (
    st.binary(max_size=20)
    | st.text(max_size=20)
    | st.builds(
        lambda event, cut: json.dumps(event)[:cut], st.sampled_from(VALID), st.integers(0, 90)
    )
    | st.builds(deep, st.sampled_from(["[", '{"a":', '{"audio":{"input":']), st.integers(1, 3000))
    | st.builds(lambda depth: deep("[", depth) + "]" * depth + "}", st.integers(1, 3000))
    | _JSON.map(json.dumps)
)
CLIENT = st.one_of(st.sampled_from(VALID), st.sampled_from(VALID), _MUTATED, _MUTATED, _ANY, _RAW)


class FakeEngine:
    """Does what the conversation asks for, or fails to, in an order that ``chance`` decides."""

    def __init__(self, chance: random.Random, now) -> None:
        self._chance = chance
        self._now = now
        self._work: list[ev.Transcribe | ev.JudgeTurn | ev.See] = []
        self._answer: tuple[str, list[ev.OutputEvent]] | None = None
        self._sound = 0.0
        self._heard = 0.0

    def take(self, command: object) -> None:
        match command:
            case ev.Append(chunk):
                assert chunk.pcm.dtype == np.float32
                self._sound += chunk.seconds
            case ev.Transcribe() | ev.JudgeTurn() | ev.See():
                self._work.append(command)
            case ev.Forget(keys):
                self._work = [work for work in self._work if work.key not in keys]
            case ev.Start():
                assert self._answer is None, "a second answer before the first had ended"
                self._answer = command.response_id, list(self._script(command))
            case ev.Cancel(response_id) if self._answer and self._answer[0] == response_id:
                late = self._answer[1][: self._chance.randrange(3)]
                late = [event for event in late if not isinstance(event, ev.ResponseDone)]
                self._answer[1][:] = [*late, self._done(response_id, "cancelled")]

    def _done(self, response_id: str, reason: str) -> ev.ResponseDone:
        error = "the model is ill" if reason == "failed" else None
        return ev.ResponseDone(response_id, reason, Usage(20, 10, 5), self._now(), error)

    def _script(self, start: ev.Start):
        now, answer = self._now(), start.response_id
        pick = self._chance.random
        if pick() < 0.8:
            for word in ("One", " two.", " Three."):
                yield ev.TextDelta(answer, word, now)
            if start.speak and pick() < 0.9:
                yield ev.ClauseReady(answer, "One two.", now)
                chunk = AudioChunk(np.zeros(2400, np.float32), 24_000)
                yield ev.AudioDelta(answer, chunk, "One two.", True, now)
                yield ev.AudioDelta(answer, chunk, "One two.", False, now)
            elif start.speak:
                yield ev.VoiceMissing(answer, "fi", now)
        if start.tools.tools and start.tools.choice != "none":
            for index in range(self._chance.randrange(3)):
                name = self._chance.choice(start.tools.tools).name
                yield ev.ToolCallStarted(answer, index, name, now)
                yield ev.ToolCallDelta(answer, index, '{"city": ', now)
                yield ev.ToolCallDelta(answer, index, '"Oslo"}', now)
                yield ev.ToolCallEnded(answer, index, '{"city": "Oslo"}', now)
        yield self._done(answer, self._chance.choice(["stop", "stop", "stop", "length", "failed"]))

    def step(self) -> ev.OutputEvent | None:
        """The next thing that is done; None when there is nothing to do."""
        choices = ["work"] * bool(self._work) + ["answer"] * (self._answer is not None)
        choices += ["sound"] * (self._sound - self._heard >= STEP)
        if not choices:
            return None
        match self._chance.choice(choices):
            case "sound":
                self._heard += STEP
                probability = self._chance.choice([0.9, 0.9, 0.01])
                return ev.VoiceActivity((probability,), self._heard, STEP, self._now())
            case "work":
                return self._finish(self._work.pop(self._chance.randrange(len(self._work))))
        assert self._answer is not None
        event = self._answer[1].pop(0)
        if isinstance(event, ev.ResponseDone):
            self._answer = None
        return event

    def _finish(self, work: ev.Transcribe | ev.JudgeTurn | ev.See) -> ev.OutputEvent:
        if self._chance.random() < 0.2:
            return ev.InputFailed(work.key, "that could not be done", self._now())
        match work:
            case ev.Transcribe(key):
                text = self._chance.choice(["", "Hello there."])
                return ev.Transcribed(key, Transcript(text, "en", 1.0), self._now())
            case ev.JudgeTurn(key):
                return ev.TurnJudged(key, self._chance.choice([0.1, 0.95]), self._now())
        return ev.Seen(work.key, Span("image", "a cat"), self._now())


class Fuzzed:
    """A conversation, its engine, and what must hold of all that it says."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = 100.0
        counter = itertools.count(1)
        self.machine = Conversation(
            Defaults(voices=("heart",), languages=frozenset({"en", "zh"})),
            clock=lambda: self.now,
            new_id=lambda prefix: f"{prefix}_{next(counter)}",
        )
        self.engine = FakeEngine(self.chance, lambda: self.now)
        self.event_ids: set[str] = set()
        self.items: list[str] = []
        self.settled: set[str] = set()
        self.added: dict | None = None
        self.calls: list[str] = ["call_none"]
        self.open_answers: list[str] = []
        self.answers: list[str] = ["resp_none"]
        self.note(self.machine.open())

    def note(self, effects) -> list[dict]:
        events = [effect for effect in effects if isinstance(effect, dict)]
        for effect in effects:
            if isinstance(effect, dict):
                self._look_at(effect)
            else:
                self.engine.take(effect)
        return events

    def _look_at(self, effect: dict) -> None:
        event = json.loads(json.dumps(effect, default=lambda _: "AAAA", allow_nan=False))
        event_id = event["event_id"]
        assert event_id not in self.event_ids
        self.event_ids.add(event_id)
        checked(event)
        match event["type"]:
            case "conversation.item.added":
                item, previous = event["item"], event["previous_item_id"]
                assert item["id"] not in self.items
                place = 0 if previous is None else self.items.index(previous) + 1
                self.items.insert(place, item["id"])
                if "call_id" in item:
                    self.calls.append(item["call_id"])
                self.added = item
            case "conversation.item.created":
                assert event["item"] == self.added, "the older name tells another item"
            case "conversation.item.done":
                assert event["item"]["id"] in self.items
                assert event["item"]["id"] not in self.settled, "an item was done twice"
                assert event["item"]["status"] != "in_progress"
                self.settled.add(event["item"]["id"])
            case "conversation.item.deleted":
                self.items.remove(event["item_id"])
                self.settled.discard(event["item_id"])
            case "response.created":
                assert not self.open_answers, "two answers at once"
                self.open_answers.append(event["response"]["id"])
                self.answers.append(event["response"]["id"])
            case "response.done":
                assert event["response"]["status"] != "in_progress"
                self.open_answers.remove(event["response"]["id"])
            case kind if kind.startswith("response."):
                assert event["response_id"] in self.open_answers

    def _with_ids(self, value):
        if isinstance(value, dict):
            return {key: self._with_ids(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._with_ids(inner) for inner in value]
        ids = {
            "$item": self.items or ["item_none"],
            "$last": self.items[-1:] or ["item_none"],
            "$response": self.answers[-1:],
            "$call": self.calls,
        }
        return self.chance.choice(ids[value]) if value in ids and type(value) is str else value

    def receive(self, client: dict | str | bytes) -> None:
        event = self._with_ids(client) if isinstance(client, dict) else None
        before = json.dumps(self.machine.settings.wire), list(self.items)
        events = self.note(self.machine.receive(client if event is None else json.dumps(event)))
        refusals = [e["error"] for e in events if e["type"] == "error"]
        if not refusals:
            return
        assert len(events) == 1, "a refused event does nothing else"
        assert before == (json.dumps(self.machine.settings.wire), self.items)
        (error,) = refusals
        assert error["type"] == "invalid_request_error"
        assert error["code"]
        assert 10 < len(error["message"]) <= LONGEST_MESSAGE, error
        if error["param"] is None:
            assert error["code"] in ABOUT_THE_SESSION, error
        else:
            assert event is None or resolves(error["param"], event), (error, event)
        if event is not None and error["code"] != "invalid_json":
            given_id = event.get("event_id")
            assert error["event_id"] == (given_id if isinstance(given_id, str) else None)

    def work(self, steps: int) -> None:
        for _ in range(steps):
            self.now += 0.01
            event = self.engine.step()
            if event is None:
                return
            self.note(self.machine.handle(event))

    def finish(self) -> None:
        self.receive({"type": "input_audio_buffer.clear"})
        self.work(10_000)
        assert self.engine.step() is None, "the engine is never done"
        assert not self.open_answers, "an answer never ended"
        assert self.machine.unread_media == 0
        assert [item.id for item in self.machine.items] == self.items
        assert self.settled == set(self.items)


_FIXED = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


@settings(_FIXED, max_examples=150)
@given(
    st.lists(st.tuples(CLIENT, st.sampled_from([0, 0, 1, 3, 10])), min_size=20, max_size=60),
    st.integers(0, 2**32),
)
def test_random_events_are_answered_consistently_by_the_conversation(script, seed):
    fuzzed = Fuzzed(seed)
    for client, steps in script:
        fuzzed.receive(client)
        fuzzed.work(steps)
    fuzzed.finish()


def test_random_clients_on_a_real_socket_leave_a_server_that_works_and_no_session():
    batch = st.lists(CLIENT, min_size=10, max_size=30)
    loop = asyncio.new_event_loop()
    sent = 0

    async def drive(events, rude: bool) -> None:
        nonlocal sent
        socket = await websockets.connect(running.ws, max_size=None)
        for event in events:
            if isinstance(event, dict):
                await socket.send(json.dumps(event))
            else:
                raw = event.encode(errors="surrogatepass") if isinstance(event, str) else event
                await socket.send(raw, text=isinstance(event, str))
        sent += len(events)
        if rude:
            socket.transport.abort()
            return
        await socket.send('{"type": "conversation.item.retrieve", "item_id": "the end"}')
        async with asyncio.timeout(20):
            while True:
                event = json.loads(await socket.recv())
                checked(event)
                if event["type"] == "error" and "the end" in event["error"]["message"]:
                    break
            # Whatever was set or asked for: the session still gives an ordinary answer.
            await socket.send(json.dumps(LAST))
            while event["type"] != "response.done" or event["response"]["metadata"] != IS_LAST:
                event = json.loads(await socket.recv())
                assert event.get("error", {}).get("event_id") != LAST["event_id"], event
        assert event["response"]["status"] == "completed", event
        await socket.close()

    @settings(_FIXED, max_examples=40)
    @given(batch, st.booleans())
    def send_all(events, rude):
        loop.run_until_complete(drive(events, rude))

    with Running(config=ServerConfig(engine=Engine.Config(max_sessions=64))) as running:
        running.until(lambda: running.health().status_code == 200)
        try:
            send_all()
        finally:
            with contextlib.suppress(RuntimeError):
                loop.close()
        assert sent > 400
        running.until(lambda: running.health().json()["sessions"] == 0)
        assert not running.tracebacks, running.tracebacks
