"""Many recordings, and long ones, transcribed together: throughput instead of latency.

A thread reads the recordings one after the other, as far ahead as ``Config.ahead_seconds`` of
speech, and cuts them at pauses. Whoever iterates takes a round of what it has read, sorts it by
length and has it decoded in batches by as many threads as the model has workers. The words are
those that :meth:`WhisperEncoder.transcribe_long` finds: every window has the same length there, and
does not depend on its neighbours.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self

from encoders.audio import STEP, WhisperEncoder, is_sound, joined
from encoders.mel import RATE, whisper_mel
from encoders.segment import Piece
from encoders.whisper import Attempt
from encoders.words import later
from omni.errors import MediaError, OmniError
from omni.types import AudioChunk, Transcript

_PATIENCE = 1.0
"""Seconds to wait for a full round before a smaller one is taken."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Sound to transcribe: mono chunks at 16 kHz, read once, lazily, in the reader's thread.

    ``key`` comes back with the result. ``language`` (ISO 639-1) or detected; with ``times`` the
    transcript has words and segments. A generator is closed when it is done with.
    """

    key: str
    sound: Iterable[AudioChunk]
    language: str | None = None
    times: bool = False


class BatchTranscriber:
    """Transcribes recordings with one Whisper model.

    The fastest is one with as many ``workers`` as there are cores, of one thread each.
    """

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        At most ``batch`` windows are decoded at once. At most ``ahead_seconds`` of speech are read
        before they are decoded, and a round begins with ``round_seconds``: the more, the better
        lengths match, and the later a short recording is done.
        """

        batch: int = 16
        round_seconds: float = 120.0
        ahead_seconds: float = 360.0

    def __init__(self, whisper: WhisperEncoder, config: Config | None = None) -> None:
        self.whisper = whisper
        self.config = config or self.Config()

    def transcribe(self, recordings: Iterable[Recording]) -> Transcripts:
        """Start to read ``recordings``; iterate over what it returns, and close that."""
        return Transcripts(self.whisper, self.config, recordings)


@dataclass(slots=True, eq=False)
class _Job:
    """One recording on its way; ``heard`` is the language last heard surely.

    ``seconds`` were read so far, and ``counted`` of them are in the progress.
    """

    recording: Recording
    language: str | None = None
    heard: str | None = None
    parts: list[Transcript] = field(default_factory=list)
    seconds: float = 0.0
    counted: float = 0.0
    error: OmniError | None = None


@dataclass(slots=True, eq=False)
class _Task:
    """One piece of a recording; ``safe``: the longer window is to be taken."""

    job: _Job
    piece: Piece
    safe: bool = False
    attempt: Attempt | None = None
    language: str | None = None

    def frames(self, whisper: WhisperEncoder) -> int:
        return whisper.windows(self.piece.seconds, STEP, self.language)[-1 if self.safe else 0]


class _Ahead:
    """What was read and not yet taken: a queue that is bounded in seconds of sound.

    An entry without a piece says that its recording has been read.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._entries: list[tuple[_Job, Piece | None]] = []
        self.seconds = 0.0
        self.done = False
        self.closed = False
        self.problem: BaseException | None = None

    def put(self, job: _Job, piece: Piece | None) -> bool:
        """Add an entry once there is room; False: nobody wants more."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self.seconds < self._limit)
            if not self.closed:
                self._entries.append((job, piece))
                self.seconds += piece.seconds if piece else 0.0
                self._changed.notify_all()
            return not self.closed

    def end(self, problem: BaseException | None) -> None:
        """There is no more."""
        with self._changed:
            self.done, self.problem = True, problem
            self._changed.notify_all()

    def close(self) -> None:
        """Drop everything and let go of whoever waits."""
        with self._changed:
            self.closed = True
            self._entries.clear()
            self._changed.notify_all()

    def take(self, wanted: float) -> list[tuple[_Job, Piece | None]]:
        """All entries, from ``wanted`` seconds on or what came for a while; [] at the end."""
        with self._changed:

            def enough() -> bool:
                return self.closed or self.done or self.seconds >= wanted

            while not self._changed.wait_for(enough, _PATIENCE) and not self._entries:
                pass
            taken, self._entries = self._entries, []
            self.seconds = 0.0
            self._changed.notify_all()
            return taken


