"""The format of a dialogue: what a file may say.

These classes are the one source of the format: files are checked by them, ``schema.json`` is made
from them, and their docstrings are what an editor shows. Times are in seconds unless a name says
otherwise; paths are relative to the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _exists(path: Path, info: ValidationInfo) -> Path:
    found: Path = (info.context or {}).get("folder", Path()) / path
    if not found.is_file():
        raise PydanticCustomError("no_file", "there is no file {path}", {"path": str(found)})
    return found


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        why = {"pattern": pattern, "error": str(error)}
        raise PydanticCustomError(
            "regex", "{pattern} is no regular expression ({error})", why
        ) from None
    return pattern


File = Annotated[Path, AfterValidator(_exists)]
Regex = Annotated[str, AfterValidator(_compiles)]
Tag = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Text = Annotated[str, Field(min_length=1)]
Seconds = Annotated[float, Field(ge=0, le=600)]
Positive = Annotated[float, Field(gt=0, le=600)]
Share = Annotated[float, Field(ge=0, le=1)]
Speed = Annotated[float, Field(ge=0.25, le=4)]
Milliseconds = Annotated[float, Field(gt=0)]


# What the user says and shows


class Pause(_Strict):
    """Silence in the middle of what is said."""

    pause: Seconds


class Spoken(_Strict):
    """A text and who says it."""

    text: Text
    voice: str | None = None
    """A voice of the server; default: that of the turn."""
    speed: Speed | None = None


class Recording(_Strict):
    """A recording in place of a spoken text."""

    recording: File
    text: str = ""
    """What is said in it; needed where ``heard`` counts word errors."""


Piece = Text | Pause | Spoken | Recording


class Picture(_Strict):
    """A picture that is shown at a moment of the turn."""

    picture: File
    at: Seconds = 0
    """Since the turn began."""


class Frames(_Strict):
    """Pictures one after the other, as a camera sends them."""

    frames: Annotated[list[File], Field(min_length=1)]
    every: Positive = 1
    at: Seconds = 0


class Clip(_Strict):
    """A video whose pictures are shown in real time, as a camera sends them, without its sound."""

    clip: File
    every: Positive = 1
    at: Seconds = 0


Shown = File | Picture | Frames | Clip


# What the sound suffers on its way


class Noise(_Strict):
    """Noise behind the user, all the time."""

    kind: Literal["white", "pink", "babble"]
    """Babble is several voices of the server at once."""
    snr: Annotated[float, Field(ge=-20, le=60)]
    """How much louder than the noise the user speaks, in dB."""


class Echo(_Strict):
    """The assistant's own voice, leaking from the loudspeaker into the microphone."""

    level: Annotated[float, Field(ge=-80, le=0)]
    """In dB, of what was played."""
    delay: Annotated[float, Field(ge=0, le=1)] = 0.1


class Loss(_Strict):
    """Packets of 20 ms that do not arrive."""

    rate: Share
    concealed: bool = True
    """Whether the gap is filled with a fading repetition, as codecs do, or closes up."""


class Conditions(_Strict):
    """What the user's sound suffers on its way; random, but the same in every run of a seed."""

    noise: Noise | None = None
    echo: Echo | None = None
    loss: Loss | None = None
    jitter: Annotated[float, Field(ge=0, le=5)] = 0
    """The network stalls for up to so many seconds; then all that waited comes in one burst."""


# What is expected


class Words(_Strict):
    """Words and phrases; case and punctuation do not count."""

    any: Text | list[Text] = []
    """At least one of them is there."""
    all: Text | list[Text] = []
    none: Text | list[Text] = []
    regex: Regex | None = None
    """Found in the text as it is, but for case."""


class Heard(Words):
    """What the server understood of the user's speech."""

    wer: Share | None = None
    """At most this word error rate against what was said."""


class Meaning(_Strict):
    """What the answer means."""

    like: Text | list[Text]
    """Sentences; the closest counts."""
    at_least: Share = 0.6
    """Cosine of the embeddings."""


