"""The device thread: decodes for all sessions, and takes urgent work between two steps."""

from __future__ import annotations

import bisect
import heapq
import itertools
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from decoders.text import IncrementalDetokenizer
from encoders.media import load_image
from omni import events as ev
from omni.errors import InputError, OmniError
from omni.llm.generate import BatchGenerator, Finished
from omni.types import AudioChunk, Clause, Message, Pcm, Sampling, Step, Usage
from runtime.assembly import Parts
from runtime.states import EAR_RATE, Answer, Job, Release, Session, now
from runtime.worker import STOP

log = logging.getLogger(__name__)
T = TypeVar("T")

FIRST_SOUND = 0.05
"""Seconds for which decoding stands back while the first clause of an answer is spoken."""


class Device:
    """The thread, and all that runs on it."""

    def __init__(
        self, parts: Parts, say: Callable[[Answer, Clause | ev.ResponseDone], None]
    ) -> None:
        """``say`` takes the clauses of an answer, then its end, on their way to the mouth."""
        self._parts = parts
        self._to_mouth = say
        self.generator = BatchGenerator(parts.llm)
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._urgent: list[tuple[int, int, Job]] = []
        self._order = itertools.count()
        self._answers: dict[str, Answer] = {}
        self._thread = threading.Thread(target=self._run, name="omni-device", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, job: Any) -> None:
        """Take a job or a (session, command); never blocks."""
        self._inbox.put(job)

    def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` on the thread and wait for what it returns or raises."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self._inbox.put(run)
        return future.result()

    def stop(self) -> None:
        """Stop after the step in progress and wait for the thread."""
        if self._thread.is_alive():
            self._inbox.put(STOP)
            self._thread.join()

    def _run(self) -> None:
        while True:
            idle = not self._urgent and self.generator.idle
            try:
                job = self._inbox.get(block=idle)
            except queue.Empty:
                job = None
            if job is STOP:
                return
            try:
                if job is not None:
                    self._take(job)
                elif self._urgent:
                    self._do(heapq.heappop(self._urgent)[2])
                else:
                    self._step()
            except Exception:
                log.exception("the device thread met an unexpected error")

    def _take(self, job: Any) -> None:
        """Take in one command; all that wait are taken before any work goes on."""
        if isinstance(job, Job):
            heapq.heappush(self._urgent, (job.priority, next(self._order), job))
        elif isinstance(job, Release):
            for key in [k for k, a in self._answers.items() if a.session is job.session]:
                self.generator.cancel(key)
                del self._answers[key]
            self.generator.cancel(self._prepare_id(job.session))
        elif callable(job):
            job()
        else:
            session, command = job
            match command:
                case ev.Forget(keys):
                    self._urgent = [
                        entry
                        for entry in self._urgent
                        if entry[2].session is not session or entry[2].key not in keys
                    ]
                    heapq.heapify(self._urgent)
                case ev.Prepare(messages):
                    self._prepare(session, messages)
                case ev.Start():
                    self._start(session, command)
                case ev.Cancel(response_id):
                    self.generator.cancel(f"{session.id}/{response_id}")

    # One-off work

    def _do(self, job: Job) -> None:
        if job.session.closed:
            return
        try:
            event = job.work()
        except OmniError as error:
            event = ev.InputFailed(job.key, str(error), now())
        except Exception as error:
            log.exception("%s failed", job.key)
            event = ev.InputFailed(job.key, f"internal error: {error}", now())
        job.session.emit(event)

    def judge(self, key: str, pcm: Pcm) -> ev.OutputEvent:
        """Ask the end-of-turn model about a turn (T,) at `EAR_RATE`. Only on the thread."""
        return ev.TurnJudged(key, self._parts.turn.probability(pcm), now())

    def transcribe(self, key: str, pcm: Pcm, language: str | None) -> ev.OutputEvent:
        """Say what was said in ``pcm`` (T,) at `EAR_RATE`. Only on the thread."""
        stream = self._parts.hearing.stream()
        stream.feed(AudioChunk(pcm, EAR_RATE))
        return ev.Transcribed(key, stream.transcribe(language), now())

    def see(self, key: str, data: bytes) -> ev.OutputEvent:
        """Say what an encoded picture shows. Only on the thread. Raises `MediaError`."""
        return ev.Seen(key, self._parts.sight.encode([load_image(data)])[0], now())

    # Generation

    def _prepare_id(self, session: Session) -> str:
        return f"{session.id}/prepare"

    def _fit(self, messages: tuple[Message, ...], room: int) -> tuple[list[int], int]:
        """Tokens of the messages, the oldest dropped whole until ``room`` is left to answer in."""
        llm = self._parts.llm
        head = [m for m in messages if m.role == "system"]
        rest = [m for m in messages if m.role != "system"]
        # A turn goes whole: the question together with its answer.
        cuts = [0, *(i for i, m in enumerate(rest) if i and m.role == "user")]
        if cuts[-1] < len(rest) - 1:
            cuts.append(len(rest) - 1)
        prompts: dict[int, list[int]] = {}

        def fits(cut: int) -> bool:
            prompts[cut] = llm.tokenizer.encode_chat([*head, *rest[cut:]])
            return len(prompts[cut]) + room <= llm.max_context

        if fits(0):
            return prompts[0], 0
        # After hours of talk there are many cuts, and trying one reads all that follows it.
        first = bisect.bisect_left(cuts, True, lo=1, key=fits)
        if first == len(cuts):
            tokens = len(prompts[cuts[-1]])
            raise InputError(
                f"the last message is too long: with the instructions it takes {tokens} tokens "
                f"of a context of {llm.max_context}, of which {room} are kept for the answer; "
                "shorten it",
                code="context_length_exceeded",
            )
        return prompts[cuts[first]], cuts[first]

    def _room(self, sampling: Sampling) -> int:
        limit = self._parts.llm.max_context // 4
        return min(sampling.max_tokens or limit, limit)

    def _prepare(self, session: Session, messages: tuple[Message, ...]) -> None:
        if session.answers:
            return
        self.generator.cancel(self._prepare_id(session))
        try:
            tokens, _ = self._fit(messages, self._room(Sampling()))
        except InputError:
            return
        self.generator.add_prefill(self._prepare_id(session), tokens, session.cache)

    def _start(self, session: Session, start: ev.Start) -> None:
        answer = session.answers.get(start.response_id)
        if answer is None or answer.cancelled:
            if answer is not None:
                answer.end(ev.ResponseDone(start.response_id, "cancelled", Usage(), now()))
            return
        self.generator.cancel(self._prepare_id(session))
        try:
            tokens, answer.dropped = self._fit(start.messages, self._room(start.sampling))
            answer.detokenizer = IncrementalDetokenizer(self._parts.llm.tokenizer.token_bytes)
            self.generator.add(answer.request_id, tokens, session.cache, start.sampling)
        except Exception as error:
            if not isinstance(error, OmniError):
                log.exception("an answer could not be started")
            answer.end(ev.ResponseDone(start.response_id, "failed", Usage(), now(), str(error)))
            return
        self._answers[answer.request_id] = answer

    def _step(self) -> None:
        try:
            results = self.generator.step()
        except Exception as error:
            log.exception("decoding failed")
            for key, answer in list(self._answers.items()):
                self.generator.cancel(key)
                del self._answers[key]
                message = f"the model failed: {error}"
                response_id = answer.start.response_id
                answer.end(ev.ResponseDone(response_id, "failed", Usage(), now(), message))
            return
        for key, result in results:
            if key not in self._answers:
                continue
            if isinstance(result, Finished):
                self._finish(self._answers[key], result)
            else:
                self._advance(self._answers[key], result)

    def _advance(self, answer: Answer, step: Step) -> None:
        assert answer.detokenizer is not None
        self._say(answer, answer.stop.feed(answer.detokenizer.feed(step.token)))

    def _say(self, answer: Answer, text: str) -> None:
        if answer.cancelled or not text:
            return
        answer.emit(ev.TextDelta(answer.start.response_id, text, now()))
        if answer.start.speak:
            self._speak(answer, answer.clauses.feed(text))

    def _speak(self, answer: Answer, clauses: list[Clause]) -> None:
        for clause in clauses:
            answer.emit(ev.ClauseReady(answer.start.response_id, clause.source, now()))
            answer.expected.put(clause)
            self._to_mouth(answer, clause)
            if not answer.sounding.is_set():
                # The first sound is what the user waits for: leave the cores to it. A slow voice
                # or a busy mouth costs the others no more than a step.
                answer.sounding.wait(FIRST_SOUND)

    def _finish(self, answer: Answer, finished: Finished) -> None:
        del self._answers[answer.request_id]
        assert answer.detokenizer is not None
        if not answer.stop.stopped:
            self._say(answer, answer.stop.feed(answer.detokenizer.flush()))
            self._say(answer, answer.stop.flush())
        if answer.start.speak and not answer.cancelled:
            self._speak(answer, answer.clauses.flush())
        usage = Usage(
            finished.input_tokens, finished.cached_tokens, finished.output_tokens, answer.dropped
        )
        done = ev.ResponseDone(answer.start.response_id, finished.reason, usage, now())
        # Behind the last clause: the answer ends when all of it was spoken.
        self._to_mouth(answer, done)