class Transcripts:
    """``(key, Transcript)`` or ``(key, OmniError)`` of each recording, as soon as it is complete.

    An iterator, whose ``next`` does the work. :meth:`close`, from any thread, or leaving its
    ``with`` block, ends the iteration after the batch at hand, and its threads. What
    ``recordings`` itself raises comes out of ``next``, after what was read before it.
    """

    def __init__(
        self,
        whisper: WhisperEncoder,
        config: BatchTranscriber.Config,
        recordings: Iterable[Recording],
    ) -> None:
        self.seconds = 0.0
        """Seconds of sound that are done so far; any thread may read it."""
        self._whisper, self._config = whisper, config
        self._ahead = _Ahead(config.ahead_seconds)
        self._results = self._work()
        self._reader = threading.Thread(
            target=self._read, args=(recordings,), name="omni-reader", daemon=True
        )
        self._reader.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[str, Transcript | OmniError]:
        return next(self._results)

    def close(self) -> None:
        """End the threads; what is not complete is dropped."""
        self._ahead.close()
        self._reader.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # The reader's thread

    def _read(self, recordings: Iterable[Recording]) -> None:
        problem = None
        try:
            for recording in recordings:
                job = _Job(recording)
                if not self._read_one(job) or not self._ahead.put(job, None):
                    break
        except BaseException as error:
            problem = error
        self._ahead.end(problem)

    def _read_one(self, job: _Job) -> bool:
        """Read one recording; False: nobody wants more."""
        recording, whisper = job.recording, self._whisper

        def counted() -> Iterator[AudioChunk]:
            for chunk in recording.sound:
                yield chunk
                job.seconds += chunk.seconds

        try:
            if recording.language:
                job.language = whisper.language_code(recording.language)
            return all(self._ahead.put(job, piece) for piece in whisper.pieces(counted()))
        except OmniError as error:
            job.error = error
        except Exception as error:  # one bad recording must not stop the others
            job.error = MediaError(f"the recording could not be read: {error!r}")
            job.error.__cause__ = error
        finally:
            with suppress(AttributeError):
                recording.sound.close()  # type: ignore[attr-defined]
        return True

    # The consumer's thread

    def _work(self) -> Iterator[tuple[str, Transcript | OmniError]]:
        with ThreadPoolExecutor(self._whisper.config.workers, "omni-batch") as pool:
            while entries := self._ahead.take(self._config.round_seconds):
                tasks = [_Task(job, piece) for job, piece in entries if piece and not job.error]
                self._decode(tasks, pool)
                for task in tasks:
                    self._finish(task)
                for job, piece in entries:
                    if self._ahead.closed:
                        return
                    if piece is None:
                        self.seconds += job.seconds - job.counted
                        whole = joined(job.parts, job.seconds, job.language)
                        yield job.recording.key, job.error or whole
        self._reader.join()
        if self._ahead.problem is not None:
            raise self._ahead.problem

    def _decode(self, tasks: Sequence[_Task], pool: ThreadPoolExecutor) -> None:
        """Give each task its attempt: the first one, one in another language, a safer one."""
        for task in tasks:
            task.language = task.job.language
        self._attempt([task for task in tasks if is_sound(task.piece.pcm)], pool)
        again = []
        for task in tasks:
            attempt, job = task.attempt, task.job
            if attempt is None:
                continue
            task.language = attempt.language
            if not attempt.sure and job.heard not in (None, attempt.language):
                task.language = job.heard
                again.append(task)
            elif attempt.tokens and attempt.probability >= self._whisper.config.low_confidence:
                job.heard = attempt.language
        self._attempt(again, pool)
        doubted = [task for task in tasks if task.attempt and not task.attempt.whole]
        for task in doubted:
            task.safe = True
        self._attempt(doubted, pool)

    def _attempt(self, tasks: Sequence[_Task], pool: ThreadPoolExecutor) -> None:
        """One pass of the model for each task, in batches of the same length."""
        sizes: dict[int, list[_Task]] = {}
        for task in sorted(tasks, key=lambda task: -len(task.piece.pcm)):
            sizes.setdefault(task.frames(self._whisper), []).append(task)
        batches = [
            (frames, same[i : i + self._config.batch])
            for frames, same in sizes.items()
            for i in range(0, len(same), self._config.batch)
        ]
        list(pool.map(lambda batch: self._batch(*batch), batches))

    def _batch(self, frames: int, tasks: Sequence[_Task]) -> None:
        if self._ahead.closed:
            return
        windows = [
            self._whisper.window(
                whisper_mel(task.piece.pcm, frames),
                len(task.piece.pcm),
                task.language,
                None,
                task.job.recording.times,
            )
            for task in tasks
        ]
        for task, attempt in zip(tasks, self._whisper.model.attempt(windows), strict=True):
            task.attempt = attempt

    def _finish(self, task: _Task) -> None:
        job, piece = task.job, task.piece
        transcript = partial(self._whisper.transcript, task.attempt, piece.pcm)
        part = transcript(job.language, times=job.recording.times, levels=piece.levels)
        job.parts.append(later(part, piece.start / RATE))
        done = piece.start / RATE + piece.seconds
        self.seconds += done - job.counted
        job.counted = done
