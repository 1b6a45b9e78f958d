"""One sample: a conversation whose messages hold text and media in the order they are read."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from omni.errors import InputError
from omni.types import AudioChunk, Modality, Pcm, Pixels

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Medium:
    """A picture, recording or clip as the bytes of a file; ``format`` is its usual extension."""

    kind: Literal["audio", "image", "video"]
    data: bytes
    format: str

    @classmethod
    def audio(cls, pcm: Pcm, sample_rate: int) -> Medium:
        """Mono sound, float32 (T,) in [-1, 1], as 16-bit FLAC."""
        from encoders.media import AudioWriter

        writer = AudioWriter("flac", sample_rate)
        return cls("audio", writer.write(pcm) + writer.close(), "flac")

    @classmethod
    def image(cls, pixels: Pixels) -> Medium:
        """A picture, RGB uint8 (H, W, 3), as WebP of high quality."""
        from PIL import Image

        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "WEBP", quality=90, method=2)
        return cls("image", out.getvalue(), "webp")

    def sound(self, sample_rate: int = 16_000) -> AudioChunk:
        """The recording, mono and resampled. Raises `MediaError` where it cannot be read."""
        from encoders.media import read_audio

        return read_audio(self.data, sample_rate)

    def pixels(self) -> Pixels:
        """The picture, RGB uint8 (H, W, 3). Raises `MediaError` where it cannot be read."""
        from encoders.media import load_image

        return load_image(self.data).pixels


@dataclass(frozen=True, slots=True)
class Message:
    """A turn: ``parts`` in reading order, words or the index of a medium of the sample."""

    role: Role
    parts: tuple[str | int, ...]

    @property
    def text(self) -> str:
        """Its words."""
        return "\n".join(p for p in self.parts if isinstance(p, str))


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation to learn from.

    ``modality`` says under which its loss is balanced. ``meta`` is JSON: at least ``source`` and
    ``licence``; ``split``, ``voice``, ``seed``, ``transcript`` … where they apply. ``rejected`` is
    a worse answer than the last message, for preference training.
    """

    id: str
    modality: Modality
    messages: tuple[Message, ...]
    media: tuple[Medium, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    rejected: str | None = None

    def check(self) -> None:
        """Raise `InputError` unless every index has its medium and every medium is read."""
        used = [p for m in self.messages for p in m.parts if isinstance(p, int)]
        if not self.messages or sorted(set(used)) != list(range(len(self.media))):
            raise InputError(
                f"sample {self.id!r} has {len(self.media)} media and messages that name "
                f"{sorted(set(used))}; every medium must be named, and no other"
            )
        if self.rejected is not None and self.messages[-1].role != "assistant":
            raise InputError(
                f"sample {self.id!r} has a rejected answer, so its last message must be the "
                f"assistant's, not the {self.messages[-1].role}'s"
            )
