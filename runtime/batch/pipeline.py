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
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from decoders.clauses import ClauseSplitter
from encoders.media import audio_chunks, write_wav
from omni.batch.options import Options
from omni.batch.outputs import beside
from omni.batch.records import Medium, Record, Unusable
from omni.batch.schema import make_result
from omni.errors import InputError, MediaError, OmniError
from omni.types import AudioChunk, Transcript
from runtime.batch.models import Models
from runtime.batch.perceive import MAX_SECONDS, Perceived, has_sound, kind_of, look, read_text
from runtime.batch.writing import Job, Writing
from runtime.states import EAR_RATE

if TYPE_CHECKING:
    from encoders.batch import Recording

_WAITING = 16
"""Records between two stages."""
_TICK = 0.1
"""Seconds after which a stage looks whether it is still wanted."""


class Batch:
    """Does one batch. Use it as a context manager."""

    def __init__(self, options: Options, models: Models | None = None) -> None:
        options.check()
        self.options = options
        self._models = models or Models(options)
        self._writing = Writing(options, self._models)
        self._settings = options.settings
        self.heard = 0.0
        """Seconds of sound transcribed so far; any thread may read it."""
        self._stop = threading.Event()
        self._counting = threading.Lock()

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

    def run(self, records: Iterable[Record | Unusable]) -> Generator[dict[str, Any]]:
        """The result of every record, in the order in which they are finished.

        Closing the iterator ends the stages and waits for them.
        """
        if self.options.speak is not None:
            self._check_voice()
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

    def _check_voice(self) -> None:
        """An unknown voice is told before the work, not after it."""
        voices = self._models.voice.capabilities.voices
        if self.options.voice is not None and self.options.voice not in voices:
            raise InputError(
                f"there is no voice {self.options.voice!r}; voices are {', '.join(voices)}",
                param="voice",
            )

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
                    perceived, sounds = self._opened(medium)
                except OmniError as error:
                    job.error = job.error or error
                    continue
                except Exception as error:  # one bad file must not stop the others
                    job.error = MediaError(f"{medium.name!r} could not be opened: {error!r}")
                    continue
                job.perceived.append(perceived)
                if job.error is None and sounds:
                    key = f"{number}.{i}"
                    jobs[key] = (job, len(job.perceived) - 1)
                    job.missing += 1
                    sound = self._sound(job, len(job.perceived) - 1)
                    language = record.language or self.options.language
                    yield Recording(key, sound, language, times=True)
            self._one_less(job, out)

    def _opened(self, medium: Medium) -> tuple[Perceived, bool]:
        """A medium of a known kind, and whether it has sound."""
        perceived = Perceived(medium, kind_of(medium))
        if perceived.kind == "text":
            perceived.text = read_text(medium)
        path = medium.path
        return perceived, path is not None and has_sound(path, perceived.kind)

    def _sound(self, job: Job, i: int) -> Iterator[AudioChunk]:
        medium = job.perceived[i].medium
        assert medium.path is not None
        tap = self._models.speakers.stream() if self.options.speakers else None
        for chunk in audio_chunks(medium.path, EAR_RATE, MAX_SECONDS):
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
        asked = self._writing.questions(job)
        for one in job.perceived:
            if job.error is None and one.kind in ("image", "video"):
                assert one.medium.path is not None
                sight = self._models.sight_of_llm if asked else self._models.sight
                one.scenes = look(one.medium.path, one.kind, sight)
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
        if job.error is None and self.options.speak is not None and job.answers:
            began = time.monotonic()
            try:
                for number, answer in enumerate(job.answers, 1):
                    last = f".{number}.wav" if len(job.answers) > 1 else ".wav"
                    path = beside(self.options.speak, job.record.id, last)
                    answer.update(self._spoken(answer["answer"], path))
            except OSError as problem:
                job.error = OmniError(
                    f"cannot write the spoken answer: {problem.strerror or problem}; "
                    "make room, or choose another directory with --speak"
                )
            job.timings["speak"] = time.monotonic() - began
        return make_result(
            job.record.id,
            [one.described() for one in job.perceived] if job.error is None else [],
            job.answers,
            error=job.error,
            timings=job.timings,
            tokens=job.tokens,
            settings=self._settings,
            digest=job.digest,
        )

    def _spoken(self, text: str, path: Path) -> dict[str, str]:
        """Write ``text`` as sound; what is to be told of that."""
        splitter, voice = ClauseSplitter(), self._models.voice
        sound: list[AudioChunk] = []
        for clause in (*splitter.feed(text), *splitter.flush()):
            if not voice.speaks(clause.language, self.options.voice):
                return {"warning": f"no voice knows the language {clause.language!r}"}
            sound += voice.speak(clause, voice=self.options.voice)
        if not sound:
            return {"warning": "there is nothing to say"}
        path.parent.mkdir(parents=True, exist_ok=True)
        pcm = np.concatenate([chunk.pcm for chunk in sound])
        write_wav(path, AudioChunk(pcm, sound[0].sample_rate))
        return {"speech": str(path)}
