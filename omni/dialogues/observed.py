"""What a client notices of a conversation, without I/O: events in, events to send out."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from omni.client import Event
from omni.client.media import WIRE_RATE
from omni.dialogues.results import Moment, Problem
from omni.dialogues.sound import Loudspeaker
from omni.types import Pcm, ToolCall

TOO_LATE = "user.came_too_late"
"""The answer before was over when a turn was to interrupt it."""
AUDIBLE = 0.01
"""Amplitude from which a sample counts as audible (-40 dB of full scale)."""
_QUIET = ("input_audio_buffer.append", "rate_limits.updated")
_LATE = ("response_cancel_not_active", "item_truncate_invalid_item_id")
"""Codes of errors that only say that a cancel or truncate crossed the end of the answer."""


@dataclass
class AnswerSeen:
    """One response, as it came. Times are those of :func:`time.monotonic`."""

    id: str
    created: float
    item: str | None = None
    """Its spoken item, for truncation."""
    words: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    images: list[bytes] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    """When a stage was first reached, by the names of the format."""
    done: Mapping[str, Any] | None = None

    @property
    def status(self) -> str:
        """``in_progress`` until it is done."""
        return str((self.done or {}).get("status", "in_progress"))


@dataclass
class TurnSeen:
    """One turn, as it went. Times are those of :func:`time.monotonic`."""

    index: int
    began: float
    ended: float = 0.0
    events: list[tuple[str, float, str]] = field(default_factory=list)
    answers: list[AnswerSeen] = field(default_factory=list)
    speech: list[tuple[float, float]] = field(default_factory=list)
    asked: float | None = None
    """When a written question was sent."""
    heard: list[str] = field(default_factory=list)
    frames: list[Pcm] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    """What was given back, by the call's id."""
    stopped: float | None = None
    """When the answer before fell silent."""
    rounds: int = 0
    """How often tools gave something back."""
    gave_back: float = 0.0
    """When they last did."""
    error: Problem | None = None
    refusals: list[str] = field(default_factory=list)
    """Errors of the server, as it said them."""

    @property
    def question_end(self) -> float:
        """When the user had said or asked everything."""
        ends = [end for _, end in self.speech] + ([self.asked] if self.asked is not None else [])
        return max(ends, default=self.began)

    def note(self, kind: str, at: float, detail: str = "") -> None:
        """Something happened."""
        self.events.append((kind, at, detail))

    @property
    def valid(self) -> list[AnswerSeen]:
        """The answers without those that were cut short for a later one."""
        last = len(self.answers) - 1
        return [a for i, a in enumerate(self.answers) if i == last or a.status != "cancelled"]

    @property
    def moments(self) -> tuple[Moment, ...]:
        """All that happened, in order, with times since the turn began."""
        return tuple(
            Moment(kind, round(at - self.began, 4), detail)
            for kind, at, detail in sorted(self.events, key=lambda event: event[1])
        )

    @property
    def measured(self) -> dict[str, float]:
        """Milliseconds since the end of the question, of the answer to all of it."""
        since = self.question_end
        times: dict[str, float] = {}
        for kind, at, _ in self.events:
            if kind == "input_audio_buffer.speech_stopped":
                times["turn_end"] = at
            elif kind == "conversation.item.input_audio_transcription.completed":
                times["transcript"] = at
        for answer in self.valid:
            for stage, at in answer.times.items():
                if at >= since:  # not of an answer to the first half of what was said
                    times.setdefault(stage, at)
        found = {name: round(1000 * (at - since), 1) for name, at in times.items()}
        if self.stopped is not None and self.speech:
            found["stopped"] = round(1000 * (self.stopped - self.speech[0][0]), 1)
        return found