class Sound(_Strict):
    """What the answer's speech is transcribed back as."""

    wer: Share
    """At most this word error rate."""
    text: str | None = None
    """Against this; default: the answer's own words."""


class ToolCalled(_Strict):
    """A call of a tool."""

    name: Text
    arguments: dict[str, Any] = {}
    """Those that matter; others may be there. Texts are compared without case."""


class Percentiles(_Strict):
    """Bounds in milliseconds, over the repeats."""

    p50: Milliseconds | None = None
    p90: Milliseconds | None = None
    p95: Milliseconds | None = None
    max: Milliseconds | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.model_fields_set:
            raise PydanticCustomError("empty", "no bound is given; expected p50, p90, p95 or max")
        return self


Stage = Literal["turn_end", "transcript", "first_token", "first_audio", "first_audible", "done"]


class Expectation(_Strict):
    """What is expected of a turn; all that is named must hold."""

    words: Text | list[Text] | Words | None = None
    """In the answer. A text or a list: all of them."""
    meaning: Text | list[Text] | Meaning | None = None
    """The answer is close to a sentence, or to one of several."""
    language: Text | list[Text] | None = None
    """Of the answer, ISO 639-1; one of several."""
    spoken: bool | None = None
    """Whether the answer has sound."""
    sounds_like: Share | Sound | None = None
    """The answer's speech, transcribed back, differs from its words by at most this error rate."""
    picture: bool | None = None
    """Whether the answer has a picture."""
    calls: Text | ToolCalled | list[Text | ToolCalled] | Literal[False] | None = None
    """Tools that are called; false: none is."""
    nothing_said: bool | None = None
    """True: no answer comes."""
    answers: Annotated[int, Field(ge=0)] | None = None
    """How many answers are begun: 1 where the user must not be answered before the end."""
    stopped: Milliseconds | None = None
    """The answer before falls silent within so many ms after this turn's interruption began."""
    latency: dict[Stage, Milliseconds | Percentiles] | None = None
    """Bounds in ms since the end of the user's speech; a number is for every repeat."""
    events: list[Text] | None = None
    """Types of events that come in this order; others may come between."""
    heard: Text | list[Text] | Heard | None = None
    """What the server understood of the user. A text or a list: all of these words."""
    soft: bool = False
    """Scored over the repeats instead of failed."""


# The dialogue


class ToolOffered(_Strict):
    """A function that the assistant may call."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str = ""
    parameters: dict[str, Any] = {"type": "object", "properties": {}}
    """JSON Schema of the arguments."""
    gives: str | dict[str, Any] | list[Any] | None = None
    """What a call gives back, with ``$argument`` for arguments; null: calls are not answered."""


class Session(_Strict):
    """The settings of the session."""

    instructions: str | None = None
    voice: str | None = None
    speed: Annotated[float, Field(ge=0.25, le=1.5)] | None = None
    language: str | None = None
    """That the user speaks, ISO 639-1; default: detected."""
    turn_detection: Literal["semantic_vad", "server_vad", "none"] | dict[str, Any] | None = None
    """A kind, or all its settings as on the wire; none: push to talk."""
    noise_reduction: Literal["near_field", "far_field"] | None = None
    modality: Literal["audio", "text"] = "audio"
    tools: list[ToolOffered] = []
    tool_choice: str | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0
    """0: always the same answer."""
    seed: int | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None


class User(_Strict):
    """How the user speaks where a turn does not say otherwise."""

    voice: str = "auto"
    """A voice of the server; auto: that of the language."""
    speed: Speed = 1


class Turn(_Strict):
    """What the user does, and what is expected of the answer."""

    say: Piece | list[Piece] | None = None
    """Spoken in real time: a text, a recording, or pieces with pauses."""
    voice: str | None = None
    speed: Speed | None = None
    type: str | None = None
    """A written message."""
    show: Shown | list[Shown] | None = None
    """Pictures: part of a written message, else frames of the camera."""
    interrupts: Seconds | None = None
    """Begins when the answer before has been heard for so many seconds, and talks over it."""
    silent: Positive | None = None
    """The user stays silent for so many seconds, also when an answer has come."""
    hang_up: Seconds | None = None
    """The user leaves when the answer has been heard for so many seconds."""
    resume: bool = False
    """The user comes back to the session that was left."""
    tools: dict[str, str | dict[str, Any] | list[Any]] = {}
    """What calls give back in this turn, by the tool's name."""
    conditions: Conditions | None = None
    """Instead of those of the dialogue."""
    expect: Expectation | list[Expectation] = []

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not (self.say or self.show or self.silent or self.resume or self.type is not None):
            raise PydanticCustomError(
                "idle", "the user does nothing here; expected say, type, show, silent or resume"
            )
        if self.say and self.type is not None:
            raise PydanticCustomError(
                "both", "say and type are in one turn; make two turns of it, or leave one out"
            )
        if self.interrupts is not None and not self.say and self.type is None:
            raise PydanticCustomError("mute", "who interrupts says or types something; add say")
        return self

    @property
    def pieces(self) -> list[Piece]:
        """What is said, always as a list."""
        return [] if self.say is None else self.say if isinstance(self.say, list) else [self.say]

    @property
    def shown(self) -> list[Shown]:
        """What is shown, always as a list."""
        given = self.show
        return [] if given is None else given if isinstance(given, list) else [given]

    @property
    def expectations(self) -> list[Expectation]:
        """What is expected, always as a list."""
        return self.expect if isinstance(self.expect, list) else [self.expect]

    @property
    def expects_silence(self) -> bool:
        """Whether no answer is to be waited for."""
        return any(expectation.nothing_said for expectation in self.expectations)


