"""From records to results: three stages side by side, each with one owner.

1. A thread reads files ahead and has their sound transcribed in batches (`encoders.batch`).
2. A thread looks at pictures and clips.
3. Whoever iterates runs the LLM, several answers at once, and gets the results.

Queues between them are bounded: memory holds a few records, whatever their number and length.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

import omni
from decoders.clauses import ClauseSplitter
from encoders.media import audio_chunks, write_wav
from omni.batch.options import Options
from omni.batch.outputs import beside
from omni.batch.records import Medium, Record, Unusable
from omni.errors import InputError, MediaError, OmniError
from omni.types import AudioChunk, Transcript
from runtime.batch.models import Models
from runtime.batch.perceive import MAX_SECONDS, Perceived, has_sound, kind_of, look, read_text
from runtime.batch.writing import Job, Writing

if TYPE_CHECKING:
    from encoders.batch import Recording

RATE = 16_000
_WAITING = 16
"""Records between two stages."""
_TICK = 0.1
"""Seconds after which a stage looks whether it is still wanted."""


class Batch:
    """Does batches, one at a time. Use it as a context manager."""

    def __init__(self, options: Options, models: Models | None = None) -> None:
        options.check()
        if options.seed < 0:
            raise InputError(f"seed is {options.seed}; expected 0 or more", param="seed")
        self.options = options
        self._models = models or Models(options)
        self._writing = Writing(options, self._models)
        self._settings = options.settings
        self.heard = 0.0
        """Seconds of sound transcribed so far; any thread may read it."""
        self._stop = threading.Event()
        self._counting = threading.Lock()
        self._busy = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def written(self) -> int:
        """Tokens of answers so far; any thread may read it."""
        return self._writing.tokens

    def stop(self) -> None:
        """Finish nothing more: `run` ends soon, without what is not finished. From any thread."""
        self._stop.set()

    def run(self, records: Iterable[Record | Unusable]) -> Iterator[dict[str, Any]]:
        """The result of every record, in the order in which they are finished.

        Closing the iterator ends the stages and waits for them.
        """
        if self._busy:
            raise InputError("this batch is running already; make another one")
        self._busy = True
        self._stop.clear()
        heard: queue.Queue[Job | BaseException | None] = queue.Queue(_WAITING)
        seen: queue.Queue[Job | BaseException | None] = queue.Queue(_WAITING)
        stages = [
            threading.Thread(target=self._listen, args=(records, heard), name="omni-listen"),
            threading.Thread(target=self._look, args=(heard, seen), name="omni-look"),
        ]
        for stage in stages:
            stage.start()
        try:
            yield from self._answer(seen)
        finally:
            self._stop.set()
            for stage in stages:
                stage.join()
            self._busy = False

    # Stage 1: what is heard

    def _listen(
        self,
        records: Iterable[Record | Unusable],
        out: queue.Queue[Job | BaseException | None],
    ) -> None:
        """Reads files ahead in a thread of the transcriber, and takes transcripts in this one."""
        jobs: dict[str, tuple[Job, int]] = {}
        try:
            # Without recordings no model is loaded.
            source = self._recordings(records, jobs, out)
            first = next(source, None)
            if first is not None:
                with self._models.transcriber.transcribe(chain([first], source)) as transcripts:
                    before = self.heard
                    for key, found in transcripts:
                        self.heard = before + transcripts.seconds
                        self._heard(*jobs.pop(key), found, out)
                        if self._stop.is_set():
                            return
            self._put(out, None)
        except BaseException as error:
            self._put(out, error)

    def _recordings(
        self,
        records: Iterable[Record | Unusable],
        jobs: dict[str, tuple[Job, int]],
        out: queue.Queue[Job | BaseException | None],
    ) -> Iterator[Recording]:
        from encoders.batch import Recording

        for number, record in enumerate(records):
            if self._stop.is_set():
                return
            if isinstance(record, Unusable):
                self._put(out, Job(Record(record.id, ()), "", error=record.error))
                continue
            job = Job(record, record.digest(self._settings), missing=1)
            for i, medium in enumerate(record.media):
                try:
                    perceived = self._opened(medium)
                except OmniError as error:
                    job.error = job.error or error
                    continue
                job.perceived.append(perceived)
                if job.error is None and _sounds(perceived):
                    key = f"{number}.{i}"
                    jobs[key] = (job, len(job.perceived) - 1)
                    job.missing += 1
                    sound = self._sound(job, len(job.perceived) - 1)
                    language = record.language or self.options.language
                    yield Recording(key, sound, language, times=True)
            self._one_less(job, out)

    def _opened(self, medium: Medium) -> Perceived:
        perceived = Perceived(medium, kind_of(medium))
        if perceived.kind == "text":
            perceived.text = read_text(medium)
        return perceived

    def _sound(self, job: Job, i: int) -> Iterator[AudioChunk]:
        medium = job.perceived[i].medium
        assert medium.path is not None
        tap = self._models.speakers.stream() if self.options.speakers else None
        for chunk in audio_chunks(medium.path, RATE, MAX_SECONDS):
            if tap is not None:
                tap.feed(chunk)
            yield chunk
        if tap is not None:
            job.turns[i] = tap.finish(self.options.speaker_count)

    def _heard(
        self,
        job: Job,
        i: int,
        found: Transcript | OmniError,
        out: queue.Queue[Job | BaseException | None],
    ) -> None:
        if isinstance(found, OmniError):
            job.error = job.error or found
        else:
            if i in job.turns:
                from encoders.speakers import label

                found = label(found, job.turns[i])
            if not self.options.words:
                found = replace(found, words=())
            job.perceived[i].transcript = found
            job.perceived[i].seconds = found.seconds
        self._one_less(job, out)

    def _one_less(self, job: Job, out: queue.Queue[Job | BaseException | None]) -> None:
        with self._counting:  # in two threads
            job.missing -= 1
            ready = not job.missing
        if ready:
            self._put(out, job)

    def _put(
        self, out: queue.Queue[Job | BaseException | None], item: Job | BaseException | None
    ) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                out.put(item, timeout=_TICK)
                return

    # Stage 2: what is seen

    def _look(
        self,
        jobs: queue.Queue[Job | BaseException | None],
        out: queue.Queue[Job | BaseException | None],
    ) -> None:
        while not self._stop.is_set():
            try:
                job = jobs.get(timeout=_TICK)
            except queue.Empty:
                continue
            if isinstance(job, Job):
                try:
                    self._look_at(job)
                except OmniError as error:
                    job.error = error
                except Exception as error:  # one bad file must not stop the others
                    job.error = MediaError(f"the record could not be looked at: {error!r}")
                except BaseException as error:
                    self._put(out, error)
                    return
            self._put(out, job)
            if not isinstance(job, Job):
                return

    def _look_at(self, job: Job) -> None:
        began = time.monotonic()
        looked = False
        for one in job.perceived:
            if job.error is None and one.kind in ("image", "video"):
                assert one.medium.path is not None
                one.scenes = look(one.medium.path, one.kind, self._models.sight)
                looked = True
                if one.kind == "video" and one.scenes:
                    last = one.scenes[-1].times
                    one.seconds = max(one.seconds or 0.0, last[1] if last else 0.0)
        if looked:
            job.timings["see"] = time.monotonic() - began

    # Stage 3: what is answered

    def _answer(self, jobs: queue.Queue[Job | BaseException | None]) -> Iterator[dict[str, Any]]:
        writing, ended = self._writing, False
        while not (ended and writing.idle):
            while not ended and writing.room:
                try:
                    job = jobs.get(timeout=_TICK) if writing.idle else jobs.get_nowait()
                except queue.Empty:
                    if self._stop.is_set():
                        return
                    break
                if job is None:
                    ended = True
                elif isinstance(job, BaseException):
                    raise job
                elif job.error is None and writing.questions(job):
                    writing.add(job)
                else:
                    yield self._result(job)
            if not writing.idle:
                for job in writing.step():
                    yield self._result(job)
            if self._stop.is_set():
                return

    def _result(self, job: Job) -> dict[str, Any]:
        error = job.error
        if error is None and self.options.speak is not None:
            began = time.monotonic()
            try:
                self._speak(job)
            except OSError as problem:
                error = OmniError(
                    f"cannot write the spoken answer: {problem.strerror or problem}; "
                    "make room, or choose another directory with --speak"
                )
            if job.answers:
                job.timings["speak"] = time.monotonic() - began
        return {
            "id": job.record.id,
            "media": [one.described() for one in job.perceived] if error is None else [],
            "answers": job.answers if error is None else [],
            "error": None if error is None else _described(error),
            "timings": {name: round(value, 3) for name, value in job.timings.items()},
            "usage": {"input_tokens": job.tokens[0], "output_tokens": job.tokens[1]},
            "settings": self._settings,
            "version": omni.__version__,
            "digest": job.digest,
        }

    def _speak(self, job: Job) -> None:
        directory = self.options.speak
        assert directory is not None
        for number, answer in enumerate(job.answers, 1):
            last = f".{number}.wav" if len(job.answers) > 1 else ".wav"
            path = beside(directory, job.record.id, last)
            splitter = ClauseSplitter()
            clauses = [*splitter.feed(answer["answer"]), *splitter.flush()]
            sound = [
                chunk
                for clause in clauses
                for chunk in self._models.voice.speak(clause, voice=self.options.voice)
            ]
            if sound:
                pcm = np.concatenate([chunk.pcm for chunk in sound])
                path.parent.mkdir(parents=True, exist_ok=True)
                write_wav(path, AudioChunk(pcm, sound[0].sample_rate))
                answer["speech"] = str(path)


def _sounds(perceived: Perceived) -> bool:
    path = perceived.medium.path
    return path is not None and has_sound(path, perceived.kind)


def _described(error: OmniError) -> dict[str, Any]:
    return {
        "code": getattr(error, "code", "failed"),
        "message": str(error),
        "param": getattr(error, "param", None),
    }
