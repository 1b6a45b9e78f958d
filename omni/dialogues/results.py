"""What a run of dialogues gave: plain data that reports are made of and runs are compared by.

Times in a turn are seconds since the turn began, stages are milliseconds since the user's speech
ended (or the question was sent). Media lie in files; :func:`save` puts them beside ``run.json``.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from omni.errors import InputError

Status = Literal["passed", "failed", "known failure", "unexpected pass"]
RUN_FILE = "run.json"


@dataclass(frozen=True, slots=True)
class Media:
    """A recording or a picture in a file."""

    path: Path
    media_type: str = "audio/wav"
    """``audio/wav``, ``image/jpeg`` or ``image/png``."""
    seconds: float | None = None
    """Of a recording."""


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation and what came of it."""

    kind: str
    """The expectation's word in the file: ``words``, ``meaning``, ``latency``, …"""
    wanted: str
    found: str
    passed: bool
    soft: bool = False
    """Scored, but never a failure."""
    score: float | None = None
    """0 to 1 where the expectation is a matter of degree, or soft."""
    turn: int | None = None
    """Of a check over repeats, in ``DialogueResult.checks``: the turn that it is about."""
    line: int | None = None
    """Where the file says it."""

    @property
    def failed(self) -> bool:
        """Whether the dialogue fails by it."""
        return not (self.passed or self.soft)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something could not be done: the message, and where the file asked for it."""

    message: str
    file: Path
    line: int | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else str(self.file)
        return f"{place}: {self.message}"


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call of the assistant and what was given back; ``output`` is None when nothing was."""

    name: str
    arguments: str
    """As it came: JSON."""
    output: str | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """An event of the protocol, or one of the user's (``user.speech_started``, …), and when."""

    type: str
    at: float
    """Seconds since the turn began."""
    detail: str = ""
    """Its words, an error's message, or the like."""


@dataclass(frozen=True, slots=True)
class UserTurn:
    """What the user did in a turn."""

    said: str = ""
    """The words that were spoken; a recording's if the file tells them."""
    typed: str = ""
    audio: Media | None = None
    """As it was sent, with all noise, from the turn's beginning to the answer's end."""
    pictures: tuple[Media, ...] = ()
    actions: tuple[str, ...] = ()
    """What else the user did, in words: ``interrupts after 0.8 s``."""
    conditions: tuple[str, ...] = ()
    """What the sound suffered, in words: ``babble at 10 dB``."""
    speech: tuple[tuple[float, float], ...] = ()
    """Begin and end of every piece of speech, in seconds since the turn began."""
    heard: str = ""
    """What the server understood of it."""


@dataclass(frozen=True, slots=True)
class AssistantTurn:
    """What came back in a turn; several answers are joined."""

    text: str = ""
    """The words of the answer, spoken or written, without those of one that was cut short for a
    later one in the same turn."""
    audio: Media | None = None
    audio_at: float | None = None
    """When its playback began, in seconds since the turn began."""
    transcript: str | None = None
    """What its speech sounds like, transcribed back; None where that was not asked for."""
    pictures: tuple[Media, ...] = ()
    calls: tuple[Call, ...] = ()
    statuses: tuple[str, ...] = ()
    """Of its responses: ``completed``, ``cancelled``, ``failed``, …"""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TurnResult:
    """One turn as it was played once."""

    index: int
    """From 0."""
    line: int
    user: UserTurn = UserTurn()
    assistant: AssistantTurn = AssistantTurn()
    events: tuple[Moment, ...] = ()
    stages: Mapping[str, float] = field(default_factory=dict)
    """The server's own ``timings`` of the last answer, in milliseconds since the end of speech."""
    measured: Mapping[str, float] = field(default_factory=dict)
    """Seen by the client, in milliseconds since the end of speech or the question: ``turn_end``,
    ``transcript``, ``first_token``, ``first_audio``, ``first_audible``, ``done``; ``stopped`` since
    an interruption began."""
    checks: tuple[Check, ...] = ()
    error: Problem | None = None
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether nothing failed that was expected."""
        return self.error is None and not any(check.failed for check in self.checks)


@dataclass(frozen=True, slots=True)
class Repeat:
    """The dialogue as it was played once."""

    turns: tuple[TurnResult, ...] = ()
    error: Problem | None = None
    """What ended it apart from a turn, such as settings that the server refused."""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every turn passed."""
        return self.error is None and all(turn.passed for turn in self.turns)


