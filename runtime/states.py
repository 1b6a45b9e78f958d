"""The streaming states of sessions and answers, and the jobs that threads hand to each other."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from decoders.clauses import ClauseSplitter
from decoders.speech import StartBuffer
from decoders.text import IncrementalDetokenizer, StopMatcher
from decoders.toolcalls import ToolCallParser
from encoders.denoise import DenoisedVad
from encoders.media import Resampler
from encoders.vad import VadStream
from omni import events as ev
from omni.errors import OmniError
from omni.llm.cache import Cache
from omni.types import AudioChunk, Clause, Message, Pcm
from runtime.prompt import Kept

log = logging.getLogger(__name__)

Listener = Callable[[ev.OutputEvent], None]
EAR_RATE = 16_000
"""Hertz of the sound that the models hear."""


def now() -> float:
    """Seconds of the clock that every stamp is in."""
    return time.monotonic()


@dataclass
class Session:
    """The streaming states of one session; each belongs to the thread that is named."""

    id: str
    listener: Listener
    vad: VadStream  # ears
    cache: Cache  # device
    kept: Kept | None = None  # device
    inclination: tuple[list[int], float] | None = None  # device
    """Log odds of a tool call after a prompt that asks for nothing."""
    resampler: Resampler | None = None  # ears
    resampler_rate: int = 0
    denoised: DenoisedVad | None = None  # ears
    sound: list[Pcm] = field(default_factory=list)
    sound_start: int = 0
    appended: float = 0.0  # submit
    position: float = 0.0  # ears
    frames: int = 0
    recordings: set[str] = field(default_factory=set)
    """Keys of those long ones whose words are still wanted."""
    answers: dict[str, Answer] = field(default_factory=dict)
    closed: bool = False

    def emit(self, event: ev.OutputEvent) -> None:
        """Hand an event to the listener; nothing once the session is closed."""
        if not self.closed:
            self.listener(event)

    def discard(self, before: float) -> None:
        """Drop whole pieces of sound that end before ``before`` seconds."""
        limit = int(before * EAR_RATE)
        while self.sound and self.sound_start + len(self.sound[0]) <= limit:
            self.sound_start += len(self.sound.pop(0))

    def slice(self, start: float, end: float) -> Pcm:
        """The sound between two positions in seconds, as far as it is still there."""
        whole = np.concatenate(self.sound) if self.sound else np.zeros(0, np.float32)
        begin = max(0, int(start * EAR_RATE) - self.sound_start)
        return whole[begin : max(begin, int(end * EAR_RATE) - self.sound_start)]


class Answer:
    """An answer being generated and spoken."""

    def __init__(self, session: Session, start: ev.Start) -> None:
        self.session = session
        self.start = start
        self.request_id = f"{session.id}/{start.response_id}"
        """Its name among the requests of all sessions."""
        self.cancelled = False
        self.failed: str | None = None
        self.read: list[Message] = []
        """The messages that fitted into the prompt."""
        self.detokenizer: IncrementalDetokenizer | None = None
        self.calls: ToolCallParser | None = None
        self.stop = StopMatcher(start.sampling.stop)
        self.clauses = ClauseSplitter()
        self.expected: queue.SimpleQueue[Clause] = queue.SimpleQueue()
        """Clauses that are on their way to the mouth."""
        self.playback = StartBuffer()  # mouth
        self.sounding = threading.Event()
        """Set with the first sound that was made, or when none will be."""
        self._held: list[tuple[AudioChunk, Clause, bool]] = []  # mouth

    def made(self, chunk: AudioChunk, clause: Clause, first: bool, took: float) -> None:
        """Take in sound; it leaves as soon as playing it would not overtake the voice."""
        while not self.expected.empty():
            self.playback.expect(self.expected.get())
        self.playback.made(chunk.seconds, took)
        self.sounding.set()
        self._held.append((chunk, clause, first))
        if self.playback.may_start():
            self.release()

    def release(self) -> None:
        """Let out the sound that was held back."""
        held, self._held = self._held, []
        if self.cancelled:
            return
        for chunk, clause, first in held:
            self.emit(ev.AudioDelta(self.start.response_id, chunk, clause.source, first, now()))

    def emit(self, event: ev.OutputEvent) -> None:
        """Hand an event to the session's listener."""
        self.session.emit(event)

    def end(self, done: ev.ResponseDone) -> None:
        """Emit the last event of the answer."""
        self.session.answers.pop(self.start.response_id, None)
        if self.cancelled:
            done = ev.ResponseDone(done.response_id, "cancelled", done.usage, done.at)
        elif self.failed is not None and done.reason != "failed":
            done = ev.ResponseDone(done.response_id, "failed", done.usage, done.at, self.failed)
        self.emit(done)


@dataclass(frozen=True)
class Release:
    """The session has ended: drop what is left of it."""

    session: Session


@dataclass(frozen=True)
class Job:
    """One-off work for the device, lower ``priority`` first; what ``work`` returns is emitted."""

    priority: int
    session: Session
    key: str
    work: Callable[[], ev.OutputEvent]


def report(session: Session, key: str, work: Callable[[], ev.OutputEvent | None]) -> None:
    """Do ``work`` about ``key`` and emit what it returns; a failure as `InputFailed`."""
    if session.closed:
        return
    event: ev.OutputEvent | None
    try:
        event = work()
    except OmniError as error:
        event = ev.InputFailed(key, str(error), now())
    except Exception as error:
        log.exception("%s failed", key)
        event = ev.InputFailed(key, f"internal error: {error}", now())
    if event is not None:
        session.emit(event)
