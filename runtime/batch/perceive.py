"""Media files -> what was heard and seen in them."""

from __future__ import annotations

import codecs
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from encoders.media import Source, load_image, open_container, source_name
from encoders.video import frames_of, merged, moving_track
from omni.batch.records import Kind, Medium
from omni.errors import MediaError
from omni.types import ImageEncoder, Run, Span, Transcript, call
from runtime.items import picture_note

MAX_SECONDS = 24 * 3600.0
"""Of one recording or clip."""
MAX_TEXT = 10_000_000
"""Bytes of one text file."""
_SCENES = 240
"""Frames at most that are looked at in one clip."""


@dataclass
class Perceived:
    """What is known of one medium. ``scenes`` have their times, ``text`` is that of a text."""

    medium: Medium
    kind: Kind
    transcript: Transcript | None = None
    scenes: list[Span] = field(default_factory=list)
    text: str | None = None
    seconds: float | None = None

    def lines(self) -> list[tuple[float, float, str]]:
        """(begin, end, words) of all that is heard and seen, in order; without a clock at 0."""
        if self.text is not None:
            return [(0.0, 0.0, self.text)]
        if self.kind == "image":
            return [(0.0, 0.0, picture_note(span.text or "")) for span in self.scenes]
        found = [(*(span.times or (0.0, 0.0)), f"one sees {span.text}") for span in self.scenes]
        if self.transcript is not None:
            for part in self.transcript.segments:
                who = f"speaker {part.speaker}" if part.speaker else "somebody"
                found.append((part.start, part.end, f'{who} says: "{part.text}"'))
        return sorted(found)

    def described(self) -> dict[str, Any]:
        """As it stands in a result."""
        medium = self.medium
        out: dict[str, Any] = {"kind": self.kind, "path": str(medium.path) if medium.path else None}
        if self.seconds is not None:
            out["seconds"] = round(self.seconds, 2)
        if self.transcript is not None:
            out["transcript"] = _transcript(self.transcript)
        if self.kind in ("image", "video"):
            out["seen"] = [
                {
                    "text": span.text,
                    **(
                        {"start": round(span.times[0], 2), "end": round(span.times[1], 2)}
                        if span.times and self.kind == "video"
                        else {}
                    ),
                }
                for span in self.scenes
            ]
        return out


def _transcript(heard: Transcript) -> dict[str, Any]:
    out: dict[str, Any] = {
        "text": heard.text,
        "language": heard.language,
        "confidence": round(heard.confidence, 3),
        "segments": [
            {
                "start": round(part.start, 2),
                "end": round(part.end, 2),
                "text": part.text,
                "confidence": round(part.confidence, 3),
                **({"speaker": part.speaker} if part.speaker else {}),
            }
            for part in heard.segments
        ],
    }
    if heard.words:
        out["words"] = [
            {
                "word": word.text,
                "start": round(word.start, 2),
                "end": round(word.end, 2),
                "probability": round(word.probability, 3),
                **({"speaker": word.speaker} if word.speaker else {}),
            }
            for word in heard.words
        ]
    return out


def kind_of(medium: Medium) -> Kind:
    """What a medium is, by its content; `MediaError` when it is nothing that can be used."""
    if medium.kind is not None or medium.path is None:
        return medium.kind or "text"
    texts = medium.path.suffix.lower() in (".txt", ".md")
    return "text" if texts and _is_text(_head(medium.path)) else kind_of_file(medium.path)


def kind_of_file(source: Source) -> Kind:
    """``audio``, ``video`` or ``image``, by content, whatever its name says."""
    name, head = source_name(source), _head(source)
    if not head:
        raise MediaError(f"{name} is empty (0 bytes); send a complete file")
    for mark, what in _FOREIGN.items():
        if head.startswith(mark):
            raise MediaError(f"{name} is {what}; send the recordings, clips or pictures themselves")
    if _is_picture(source):
        return "image"
    if _is_text(head):
        raise MediaError(f"{name} is a text, whatever its name says; name it .txt, or send media")
    with open_container(source, "recording, clip or picture") as container:
        if moving_track(container) is not None:
            return "video"
        if container.streams.audio:
            return "audio"
    raise MediaError(f"{name} has neither sound nor pictures; send a recording, clip or picture")


def has_sound(source: Source, kind: Kind) -> bool:
    """Whether there is sound to transcribe."""
    if kind != "video":
        return kind == "audio"
    with open_container(source, "video") as container:
        return bool(container.streams.audio)