@dataclass(frozen=True, slots=True)
class DialogueResult:
    """One dialogue with all its repeats, or the reason why it could not be played."""

    path: Path
    name: str
    description: str = ""
    tags: tuple[str, ...] = ()
    known: str | None = None
    """What the dialogue is known to show about the model; a failure is then no failure."""
    repeats: tuple[Repeat, ...] = ()
    checks: tuple[Check, ...] = ()
    """Over all repeats: percentiles of latency, mean scores of soft expectations."""
    error: Problem | None = None
    """The file cannot be used."""

    @property
    def passed(self) -> bool:
        """Whether every repeat and every check over them passed."""
        return (
            self.error is None
            and all(repeat.passed for repeat in self.repeats)
            and not any(check.failed for check in self.checks)
        )

    @property
    def status(self) -> Status:
        """The verdict; a file that cannot be used has failed, whatever is known about it."""
        if self.known is None or self.error is not None:
            return "passed" if self.passed else "failed"
        return "unexpected pass" if self.passed else "known failure"

    @property
    def seconds(self) -> float:
        """What it took, all repeats together."""
        return sum(repeat.seconds for repeat in self.repeats)


@dataclass(frozen=True, slots=True)
class Run:
    """All dialogues of one run, and what they were run against."""

    started: str
    """ISO 8601, UTC."""
    url: str
    server: Mapping[str, Any] = field(default_factory=dict)
    """What ``/health`` says: the model, its settings, the version."""
    dialogues: tuple[DialogueResult, ...] = ()
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether no dialogue failed; a known failure is none, and an unexpected pass neither."""
        return all(dialogue.status != "failed" for dialogue in self.dialogues)

    def count(self, status: Status) -> int:
        """How many dialogues ended so."""
        return sum(dialogue.status == status for dialogue in self.dialogues)

    def to_json(self) -> str:
        """The run as JSON; media stay where they are, named by their paths."""
        from pydantic import TypeAdapter

        return TypeAdapter(Run).dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str) -> Run:
        """Read what :meth:`to_json` wrote; InputError when it is not a run."""
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(Run).validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the file"
            raise InputError(
                f"this is not a run of dialogues ({place}: {first['msg']}); expected the "
                f"{RUN_FILE} that `omni test --html DIR` writes"
            ) from None


def save(run: Run, directory: Path) -> Run:
    """Write ``run.json`` and copy all media beside it; give back the run as it lies there.

    Media are named by their content, in ``media/``, so that saving twice changes nothing; their
    paths in the JSON are relative to ``directory``, those of the run given back are not.
    """
    folder = directory / "media"
    folder.mkdir(parents=True, exist_ok=True)

    def keep(media: Media) -> Media:
        digest = hashlib.sha256(media.path.read_bytes()).hexdigest()[:16]
        name = f"{digest}{media.path.suffix}"
        if not (folder / name).exists():
            shutil.copyfile(media.path, folder / name)
        return replace(media, path=Path("media", name))

    saved: Run = _with_media(run, keep)
    (directory / RUN_FILE).write_text(saved.to_json(), encoding="utf-8")
    return load(directory)


def load(path: Path) -> Run:
    """Read a saved run, by its directory or its ``run.json``; InputError when there is none."""
    file = path / RUN_FILE if path.is_dir() else path
    try:
        run = Run.from_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"cannot read the run {path} ({error.strerror}); expected the directory of an earlier "
            "`omni test --html DIR`"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{file} is not text; expected the {RUN_FILE} of a run") from None
    loaded: Run = _with_media(run, lambda m: replace(m, path=file.parent / m.path))
    return loaded


def _with_media(value: Any, change: Callable[[Media], Media]) -> Any:
    """The value, with ``change`` applied to every Media in it, however deep."""
    if isinstance(value, Media):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_with_media(part, change) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: _with_media(getattr(value, f.name), change) for f in fields(value)}
        return replace(value, **parts)
    return value
