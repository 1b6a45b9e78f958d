"""The device thread: decodes for all sessions, and takes urgent work between two steps."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from functools import partial
from typing import Any, TypeVar

from decoders.text import IncrementalDetokenizer
from decoders.toolcalls import CallDelta, CallEnded, CallStarted, ToolCallParser
from encoders.media import load_image
from omni import events as ev
from omni.errors import BusyError, InputError, OmniError
from omni.llm.constraint import Constraint, Grammars
from omni.llm.generate import BatchGenerator, Finished
from omni.sequence import Interleaved
from omni.types import (
    AudioChunk,
    Clause,
    Message,
    Pcm,
    Sampling,
    Step,
    Tool,
    ToolUse,
    Usage,
)
from runtime.assembly import Parts
from runtime.drawing import Easel, announced, draw_for
from runtime.prompt import HELPED, Fitted, Reading, Window, fit, unasked
from runtime.search_tool import NAME, Findings
from runtime.states import EAR_RATE, Answer, Job, Release, Session, now, report
from runtime.worker import STOP, Call

log = logging.getLogger(__name__)
T = TypeVar("T")

MARGIN = 0.5
"""How much higher than usual the log odds of a call have to be; measured with the default model."""
QUIET = 1.0
"""Seconds after live work for which the background waits: a turn is several jobs with gaps."""
PATIENCE = 3.0
"""Seconds after which one job in the background is done though answers are being decoded."""
MARGIN_AFTER_OUTPUT = 4.0
"""The same once a tool has answered: the default model would call another without end."""
FIRST_SOUND = 0.05
"""Seconds for which decoding stands back while the first clause of an answer is spoken."""


class Device:
    """The thread, and all that runs on it."""

    def __init__(
        self,
        parts: Parts,
        say: Callable[[Answer, Clause | ev.OutputEvent], None],
        easel: Easel,
        find: Callable[[str], Findings | None],
    ) -> None:
        """``say`` takes what goes to the mouth: clauses, and events that come after their sound.

        ``find`` searches for what a user wants to find, where there is something to search in.
        """
        self._find = find
        self._easel = easel
        self._parts = parts
        self._reading = Reading.of(parts)
        self._to_mouth = say
        self.generator = BatchGenerator(parts.llm)
        self._helped = parts.llm.name in HELPED
        self.grammars = Grammars(parts.llm.tokenizer, lenient=self._helped)
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._urgent: list[tuple[int, int, Job]] = []
        self._order = itertools.count()
        self._background: deque[Callable[[], None]] = deque()
        self._live_at = -math.inf
        """When something was last done that a conversation waits for."""
        self._waiting_since = 0.0
        """Since when the first job in the background waits for its turn."""
        self._answers: dict[str, Answer] = {}
        self._weighed: dict[str, Callable[[], None]] = {}
        """What follows once a request has read what `unasked` gave."""
        self._thread = threading.Thread(target=self._run, name="omni-device", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, job: Any) -> None:
        """Take a job or a (session, command); never blocks."""
        self._inbox.put(job)

    def call(self, function: Callable[[], T], *, background: bool = False) -> T:
        """Run ``function`` on the thread and wait for what it returns or raises.

        At once, or in the ``background``: `QUIET` seconds after all that a conversation waits for,
        and `PATIENCE` seconds after the last such job at the latest.
        """
        call = Call(function)
        self._inbox.put(partial(self._put_off, call) if background else call)
        while not wait([call.future], timeout=1).done:
            if not self._thread.is_alive():
                raise BusyError("the server is closing; try again when it is up")
        return call.future.result()

    def _put_off(self, run: Callable[[], None]) -> None:
        if not self._background:
            self._waiting_since = now()
        self._background.append(run)

    @property
    def _background_in(self) -> float | None:
        """Seconds until work in the background may be done; None when there is none."""
        if not self._background:
            return None
        due = min(self._live_at + QUIET, self._waiting_since + PATIENCE)
        return max(0.0, due - now())

    def stop(self) -> None:
        """Stop after the step in progress and wait for the thread."""
        if self._thread.is_alive():
            self._inbox.put(STOP)
            self._thread.join()

    def _run(self) -> None:
        while True:
            live = self._urgent or not self.generator.idle
            try:
                job = self._inbox.get(timeout=0 if live else self._background_in)
            except queue.Empty:
                job = None
            if job is STOP:
                return
            try:
                if job is not None:
                    self._take(job)
                elif self._urgent:
                    urgent = heapq.heappop(self._urgent)[2]
                    report(urgent.session, urgent.key, urgent.work)
                    self._live_at = now()
                elif self._background_in == 0:
                    self._background.popleft()()
                    self._waiting_since = now()
                elif not self.generator.idle:
                    self._step()
                    self._live_at = now()
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
                self._weighed.pop(key, None)
            self._stop_preparing(job.session)
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
                case ev.Prepare():
                    self._prepare(session, command)
                case ev.Start():
                    self._start(session, command)
                case ev.Cancel(response_id):
                    self.generator.cancel(f"{session.id}/{response_id}")

    # One-off work

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

    def _size(self, sampling: Sampling) -> int:
        """Tokens of a prompt that leaves room for an answer."""
        size = self._parts.llm.max_context
        return size - min(sampling.max_tokens or size // 4, size // 4)

    def _fit(
        self,
        session: Session,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        window: Window,
    ) -> Fitted:
        return fit(self._reading, messages, tools, window, session.kept, helped=self._helped)

    def _prepare(self, session: Session, prepare: ev.Prepare) -> None:
        if session.answers:
            return
        self._stop_preparing(session)
        try:
            window = Window(self._size(Sampling()), prepare.context_limit, prepare.keep_ratio)
            fitted = self._fit(session, prepare.messages, prepare.tools, window)
            constraint = self.grammars.constraint(ToolUse(prepare.tools))
        except InputError:
            return
        key = self._prepare_id(session)

        def read() -> None:
            self._read(key, fitted.prompt, session)

        self._weigh(key, session, fitted, prepare.tools, constraint, read)

    def _start(self, session: Session, start: ev.Start) -> None:
        answer = session.answers.get(start.response_id)
        if answer is None or answer.cancelled:
            if answer is not None:
                answer.end(ev.ResponseDone(start.response_id, "cancelled", Usage(), now()))
            return
        self._stop_preparing(session)
        found = None if start.find is None else self._find(start.find)
        if found is not None and (found.results or start.wish is None):
            return self._show(answer, found)
        if start.wish is not None and self._easel.there:
            self._say(answer, announced(start.wish, self._easel.problem))
            self._finish_words(answer)
            return draw_for(answer, start.wish, self._easel, partial(self._to_mouth, answer))
        try:
            tokenizer, use = self._parts.llm.tokenizer, _use(start)
            tools = use.tools
            key = answer.request_id
            window = Window(self._size(start.sampling), start.context_limit, start.keep_ratio)
            fitted = self._fit(session, start.messages, tools, window)
            # With a ratio the prompt keeps its beginning until it is too long again.
            session.kept = fitted.kept if window.ratio is not None and window.ratio < 1 else None
            answer.read = fitted.messages
            answer.detokenizer = IncrementalDetokenizer(tokenizer.token_bytes)
            if tools and use.choice != "none":
                answer.calls = ToolCallParser(tokenizer.tool_format)
            constraint = self.grammars.constraint(use, start.schema)
            self._answers[key] = answer
            add = partial(self._add, answer, fitted, constraint)
            self._weigh(key, session, fitted, tools, constraint, add)
        except Exception as error:
            self._fail(answer, error)

    def _show(self, answer: Answer, found: Findings) -> None:
        """Answer with what was found."""
        response_id = answer.start.response_id
        answer.emit(ev.ToolRan(response_id, NAME, found.arguments, found.output, now()))
        self._say(answer, found.said)
        self._finish_words(answer)
        self._to_mouth(answer, ev.ResponseDone(response_id, "stop", Usage(), now()))

    def _add(self, answer: Answer, fitted: Fitted, constraint: Constraint | None) -> None:
        cache, sampling = answer.session.cache, answer.start.sampling
        try:
            prompt = fitted.prompt
            self.generator.add(
                answer.request_id,
                prompt.ids,
                cache,
                sampling,
                embeds=prompt.embeds,
                positions=prompt.aligned,
                constraint=constraint,
            )
        except Exception as error:
            self._fail(answer, error)

    def _fail(self, answer: Answer, error: Exception) -> None:
        """End an answer that could not be started."""
        self._answers.pop(answer.request_id, None)
        if not isinstance(error, OmniError):
            log.error("an answer could not be started", exc_info=error)
        code = error.code if isinstance(error, InputError) else None
        response_id = answer.start.response_id
        answer.end(ev.ResponseDone(response_id, "failed", Usage(), now(), str(error), code))

    def _weigh(
        self,
        key: str,
        session: Session,
        fitted: Fitted,
        tools: Sequence[Tool],
        constraint: Constraint | None,
        then: Callable[[], None],
    ) -> None:
        """See how far the talk before makes the model call tools or not, and even it out.

        After some talk a small model calls none any more, whatever it is asked for.
        """
        if not self._helped or constraint is None or not constraint.chooses:
            return then()
        prompt = unasked(self._reading, fitted.messages, tools)
        if prompt is None:
            return then()

        after_output = fitted.messages[-1].role == "tool"

        def decide(odds: float) -> None:
            constraint.bias = -odds - (MARGIN_AFTER_OUTPUT if after_output else MARGIN)
            then()

        def weigh() -> None:
            assert session.cache.ahead is not None
            session.inclination = prompt.ids, constraint.odds(session.cache.ahead)
            decide(session.inclination[1])

        if session.inclination is not None and session.inclination[0] == prompt.ids:
            return decide(session.inclination[1])
        self._weighed[key] = weigh
        self._read(key, prompt, session)

    def _read(self, key: str, prompt: Interleaved, session: Session) -> None:
        """Read a prompt into the session's cache, for an answer that may come."""
        self.generator.add_prefill(
            key, prompt.ids, session.cache, embeds=prompt.embeds, positions=prompt.aligned
        )

    def _stop_preparing(self, session: Session) -> None:
        self.generator.cancel(self._prepare_id(session))
        self._weighed.pop(self._prepare_id(session), None)

    def _step(self) -> None:
        try:
            results = self.generator.step()
        except Exception as error:
            log.exception("decoding failed")
            # All, prompts that are read ahead included: they would fail again without end.
            self.generator.cancel_all()
            self.generator.step()  # tells their ends, before new ones come by the same names
            self._weighed.clear()
            answers, self._answers = self._answers, {}
            for answer in answers.values():
                message = f"the model failed: {error}"
                response_id = answer.start.response_id
                answer.end(ev.ResponseDone(response_id, "failed", Usage(), now(), message))
            return
        for key, result in results:
            if isinstance(result, Finished) and result.reason == "stop" and key in self._weighed:
                self._weighed.pop(key)()
            elif key not in self._answers:
                continue
            elif isinstance(result, Finished):
                self._finish(self._answers[key], result)
            else:
                self._advance(self._answers[key], result)

    def _advance(self, answer: Answer, step: Step) -> None:
        assert answer.detokenizer is not None
        self._take_text(answer, answer.detokenizer.feed(step.token))

    def _take_text(self, answer: Answer, text: str) -> None:
        pieces = [text] if answer.calls is None else answer.calls.feed(text)
        for piece in pieces:
            if isinstance(piece, str):
                self._say(answer, answer.stop.feed(piece))
            else:
                self._call(answer, piece)

    def _call(self, answer: Answer, piece: CallStarted | CallDelta | CallEnded) -> None:
        """Pass a call on; behind the words before it, which are spoken first."""
        response_id = answer.start.response_id
        event: ev.OutputEvent
        match piece:
            case CallStarted(index, name):
                self._finish_words(answer)
                event = ev.ToolCallStarted(response_id, index, name, now())
            case CallDelta(index, text):
                event = ev.ToolCallDelta(response_id, index, text, now())
            case CallEnded(index, arguments):
                event = ev.ToolCallEnded(response_id, index, arguments, now())
        self._to_mouth(answer, event)

    def _finish_words(self, answer: Answer) -> None:
        """Let out what was held back of the words."""
        self._say(answer, answer.stop.flush())
        if answer.start.speak and not answer.cancelled:
            self._speak(answer, answer.clauses.flush())

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
        self._weighed.pop(answer.request_id, None)
        assert answer.detokenizer is not None
        self._take_text(answer, answer.detokenizer.flush())
        if answer.calls is not None:
            self._say(answer, answer.stop.feed(answer.calls.flush()))
        self._finish_words(answer)
        usage = Usage(
            finished.input_tokens,
            finished.cached_tokens,
            finished.output_tokens,
            dropped_messages=len(answer.start.messages) - len(answer.read),
            audio_tokens=self._reading.tokens(answer.read, "audio"),
            image_tokens=self._reading.tokens(answer.read, "image", "video"),
        )
        done = ev.ResponseDone(
            answer.start.response_id, finished.reason, usage, now(), finished.error
        )
        # Behind the last clause: the answer ends when all of it was spoken.
        self._to_mouth(answer, done)


def _use(start: ev.Start) -> ToolUse:
    """The tools that an answer is shown, and whether it may call them."""
    use = start.tools
    if use.tools and use.choice != "none":
        return use
    # Without calls before, tools that may not be called are better not shown at all; with some, a
    # small model would write another one as words.
    if any(message.tool_calls for message in start.messages):
        return ToolUse(use.tools, "none")
    return ToolUse((), "none") if use.tools else ToolUse()