class Dialogue(_Strict):
    """A conversation: what the user does, turn by turn, and what is expected."""

    name: str = ""
    """Default: the file's."""
    description: str = ""
    tags: list[Tag] = []
    known: Text | None = None
    """What this shows about the default model; a failure then is a known one, and no failure."""
    repeats: Annotated[int, Field(ge=1, le=1000)] = 1
    """How often it is played; percentiles and soft expectations are taken over all repeats."""
    seed: int = 0
    """Of noise, losses and stalls."""
    timeout: Positive = 60
    """Longest time from what the user said to the end of the answer."""
    session: Session = Session()
    user: User = User()
    conditions: Conditions = Conditions()
    turns: Annotated[list[Turn], Field(min_length=1)]

    @model_validator(mode="after")
    def _turns_fit(self) -> Self:
        gone = False
        for index, turn in enumerate(self.turns):
            if turn.resume != gone:
                why = "resumes, but nobody hung up before" if turn.resume else "comes after hang_up"
                raise PydanticCustomError(
                    "resume",
                    "turn {turn} {why}; a turn has resume: true if and only if the one before "
                    "has hang_up",
                    {"turn": index + 1, "why": why},
                )
            gone = turn.hang_up is not None
        if self.turns[0].interrupts is not None:
            raise PydanticCustomError("first", "the first turn has no answer to interrupt")
        return self


def schema() -> dict[str, Any]:
    """The JSON Schema of a dialogue, as ``schema.json`` has it."""
    made = Dialogue.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def many(value: str | list[str] | None) -> list[str]:
    """A text, several or none, as a list."""
    return [] if value is None else [value] if isinstance(value, str) else value


def fields_of(step: str | None) -> list[str]:
    """The fields that may stand under a field of that name; None: in a dialogue."""
    return _FIELDS.get(step, [])


def _models(annotation: Any) -> Iterator[type[_Strict]]:
    if isinstance(annotation, type) and issubclass(annotation, _Strict):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _collect(step: str | None, model: type[_Strict], found: dict[str | None, list[str]]) -> None:
    found[step] = list(dict.fromkeys((*found.get(step, ()), *model.model_fields)))
    for name, info in model.model_fields.items():
        for inner in _models(info.annotation):
            _collect(name, inner, found)


_FIELDS: dict[str | None, list[str]] = {}
_collect(None, Dialogue, _FIELDS)