_FOREIGN = {
    b"PK\x03\x04": "an archive or office document (ZIP), perhaps encrypted",
    b"%PDF": "a PDF document",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x1f\x8b": "a gzip archive",
    b"\xd0\xcf\x11\xe0": "an office document",
    b"Salted__": "encrypted (OpenSSL)",
    b"-----BEGIN PGP": "encrypted (PGP)",
    b"age-encryption": "encrypted (age)",
}
"""Files that are often among media, by how they begin."""


def _head(source: Source) -> bytes:
    """The first bytes; `MediaError` when there is no such file."""
    if isinstance(source, bytes):
        return source[:4096]
    try:
        if isinstance(source, str | os.PathLike):
            with Path(source).open("rb") as file:
                return file.read(4096)
    except OSError as error:
        raise MediaError(
            f"cannot open {source_name(source)}: {error.strerror or error}; "
            "give the path of a readable file",
            code="not_found",
        ) from None
    head = source.read(4096)
    source.seek(0)
    return head


def _is_text(head: bytes) -> bool:
    try:
        # The last character may be cut.
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return not any(byte < 9 for byte in head)


def _is_picture(source: Source) -> bool:
    Image.init()
    # Of what Pillow calls pictures, FFmpeg plays MPEG, and EPS would run a program.
    formats = [name for name in Image.ID if name not in ("MPEG", "EPS")]
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(file, formats=formats) as image:
            return not (image.format == "GIF" and getattr(image, "is_animated", False))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return True  # which `load_image` refuses, with the limit
    except Exception:  # Pillow's parsers raise nearly anything on broken data
        return False
    finally:
        if not isinstance(file, str | os.PathLike):
            file.seek(0)


def read_text(medium: Medium) -> str:
    """The words of a text medium. `MediaError` for a file that holds none."""
    if medium.path is None:
        return medium.text or ""
    try:
        if medium.path.stat().st_size > MAX_TEXT:
            raise MediaError(
                f"{medium.name!r} has more than {MAX_TEXT} bytes; split it", code="too_large"
            )
        text = medium.path.read_text("utf-8")
    except OSError as error:
        raise MediaError(
            f"cannot open {medium.name!r}: {error.strerror or error}; "
            "give the path of a readable file",
            code="not_found",
        ) from None
    except UnicodeDecodeError:
        raise MediaError(f"{medium.name!r} is no text in UTF-8; convert it") from None
    if not text.strip() or "\0" in text:
        raise MediaError(f"{medium.name!r} holds no text; send a file with words")
    return text.strip()


def look(source: Source, kind: Kind, sight: ImageEncoder, *, run: Run = call) -> list[Span]:
    """What a picture or clip shows; memory holds a few frames of a clip, whatever its length."""
    if kind == "image":
        frame = load_image(source)
        return run(lambda: sight.encode([frame]))
    spans: list[Span] = []
    end = 0.0
    for frames, seconds in frames_of(source, most=_SCENES, max_seconds=MAX_SECONDS):
        spans += run(lambda frames=frames: sight.encode(frames))  # type: ignore[misc]
        end = seconds
    return merged(spans, end)


_CLOCK = re.compile(r"\b(?:(\d{1,2}):)?(\d{1,3}):(\d{2})\b")
_UNITS = {"hour": 3600.0, "minute": 60.0, "min": 60.0, "second": 1.0, "sec": 1.0, "s": 1.0}
_SPAN = re.compile(
    r"\b(?:(\d+(?:\.\d+)?)\s*(?:st|nd|rd|th)?\s*(hours?|minutes?|mins?|seconds?|secs?|s)"
    r"|(hour|minute|second)\s+(\d+(?:\.\d+)?))\b",
    re.I,
)
_AT = re.compile(r"\b(?:at|around|about|after|near|in the)\b", re.I)


def moments(question: str) -> list[float]:
    """The moments that a question is about, in seconds: "at 0:40", "after 90 seconds"."""
    found = [
        int(hours or 0) * 3600.0 + int(minutes) * 60.0 + int(seconds)
        for hours, minutes, seconds in _CLOCK.findall(question)
    ]
    if not found and _AT.search(question):
        total = 0.0
        for count, unit, word, number in _SPAN.findall(question):
            name = (unit or word).lower()
            total += float(count or number) * _UNITS[name if name in _UNITS else name.rstrip("s")]
        if total:
            found.append(total)
    return found


def near(
    lines: list[tuple[float, float, str]], at: list[float], within: float = 8.0
) -> list[tuple[float, float, str]]:
    """The lines that are true at these moments or up to ``within`` seconds from them."""
    return [line for line in lines if any(line[0] - within <= t <= line[1] + within for t in at)]


def by_time(lines: list[tuple[float, float, str]]) -> Iterator[str]:
    """Lines as the LLM reads them."""
    for begin, end, words in lines:
        yield f"[{_clock(begin)}-{_clock(end)}] {words}" if end > 0 else words


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
