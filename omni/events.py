"""What the conversation asks of the engine (`Command`) and what the engine reports (`OutputEvent`).

All are plain data that could cross a process. Times named ``at`` are seconds of the engine's
monotonic clock; positions named ``start`` and ``end`` are seconds of the session's input sound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from omni.types import AudioChunk, Message, Sampling, Span, Tool, ToolUse, Transcript, Usage

if TYPE_CHECKING:
    from omni.draw.wishes import Wish


@dataclass(frozen=True, slots=True)
class Append:
    """More of the user's sound, at any rate; answered by `VoiceActivity`.

    ``noise_reduction`` says how far the microphone is, None leaves the sound as it is.
    """

    chunk: AudioChunk
    noise_reduction: Literal["near_field", "far_field"] | None = None


@dataclass(frozen=True, slots=True)
class Discard:
    """The sound before ``before`` will not be asked for any more."""

    before: float


@dataclass(frozen=True, slots=True)
class JudgeTurn:
    """Has the speaker finished at ``end``? Answered by `TurnJudged` with the same ``key``."""

    key: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Say what was said: from the input sound, or from ``chunk``. Answered by `Transcribed`."""

    key: str
    start: float = 0.0
    end: float = 0.0
    chunk: AudioChunk | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Forget:
    """The user went on: `JudgeTurn` and `Transcribe` with these keys need not be done any more."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class See:
    """Say what an encoded picture (JPEG, PNG, …) shows. Answered by `Seen`."""

    key: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Prepare:
    """Read ``messages`` ahead of a likely `Start` with the same options; nothing is answered."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    keep_ratio: float | None = 1.0
    context_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """Generate an answer to ``messages``; every event of it carries ``response_id``.

    ``schema`` is a JSON schema that the text of the answer has to follow. When the prompt is too
    long, the oldest turns are dropped until ``keep_ratio`` of the context is left, so that the next
    turns find their prefix in the cache; with ``keep_ratio`` None the answer fails instead.
    """

    response_id: str
    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    speak: bool = True
    voice: str | None = None
    speed: float = 1.0
    tools: ToolUse = field(default_factory=ToolUse)
    schema: Mapping[str, Any] | None = None
    keep_ratio: float | None = 1.0
    context_limit: int | None = None
    """Tokens of the conversation, the instructions left out, that the prompt may hold."""
    wish: Wish | None = None
    """A picture that the user asks for: where something can draw, the answer is that."""
    find: str | None = None
    """What the user asks to find: where an index has something that fits, the answer is that."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop an answer between two steps. `ResponseDone` follows unless it was sent already."""

    response_id: str


Command = Append | Discard | JudgeTurn | Transcribe | Forget | See | Prepare | Start | Cancel


@dataclass(frozen=True, slots=True)
class VoiceActivity:
    """Speech probabilities of frames that end at ``end``, one every ``step`` seconds."""

    probabilities: tuple[float, ...]
    end: float
    step: float
    at: float


@dataclass(frozen=True, slots=True)
class TurnJudged:
    """Probability in [0, 1] that the speaker has finished."""

    key: str
    probability: float
    at: float


@dataclass(frozen=True, slots=True)
class Transcribed:
    """What was said."""

    key: str
    transcript: Transcript
    at: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What a picture shows."""

    key: str
    span: Span
    at: float


@dataclass(frozen=True, slots=True)
class InputFailed:
    """A `JudgeTurn`, `Transcribe` or `See` could not be done; ``message`` is for the user."""

    key: str
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer's text."""

    response_id: str
    text: str
    at: float


@dataclass(frozen=True, slots=True)
class ToolCallStarted:
    """The answer calls the tool ``name``; ``index`` counts the calls of the answer from 0.

    It comes when all sound of the words before it is out, and the words after it come after it.
    """

    response_id: str
    index: int
    name: str
    at: float


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of the JSON text of the call's arguments."""

    response_id: str
    index: int
    delta: str
    at: float


@dataclass(frozen=True, slots=True)
class ToolCallEnded:
    """The call is complete: ``arguments`` is JSON text that is valid for the tool's schema."""

    response_id: str
    index: int
    arguments: str
    at: float


@dataclass(frozen=True, slots=True)
class ToolRan:
    """A tool of the server's own was called; ``arguments`` and ``output`` are JSON texts."""

    response_id: str
    name: str
    arguments: str
    output: str
    at: float


@dataclass(frozen=True, slots=True)
class PictureStarted:
    """The answer has a picture, drawn from ``prompt``; all sound of the words before it is out."""

    response_id: str
    prompt: str
    at: float


@dataclass(frozen=True, slots=True)
class PicturePartial:
    """A coarse version of the picture, as a PNG file; ``index`` counts them from 0."""

    response_id: str
    index: int
    data: bytes
    at: float


@dataclass(frozen=True, slots=True)
class PictureEnded:
    """The picture is complete, as a PNG file."""

    response_id: str
    data: bytes
    at: float


@dataclass(frozen=True, slots=True)
class ClauseReady:
    """A clause of the answer is complete and goes to the voice."""

    response_id: str
    text: str
    at: float


@dataclass(frozen=True, slots=True)
class AudioDelta:
    """More of the answer's sound; ``clause`` is what is being said in it."""

    response_id: str
    chunk: AudioChunk
    clause: str
    first_of_clause: bool
    at: float


@dataclass(frozen=True, slots=True)
class VoiceMissing:
    """No voice knows ``language``: the clause stays text."""

    response_id: str
    language: str
    at: float


@dataclass(frozen=True, slots=True)
class ResponseDone:
    """The end of an answer. ``reason``: "stop", "length", "cancelled" or "failed".

    ``code`` is that of the `InputError` when the answer failed because of what was asked for.
    """

    response_id: str
    reason: str
    usage: Usage
    at: float
    error: str | None = None
    code: str | None = None


OutputEvent = (
    VoiceActivity
    | TurnJudged
    | Transcribed
    | Seen
    | InputFailed
    | TextDelta
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallEnded
    | ToolRan
    | PictureStarted
    | PicturePartial
    | PictureEnded
    | ClauseReady
    | AudioDelta
    | VoiceMissing
    | ResponseDone
)