class Observer:
    """Follows a session: whose answer is what, what is heard of it, and who was interrupted."""

    def __init__(self, *, interruptible: bool, spoken: bool) -> None:
        self.loudspeaker = Loudspeaker()
        self.turns: list[TurnSeen] = []
        self._interruptible, self._spoken = interruptible, spoken
        self._answers: dict[str, AnswerSeen] = {}
        self._items: dict[str, TurnSeen] = {}
        self._silenced: set[str] = set()

    @property
    def turn(self) -> TurnSeen:
        """The turn that goes on."""
        return self.turns[-1]

    def begin(self, now: float) -> TurnSeen:
        """The next turn begins."""
        self.turns.append(TurnSeen(len(self.turns), now))
        return self.turn

    @property
    def speaking(self) -> AnswerSeen | None:
        """The newest answer that has sound."""
        return next((a for a in reversed(self._answers.values()) if a.item), None)

    @property
    def answering(self) -> bool:
        """Whether any answer is being made."""
        return any(answer.done is None for answer in self._answers.values())

    def heard(self, turn: TurnSeen, now: float) -> float:
        """Seconds for which the turn's newest answer has been heard, or read."""
        if not turn.answers:
            return 0.0
        answer = turn.answers[-1]
        if answer.item:
            return self.loudspeaker.heard(answer.id, now)
        return 0.0 if self._spoken else now - answer.times.get("first_token", now)

    def record(self, frame: Pcm) -> None:
        """The microphone heard this."""
        if self.turns:
            self.turn.frames.append(frame)

    def active(self, turn: TurnSeen) -> bool:
        """Whether an answer of the turn is being made."""
        return any(answer.done is None for answer in turn.answers)

    def take(self, event: Event) -> list[dict[str, Any]]:
        """Take one event; gives what a client sends in return."""
        data, now = event.data, event.received
        if not self.turns or now < self.turns[0].began:  # the greeting and the settings
            return []
        if event.type not in _QUIET:
            self.turn.note(event.type, now, _detail(event))
        match event.type:
            case "error":
                error = data.get("error") or {}
                if error.get("code") not in _LATE:
                    self.turn.refusals.append(str(error.get("message") or error.get("code")))
            case "input_audio_buffer.speech_started":
                self._items[str(data.get("item_id"))] = self.turn
                if self._interruptible:
                    return self.hush(now)
            case "conversation.item.input_audio_transcription.completed":
                owner = self._items.get(str(data.get("item_id")), self.turn)
                owner.heard.append(str(data.get("transcript", "")).strip())
            case "response.created":
                answer = AnswerSeen(data["response"]["id"], now)
                self._answers[answer.id] = answer
                self.turn.answers.append(answer)
            case "response.done":
                if (ended := self._answers.get(data["response"].get("id"))) is not None:
                    ended.done = data["response"]
                    ended.times["done"] = now
            case _ if (going := self._answers.get(str(data.get("response_id")))) is not None:
                self._take_output(going, event)
        return []

    def _take_output(self, answer: AnswerSeen, event: Event) -> None:
        now = event.received
        if (words := event.words) is not None:
            answer.times.setdefault("first_token", now)
            answer.words.append(words)
        elif (chunk := event.sound) is not None:
            answer.item = event.data.get("item_id")
            if answer.id in self._silenced:
                return
            self.loudspeaker.play(answer.id, chunk.pcm, now)
            answer.times.setdefault("first_audio", now)
            loud = np.flatnonzero(np.abs(chunk.pcm) > AUDIBLE).tolist()
            if loud:
                begin = self.loudspeaker.end - (len(chunk.pcm) - loud[0]) / WIRE_RATE
                answer.times.setdefault("first_audible", begin)
        elif (call := event.tool_call) is not None:
            answer.times.setdefault("first_token", now)
            answer.calls.append(call)
        elif event.type == "response.output_item.done":
            item = event.data["item"]
            if item.get("type") == "image_generation_call" and item.get("result"):
                answer.images.append(base64.b64decode(item["result"]))

    def hush(self, now: float) -> list[dict[str, Any]]:
        """Stop the answer that is heard, and tell the server how much was."""
        answer = self.speaking
        if answer is None or self.loudspeaker.end <= now or answer.id in self._silenced:
            return []
        self.loudspeaker.stop(now)
        self._silenced.add(answer.id)
        if answer not in self.turn.answers:
            self.turn.stopped = now
        self.turn.note("user.playback_stopped", now)
        heard = self.loudspeaker.heard(answer.id, now)
        where = {"item_id": answer.item, "content_index": 0, "audio_end_ms": int(1000 * heard)}
        return [{"type": "conversation.item.truncate", **where}]


def _detail(event: Event) -> str:
    data = event.data
    if event.type == "error":
        return str((data.get("error") or {}).get("message", ""))
    if event.type == "response.done":
        return str(data["response"].get("status", ""))
    if event.type == "response.output_audio.delta":
        return str(data.get("clause") or "")
    for name in ("transcript", "delta", "text", "arguments"):
        if isinstance(data.get(name), str):
            return str(data[name])
    return ""
