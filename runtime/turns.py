"""Turn taking: from the speech probability of each frame to "started", "paused" and "stopped".

No I/O and no clock of its own: time is the position in the user's sound, so that a test of "silent
for two seconds" takes no time, and a slow network does not cut anybody short.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Eagerness = Literal["low", "medium", "high", "auto"]

PAUSE = 0.06
"""Silence in seconds after which work on the turn may start speculatively."""

REJUDGE = 0.15
"""Seconds of further silence after which an undecided pause is judged again."""

SURE = 0.8
"""From this probability on a short silence is enough."""


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """How the end of a turn is found.

    ``server_vad`` ends it after ``silence`` seconds. ``semantic_vad`` asks the end-of-turn model at
    a pause and ends the turn after ``settle`` seconds when the speaker has surely finished, after
    ``settle_unsure`` when it seems so, else after a longer silence that ``eagerness`` sets. The
    transcript and the prompt are made meanwhile, so that these silences hardly delay the answer.
    """

    kind: Literal["server_vad", "semantic_vad"] = "semantic_vad"
    threshold: float = 0.5
    prefix_padding: float = 0.3
    silence: float = 0.5
    eagerness: Eagerness = "auto"
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout: float | None = None
    """Seconds of silence after the answer's sound, after which the assistant speaks again."""
    settle: float = 0.3
    settle_unsure: float = 0.45

    @property
    def patience(self) -> float:
        """Seconds of silence that end a turn whatever the model thinks."""
        if self.kind == "server_vad":
            return self.silence
        return {"low": 3.0, "medium": 1.6, "auto": 1.6, "high": 0.7}[self.eagerness]

    @property
    def sureness(self) -> float:
        """How sure the end-of-turn model must be."""
        return {"low": 0.7, "medium": 0.5, "auto": 0.5, "high": 0.35}[self.eagerness]


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The user began to speak at ``start`` (padding included)."""

    start: float


@dataclass(frozen=True, slots=True)
class Paused:
    """The user may have finished at ``end``; ``pause`` numbers the pauses of the turn."""

    start: float
    end: float
    pause: int
    again: bool = False


@dataclass(frozen=True, slots=True)
class Resumed:
    """The user went on after pause number ``pause``."""

    pause: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The turn is over: speech from ``start`` to ``end``."""

    start: float
    end: float
    pause: int


TurnEvent = SpeechStarted | Paused | Resumed | SpeechStopped


class TurnTaker:
    """The state of one user's turn."""

    ONSET_FRAMES = 3
    """Frames over the threshold, among the last four, that make a start: a click is shorter."""

    def __init__(self, detection: TurnDetection) -> None:
        self.detection = detection
        self.speaking = False
        self._pauses = 0
        self._reset()

    def _reset(self) -> None:
        self.speaking = False
        self._recent: list[bool] = []
        self._onset = 0.0
        self._start = 0.0
        self._voiced_until = 0.0
        self._paused_at: float | None = None
        self._finished: float | None = None
        self._judged_at = 0.0

    def reset(self) -> None:
        """Forget a turn in progress."""
        self._reset()

    @property
    def pause(self) -> int:
        """Number of the latest pause."""
        return self._pauses

    def feed(self, probability: float, end: float, step: float) -> list[TurnEvent]:
        """Take one frame that ends at ``end`` seconds and is ``step`` seconds long."""
        voiced = probability >= (
            # A voice that is on is let go later than a silence is broken: no flutter in between.
            self.detection.threshold - 0.15 if self.speaking else self.detection.threshold
        )
        if not self.speaking:
            return self._idle(voiced, end, step)
        if voiced:
            self._voiced_until = end
            if self._paused_at is None:
                return []
            self._paused_at = None
            self._finished = None
            return [Resumed(self._pauses)]
        return self._silent(end)

    def _idle(self, voiced: bool, end: float, step: float) -> list[TurnEvent]:
        if voiced and not any(self._recent):
            self._onset = end - step
        self._recent = [*self._recent[-3:], voiced]
        if sum(self._recent) < self.ONSET_FRAMES:
            return []
        start = max(0.0, self._onset - self.detection.prefix_padding)
        self._reset()
        self.speaking, self._start, self._voiced_until = True, start, end
        return [SpeechStarted(start)]

    def _silent(self, end: float) -> list[TurnEvent]:
        silence = end - self._voiced_until
        events: list[TurnEvent] = []
        if self._paused_at is None and silence >= PAUSE:
            self._pauses += 1
            self._paused_at = self._judged_at = end
            events.append(Paused(self._start, end, self._pauses))
        elif (
            self.detection.kind == "semantic_vad"
            and self._paused_at is not None
            and self._finished is not None
            and self._finished < SURE
            and end - self._judged_at >= REJUDGE
        ):
            self._judged_at = end
            events.append(Paused(self._start, end, self._pauses, again=True))
        return events + self._decide(silence)

    def judged(self, pause: int, probability: float, now: float) -> list[TurnEvent]:
        """Take the end-of-turn model's word on ``pause``; ``now`` is the input's position."""
        if not self.speaking or self._paused_at is None or pause != self._pauses:
            return []
        self._finished = probability
        return self._decide(now - self._voiced_until)

    def _decide(self, silence: float) -> list[TurnEvent]:
        enough = self.detection.patience
        if (
            self.detection.kind == "semantic_vad"
            and self._finished is not None
            and self._finished >= self.detection.sureness
        ):
            sure = self._finished >= SURE
            enough = self.detection.settle if sure else self.detection.settle_unsure
        if silence < enough:
            return []
        stopped = SpeechStopped(self._start, self._voiced_until, self._pauses)
        self._reset()
        return [stopped]
