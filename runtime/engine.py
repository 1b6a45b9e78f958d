"""The engine: models, KV caches and streaming states, and the threads that own them.

- the *device* thread runs the shared LLM, the transcriber, the end-of-turn model and the image
  encoder; between two decoding steps of all sessions it takes what is more urgent;
- the *ears* thread resamples and runs voice activity detection, so that an interruption is noticed
  while the device computes;
- the *mouth* thread synthesises speech, so that a slow voice stalls nobody's tokens;
- the *easel* thread draws;
- long recordings have a thread each, which cuts them into windows for the device thread.

Each state has one owner. Commands come from any thread through `submit`; events go to the
listener of their session, called from these threads: it must return at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from torch import Tensor

from encoders.audio import joined
from encoders.denoise import DenoisedVad, NoiseReduction
from encoders.media import Resampler
from omni import events as ev
from omni.draw.words import PromptReader
from omni.errors import BusyError
from omni.search import Index
from omni.types import AudioChunk, Clause, Message, Pcm, Sampling, Transcript
from runtime.assembly import Parts
from runtime.device import Device
from runtime.drawing import Easel
from runtime.search_tool import find
from runtime.states import EAR_RATE, Answer, Job, Listener, Release, Session, now, report
from runtime.worker import Worker

log = logging.getLogger(__name__)
T = TypeVar("T")

SPEECH_TAIL = 0.1
"""Seconds of silence that are left on a turn when it is transcribed."""
LONG = 15.0
"""Seconds from which on sound is transcribed window by window, in the background."""


class Engine:
    """Runs `Parts` for many sessions.

    Raises `BusyError` from `open` when ``max_sessions`` are open.
    """

    @dataclass(frozen=True)
    class Config:
        """``max_backlog`` is in seconds of unheard sound, after which a client must wait."""

        max_sessions: int = 8
        max_backlog: float = 5.0

    def __init__(self, parts: Parts, config: Config | None = None) -> None:
        self.parts = parts
        self.config = config or self.Config()
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._ears = Worker("ears", self._hear)
        self._mouth = Worker("mouth", self._speak)
        self._recordings = ThreadPoolExecutor(self.config.max_sessions, "omni-recordings")
        self._closing = False
        self.index: Index | None = None
        """What is searched when users want to find something."""
        self.easel = Easel(parts.painters, self._read_prompt)
        self._device = Device(
            parts,
            lambda answer, what: self._mouth.put((answer, what)),
            self.easel,
            lambda request: None if self.index is None else find(self.index, request),
        )

    def start(self, *, warm_up: bool = True) -> None:
        """Start the threads and warm every model up, so that the first turn is no slower."""
        self._device.start()
        self._ears.start()
        self._mouth.start()
        if warm_up:
            self.easel.warm_up()
            self._device.call(self._warm_up)

    def close(self) -> None:
        """Stop the threads after what they are doing; answers in progress get no more output."""
        self._closing = True
        self._ears.stop()
        self._recordings.shutdown(cancel_futures=True)
        self.easel.close()
        self._device.stop()
        self._mouth.stop()

    def open(self, session_id: str, listener: Listener) -> None:
        """Begin a session; its events go to ``listener``."""
        with self._lock:
            if len(self._sessions) >= self.config.max_sessions:
                raise BusyError(
                    f"all {self.config.max_sessions} sessions of this server are taken; try again "
                    "later, or start the server with a larger --max-sessions"
                )
            self._sessions[session_id] = Session(
                session_id, listener, self.parts.vad.stream(), self.parts.llm.new_cache()
            )

    def release(self, session_id: str) -> None:
        """End a session and drop its states; nothing is emitted for it afterwards."""
        with self._lock:
            session = self._sessions.pop(session_id, None)
        if session is not None:
            session.closed = True
            for answer in list(session.answers.values()):
                answer.cancelled = True
            self._device.put(Release(session))

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return len(self._sessions)

    def backlog(self, session_id: str) -> float:
        """Seconds of the session's sound that the ears have not heard yet."""
        session = self._sessions.get(session_id)
        return 0.0 if session is None else session.appended - session.position

    def submit(self, session_id: str, command: ev.Command) -> None:
        """Take a command; never blocks. Commands of a session are done in order."""
        session = self._sessions.get(session_id)
        if session is None:
            return
        match command:
            case ev.Append(chunk):
                session.appended += chunk.seconds
                self._ears.put((session, command))
            case ev.Discard() | ev.JudgeTurn() | ev.Transcribe() | ev.Forget():
                # Through the ears, which hold the sound that these are about.
                self._ears.put((session, command))
            case ev.Cancel(response_id):
                if (answer := session.answers.get(response_id)) is not None:
                    answer.cancelled = True
                self._device.put((session, command))
            case ev.Start():
                session.answers[command.response_id] = Answer(session, command)
                self._device.put((session, command))
            case ev.See(key, data):
                self._device.put(Job(2, session, key, partial(self._device.see, key, data)))
            case _:
                self._device.put((session, command))

    def on_device(self, function: Callable[[], T]) -> T:
        """Run ``function`` on the device thread and wait for what it returns or raises."""
        return self._device.call(function)

    def in_background(self, function: Callable[[], T]) -> T:
        """`on_device`, when no conversation waits for it, or after a few seconds all the same.

        For work in pieces that take no longer than a second, such as the windows of
        `AudioEncoder.transcribe_windows`, of which this is the ``run``.
        """
        return self._device.call(function, background=True)

    def on_mouth(self, function: Callable[[], T]) -> T:
        """Run ``function`` on the thread of the voices, in its turn among the clauses of answers.

        It must be short, such as one clause, and this waits for what it returns or raises.
        """
        return self._mouth.call(function).result()

    def _warm_up(self) -> None:
        noise = np.random.default_rng(0).normal(0, 0.01, 2 * EAR_RATE).astype(np.float32)
        stream = self.parts.hearing.stream()
        stream.feed(AudioChunk(noise, EAR_RATE))
        stream.transcribe("en")
        self.parts.turn.probability(noise)
        self.parts.warm_up()
        cache = self.parts.llm.new_cache()
        prompt = self.parts.llm.tokenizer.encode_chat([Message("user", ("Hello, who are you?",))])
        self._device.generator.add("warm-up", prompt, cache, Sampling(max_tokens=4))
        while not self._device.generator.idle:
            self._device.generator.step()
        self._device.grammars.warm_up()

    def _read_prompt(self, prompt: str) -> Tensor:
        """The LLM's hidden states (L, D) of what is to be drawn."""
        return self.on_device(lambda: PromptReader(self.parts.llm).read(prompt))

    # The ears

    def _hear(self, job: tuple[Session, ev.Command]) -> None:
        session, command = job
        if session.closed:
            return
        match command:
            case ev.Append(chunk, noise_reduction):
                self._append(session, chunk, noise_reduction)
            case ev.Discard(before):
                session.discard(before)
            case ev.Forget(keys):
                session.recordings.difference_update(keys)
                self._device.put((session, command))
            case ev.JudgeTurn(key, start, end):
                judge = partial(self._device.judge, key, session.slice(start, end))
                self._device.put(Job(0, session, key, judge))
            case ev.Transcribe(key, start, end, chunk, language):
                if chunk is None:
                    chunk = AudioChunk(session.slice(start, end + SPEECH_TAIL), EAR_RATE)
                if chunk.seconds > LONG:
                    session.recordings.add(key)
                    self._recordings.submit(self._transcribe_long, session, key, chunk, language)
                else:
                    transcribe = partial(self._device.transcribe, key, _resample(chunk), language)
                    self._device.put(Job(1, session, key, transcribe))

    def _transcribe_long(
        self, session: Session, key: str, chunk: AudioChunk, language: str | None
    ) -> None:
        """Transcribe window by window, so that nobody waits for all of a recording."""

        def transcribed() -> ev.OutputEvent | None:
            parts: list[Transcript] = []
            for part in self.parts.hearing.transcribe_windows(
                (AudioChunk(_resample(chunk), EAR_RATE),), language, run=self.in_background
            ):
                if self._closing or session.closed or key not in session.recordings:
                    return None
                parts.append(part)
            return ev.Transcribed(key, joined(parts, chunk.seconds, language), now())

        report(session, key, transcribed)
        session.recordings.discard(key)

    def _append(self, session: Session, chunk: AudioChunk, reduce: NoiseReduction | None) -> None:
        pcm = np.zeros(0, np.float32)
        if session.resampler is None or session.resampler_rate != chunk.sample_rate:
            if session.resampler is not None:
                pcm = session.resampler.flush()
            session.resampler = Resampler(chunk.sample_rate, EAR_RATE)
            session.resampler_rate = chunk.sample_rate
        pcm = np.concatenate([pcm, session.resampler.feed(chunk.pcm)])
        session.sound.append(pcm)
        session.position += chunk.seconds
        probabilities: list[float] = []
        if reduce != (session.denoised and session.denoised.kind):
            if session.denoised is not None:
                probabilities = session.denoised.flush()
            session.denoised = reduce and DenoisedVad(reduce, self.parts.vad.stream())
        heard = session.vad.feed(pcm)
        probabilities += session.denoised.feed(pcm, heard) if session.denoised else heard
        session.frames += len(probabilities)
        if probabilities:
            step = 512 / EAR_RATE
            session.emit(ev.VoiceActivity(tuple(probabilities), session.frames * step, step, now()))

    # The mouth

    def _speak(self, job: tuple[Answer, Clause | ev.OutputEvent]) -> None:
        answer, what = job
        try:
            if isinstance(what, Clause):
                if what.text.strip() and not answer.cancelled:
                    self._say(answer, what)
                return
            answer.release()
            if isinstance(what, ev.ResponseDone):
                answer.end(what)
            elif not answer.cancelled:
                answer.emit(what)
        finally:
            answer.sounding.set()

    def _say(self, answer: Answer, clause: Clause) -> None:
        start, voice = answer.start, self.parts.voice
        if not voice.speaks(clause.language, start.voice):
            answer.emit(ev.VoiceMissing(start.response_id, clause.language, now()))
            return
        first, began = True, now()
        try:
            for chunk in voice.speak(clause, voice=start.voice, speed=start.speed):
                if answer.cancelled:
                    return
                answer.made(chunk, clause, first, now() - began)
                first, began = False, now()
        except Exception as error:
            log.exception("speaking failed")
            answer.failed = f"the voice failed: {error}"
        answer.playback.finish_clause()


def _resample(chunk: AudioChunk) -> Pcm:
    if chunk.sample_rate == EAR_RATE:
        return chunk.pcm
    resampler = Resampler(chunk.sample_rate, EAR_RATE)
    return np.concatenate([resampler.feed(chunk.pcm), resampler.flush()])
