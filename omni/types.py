"""The types that travel between the rooms, and the protocols of the parts.

Arrays are numpy on the way in and out; tensors appear only inside the engine. Shape letters:
T time, H height, W width, D width of the LLM, B sequences in a batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Modality = Literal["text", "audio", "image", "video"]
Pcm = NDArray[np.float32]
Pixels = NDArray[np.uint8]
T = TypeVar("T")


class Run(Protocol):
    """Runs a piece of a model's work where that work belongs, and gives what it returns."""

    def __call__(self, work: Callable[[], T], /) -> T:
        """Run ``work`` and wait for it."""
        ...


def call(work: Callable[[], T], /) -> T:
    """The `Run` of this thread."""
    return work()


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """Mono sound: ``pcm`` float32 in [-1, 1], shape (T,); ``start`` in samples of its stream."""

    pcm: Pcm
    sample_rate: int
    start: int = 0

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.pcm) / self.sample_rate


@dataclass(frozen=True, slots=True)
class ImageFrame:
    """A picture: ``pixels`` RGB uint8, shape (H, W, 3); ``time`` in seconds on its stream."""

    pixels: Pixels
    time: float = 0.0


@dataclass(frozen=True, slots=True)
class Span:
    """What the LLM reads of one medium.

    ``text`` where the medium is bridged by words, ``embeds`` (T, D) where a trained adapter maps it
    into the LLM's space, or both. ``times`` is (begin, end) in seconds on the medium's stream;
    ``at`` the seconds of each row of ``embeds``, where they are not spread evenly over ``times``.
    """

    modality: Modality
    text: str | None = None
    embeds: torch.Tensor | None = None
    times: tuple[float, float] | None = None
    at: tuple[float, ...] | None = None

    @property
    def wordless(self) -> bool:
        """Whether only its embeddings can be read."""
        return not self.text and self.embeds is not None


@dataclass(frozen=True, slots=True)
class Step:
    """One generated token, with the hidden state (D,) when a decoder asks for it."""

    token: int
    hidden: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """A spoken word with its punctuation, from ``start`` to ``end`` seconds of the recording.

    Where a script has no spaces it is a character. ``speaker`` is who said it ("1", "2", …), where
    that was asked for.
    """

    text: str
    start: float
    end: float
    probability: float = 1.0
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A sentence, or what was said between two pauses; times in seconds of the recording.

    ``speaker`` is who said it ("1", "2", …), where that was asked for.
    """

    text: str
    start: float
    end: float
    confidence: float = 1.0
    no_speech: float = 0.0
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said. ``words`` and ``segments`` are empty unless times were asked for.

    ``confidence`` is the mean token probability in [0, 1]; ``no_speech`` the probability in [0, 1]
    that nobody spoke; ``language`` an ISO 639-1 code; ``embeds`` (T, D) what the LLM reads, of an
    encoder that is bridged by embeddings.
    """

    text: str
    language: str
    seconds: float
    confidence: float = 1.0
    no_speech: float = 0.0
    words: tuple[Word, ...] = ()
    segments: tuple[Segment, ...] = ()
    embeds: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a part can do; the rest of the system asks for this and never for the class."""

    inputs: frozenset[Modality] = frozenset()
    outputs: frozenset[Modality] = frozenset()
    bridge: Literal["text", "embeds", "none"] = "none"
    sample_rate: int | None = None
    """Of the audio it takes or gives, in hertz."""
    languages: frozenset[str] = frozenset()
    """ISO 639-1 codes; empty means not tied to a language."""
    voices: tuple[str, ...] = ()
    streaming: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the LLM may call; ``parameters`` is the JSON schema of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the LLM made; ``arguments`` is JSON text, ``id`` pairs it with its output."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolUse:
    """Which tools an answer may use and whether it must.

    "required" with ``name``: exactly that tool. Not ``parallel``: at most one call in an answer.
    """

    tools: tuple[Tool, ...] = ()
    choice: Literal["auto", "none", "required"] = "auto"
    name: str | None = None
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation as the LLM reads it.

    An assistant's message may hold ``tool_calls`` after its words; a message of the role "tool" is
    the output of the call ``call_id``.
    """

    role: Literal["system", "user", "assistant", "tool"]
    parts: tuple[str | Span, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None

    @property
    def text(self) -> str:
        """All of it in words; spans without words are left out."""
        pieces = (p if isinstance(p, str) else p.text for p in self.parts)
        return "\n".join(p for p in pieces if p)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. ``temperature`` 0 is greedy. ``max_tokens`` None: as many as fit."""

    temperature: float = 0.7
    top_p: float = 0.9
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a response read (of which ``cached`` from the KV cache) and wrote.

    ``dropped_messages`` counts the oldest messages that no longer fitted into the context.
    ``audio_tokens`` and ``image_tokens`` are those of the input that stand for sound and pictures;
    the rest is text.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    dropped_messages: int = 0
    audio_tokens: int = 0
    image_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Clause:
    """A piece of the answer that is spoken in one breath, and its language (ISO 639-1).

    ``text`` is what is spoken, without markup; ``source`` the part of the answer as it was written.
    """

    text: str
    language: str = "en"
    source: str = ""


class AudioEncoder(Protocol):
    """Sound -> Span. One instance serves all sessions; each session has its own stream."""

    capabilities: Capabilities

    def stream(self) -> AudioStream:
        """A fresh streaming state."""
        ...

    def transcribe_long(self, chunk: AudioChunk, language: str | None = None) -> Transcript:
        """Say in words what a recording of any length holds."""
        ...

    def transcribe_windows(
        self,
        sound: Iterable[AudioChunk],
        language: str | None = None,
        *,
        times: bool = False,
        run: Run = call,
    ) -> Iterator[Transcript]:
        """The same window by window; ``times`` asks for words and segments.

        ``run`` calls the model's work on one window, where that must be another thread.
        """
        ...


class AudioStream(Protocol):
    """The streaming state of an audio encoder: everything fed since the last reset."""

    def feed(self, chunk: AudioChunk) -> None:
        """Take more sound at the encoder's sample rate."""
        ...

    def transcribe(self, language: str | None = None) -> Transcript:
        """Say in words what was fed so far; the stream can be fed on afterwards."""
        ...

    def reset(self) -> None:
        """Forget everything that was fed."""
        ...


class ImageEncoder(Protocol):
    """Picture -> Span."""

    capabilities: Capabilities

    def encode(self, frames: Sequence[ImageFrame]) -> list[Span]:
        """One span per frame."""
        ...


class SpeechDecoder(Protocol):
    """Clause -> sound."""

    capabilities: Capabilities

    def speaks(self, language: str, voice: str | None = None) -> bool:
        """Whether some voice of this decoder knows ``language``."""
        ...

    def speak(
        self, clause: Clause, *, voice: str | None = None, speed: float = 1.0
    ) -> Iterator[AudioChunk]:
        """Sound for one clause, piece by piece, each as soon as it is made."""
        ...


@dataclass(slots=True)
class Timings:
    """When each stage of a turn happened: seconds of the engine's monotonic clock."""

    stamps: dict[str, float] = field(default_factory=dict)

    def mark(self, stage: str, now: float) -> None:
        """Stamp ``stage`` unless it has one already."""
        self.stamps.setdefault(stage, now)

    def since(self, origin: str) -> dict[str, float]:
        """Milliseconds of every stage after ``origin``; empty when ``origin`` has no stamp."""
        if origin not in self.stamps:
            return {}
        zero = self.stamps[origin]
        return {k: round((v - zero) * 1000, 1) for k, v in self.stamps.items()}
