"""The LLM at work on the questions of several records."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from omni.batch.options import Options
from omni.batch.outputs import beside
from omni.batch.records import Record
from omni.draw.wishes import Wish, wish
from omni.errors import OmniError
from omni.llm.generate import BatchGenerator
from omni.types import Message, Sampling, Step
from runtime.batch.asking import Asking, ask, fits
from runtime.batch.models import Models
from runtime.batch.perceive import Perceived
from runtime.drawing import announced, encoded

if TYPE_CHECKING:
    from encoders.speakers import SpeakerTurn


@dataclass(eq=False)
class Job:
    """One record on its way."""

    record: Record
    digest: str
    perceived: list[Perceived] = field(default_factory=list)
    missing: int = 0
    """Recordings that are not transcribed yet, and one while it is read."""
    answers: list[dict[str, Any]] = field(default_factory=list)
    error: OmniError | None = None
    timings: dict[str, float] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=lambda: [0, 0])
    turns: dict[int, list[SpeakerTurn]] = field(default_factory=dict)
    """Who spoke when, by medium."""


@dataclass(eq=False)
class _Slot:
    """A cache that answers one job after the other, so that they share the prompt's beginning."""

    cache: Any
    job: Job | None = None
    questions: list[str | None] = field(default_factory=list)
    asking: Asking | None = None
    wish: Wish | None = None
    """What was drawn for the question before."""
    tokens: list[int] = field(default_factory=list)
    began: float = 0.0


class Writing:
    """Several answers at once; one thread uses it."""

    def __init__(self, options: Options, models: Models) -> None:
        self._options = options
        self._models = models
        self._slots: list[_Slot] = []
        self._generator: BatchGenerator | None = None
        self.tokens = 0
        """Written so far."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not any(slot.job for slot in self._slots)

    @property
    def room(self) -> bool:
        """Whether one more job can be worked on."""
        busy = sum(slot.job is not None for slot in self._slots)
        return busy < self._options.together

    def questions(self, job: Job) -> list[str | None]:
        """What is asked about a job; None: what is said in it is the question."""
        said = self._options.answer and any(one.transcript for one in job.perceived)
        return [*([None] if said else []), *job.record.asks]

    def add(self, job: Job) -> None:
        """Begin with the first question of ``job``, which has one."""
        if self._generator is None:
            self._generator = BatchGenerator(self._models.llm)
        slot = next((slot for slot in self._slots if slot.job is None), None)
        if slot is None:
            slot = _Slot(self._models.llm.new_cache())
            self._slots.append(slot)
        slot.job, slot.questions, slot.wish = job, self.questions(job), None
        slot.began = time.monotonic()
        self._ask(slot, job)

    def step(self) -> Iterator[Job]:
        """One pass of the model; the jobs that are done, by it or by drawing alone."""
        for slot in self._slots:
            if slot.job is not None and (slot.job.error is not None or not slot.questions):
                yield self._done(slot, slot.job)
        if self._generator is None or self._generator.idle:
            return
        for name, event in self._generator.step():
            slot = self._slots[int(name)]
            if isinstance(event, Step):
                slot.tokens.append(event.token)
                self.tokens += 1
            elif (job := slot.job) is not None:
                job.tokens[0] += event.input_tokens
                job.tokens[1] += event.output_tokens
                text = self._models.llm.tokenizer.decode(slot.tokens).strip()
                if self._go_on(slot, job, text):
                    yield self._done(slot, job)

    def _done(self, slot: _Slot, job: Job) -> Job:
        slot.job = slot.asking = None
        job.timings["answer"] = time.monotonic() - slot.began
        return job

    def _ask(self, slot: _Slot, job: Job) -> None:
        """Begin the next question; what is wrong with it is then in the job."""
        options, question = self._options, slot.questions[0]
        slot.wish = self._wish(job, question, slot.wish)
        if slot.wish is not None:
            try:
                drawn = self._drawn(job, slot.wish)
            except OmniError as error:
                job.error = error
            else:
                self._answered(slot, job, drawn)
            return
        room = fits(self._models.llm, options.max_tokens)
        slot.asking = ask(job.perceived, question, room, options.instructions)
        self._go_on(slot, job, None)

    def _answered(self, slot: _Slot, job: Job, answer: dict[str, str]) -> None:
        job.answers.append({"ask": slot.questions.pop(0), **answer})
        if slot.questions:
            self._ask(slot, job)

    def _wish(self, job: Job, question: str | None, before: Wish | None) -> Wish | None:
        """The picture that is asked for, perhaps as a change of the one ``before`` it."""
        if self._options.draw is None:
            return None
        heard = (one.transcript.text for one in job.perceived if one.transcript)
        return wish(" ".join(heard) if question is None else question, before)

    def _drawn(self, job: Job, wanted: Wish) -> dict[str, str]:
        """Draw into a file. Raises `OmniError` where it cannot be written."""
        folder = self._options.draw
        assert folder is not None
        try:
            painter = self._models.painter
        except OmniError as error:
            return {"answer": announced(wanted, str(error))}
        pixels = painter.paint(wanted, seed=self._options.seed)
        path = beside(folder, job.record.id, f".{len(job.answers) + 1}.png")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(pixels))
        except OSError as error:
            raise OmniError(
                f"cannot write the picture: {error.strerror or error}; make room, or choose "
                "another directory with --draw"
            ) from None
        return {"answer": announced(wanted), "picture": str(path)}

    def _go_on(self, slot: _Slot, job: Job, text: str | None) -> bool:
        """Give ``text`` to the question at hand; True when the job is done by that."""
        assert slot.asking is not None
        try:
            self._begin(slot, next(slot.asking) if text is None else slot.asking.send(text))
        except StopIteration as end:
            self._answered(slot, job, {"answer": end.value})
        except OmniError as error:
            job.error = error
        return text is not None and (job.error is not None or not slot.questions)

    def _begin(self, slot: _Slot, prompt: Sequence[Message]) -> None:
        assert self._generator is not None
        options, reading = self._options, self._models.reading
        read = reading.prompt(reading.bridge(prompt))
        slot.tokens = []
        sampling = Sampling(
            temperature=options.temperature, max_tokens=options.max_tokens, seed=options.seed
        )
        self._generator.add(
            str(self._slots.index(slot)),
            read.ids,
            slot.cache,
            sampling,
            embeds=read.embeds,
            positions=read.aligned,
        )
