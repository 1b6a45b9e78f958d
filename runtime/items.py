"""The items of a conversation: messages with their parts, and what of them was really heard."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from omni.errors import InputError
from omni.types import Message, Span
from runtime.wire import Event

Role = Literal["system", "user", "assistant"]
_WORD = re.compile(r"\S+\s*")


_ASIDE = re.compile(r" \([^)]*\)")


def picture_note(seen: str) -> str:
    """What the LLM reads of a picture, without how sure that is: small models repeat figures."""
    return f"[Your camera shows {_ASIDE.sub('', seen)}]"


@dataclass
class Part:
    """One content part. ``key`` names the work that is still to say what the medium holds."""

    kind: Literal["input_text", "input_audio", "input_image", "output_text", "output_audio"]
    text: str | None = None
    span: Span | None = None
    key: str | None = None

    @property
    def ready(self) -> bool:
        """Whether the LLM can read it."""
        return self.key is None

    def wire(self) -> Event:
        """As the protocol shows it; the media themselves are not sent back."""
        if self.kind in ("input_text", "output_text"):
            return {"type": self.kind, "text": self.text or ""}
        if self.kind == "input_image":
            return {"type": self.kind}
        return {"type": self.kind, "transcript": self.text}

    def read(self) -> str | Span | None:
        """As the LLM reads it."""
        if self.kind == "input_image":
            if self.span is None:
                return None
            note = picture_note(self.span.text) if self.span.text else None
            return Span("image", note, self.span.embeds, self.span.times)
        if self.kind == "input_audio":
            if self.span is not None and self.span.embeds is not None:
                return self.span
            return self.text
        return self.text


@dataclass
class SpokenClause:
    """A clause of an answer and where its sound ends, in samples of the answer's sound."""

    text: str
    end: int


@dataclass
class Item:
    """One message of the conversation."""

    id: str
    role: Role
    parts: list[Part] = field(default_factory=list)
    status: Literal["in_progress", "completed", "incomplete"] = "completed"
    spoken: list[SpokenClause] = field(default_factory=list)
    playing_since: float | None = None
    """When its first sound left, in seconds of the engine's clock."""
    cut: str | None = None
    """What was probably heard when the user spoke over it."""

    @property
    def ready(self) -> bool:
        """Whether the LLM can read all of it."""
        return all(part.ready for part in self.parts)

    @property
    def samples(self) -> int:
        """Length of the answer's sound."""
        return self.spoken[-1].end if self.spoken else 0

    def wire(self) -> Event:
        """As the protocol shows it."""
        return {
            "id": self.id,
            "object": "realtime.item",
            "type": "message",
            "role": self.role,
            "status": self.status,
            "content": [part.wire() for part in self.parts],
        }

    def message(self) -> Message | None:
        """As the LLM reads it; None when there is nothing to read."""
        if self.cut is not None:
            return Message(self.role, (self.cut,)) if self.cut else None
        read = [part.read() for part in self.parts]
        # What was shown comes before what was said about it.
        shown = [r for r in read if isinstance(r, Span) and r.modality == "image"]
        said = [r for r in read if r and not (isinstance(r, Span) and r.modality == "image")]
        parts = tuple([*shown, *said])
        return Message(self.role, parts) if parts else None

    def heard_until(self, samples: int) -> str:
        """The words of the answer whose sound lies before ``samples``.

        Within a clause the words are taken to be spoken evenly by their letters.
        """
        words: list[str] = []
        begin = 0
        for clause in self.spoken:
            if clause.end <= samples:
                words.append(clause.text)
            else:
                words.append(_share(clause.text, (samples - begin) / (clause.end - begin)))
                break
            begin = clause.end
        return " ".join(w.strip() for w in words if w.strip())


def _share(text: str, share: float) -> str:
    budget = share * len(text)
    heard = ""
    # Chinese and Japanese have no spaces: there a letter is a unit, elsewhere a word is.
    pieces = _WORD.findall(text) if " " in text.strip() else list(text)
    for piece in pieces:
        if len(heard) + len(piece.rstrip()) > budget:
            break
        heard += piece
    return heard


_CONTENT: dict[str, tuple[str, ...]] = {
    "user": ("input_text", "input_audio", "input_image"),
    "assistant": ("output_text", "output_audio"),
    "system": ("input_text",),
}


def check_item(data: Any, path: str = "item") -> None:
    """Check an item from the client; raises `InputError` that names the field at fault."""
    if not isinstance(data, dict):
        raise InputError(f"{path} must be an object", param=path)
    if data.get("type", "message") != "message":
        raise InputError(
            f"{path}.type must be 'message', not {data.get('type')!r}: tools are not available in "
            "this version",
            param=f"{path}.type",
            code="unsupported",
        )
    role = data.get("role")
    if not isinstance(role, str) or role not in _CONTENT:
        raise InputError(
            f"{path}.role must be one of {', '.join(_CONTENT)}, not {role!r}", param=f"{path}.role"
        )
    for key in data.keys() - {"id", "type", "role", "content", "status", "object"}:
        raise InputError(
            f"unknown field '{path}.{key}'", param=f"{path}.{key}", code="unknown_field"
        )
    if data.get("id") is not None and (
        not isinstance(data["id"], str) or not 1 <= len(data["id"]) <= 64
    ):
        raise InputError(f"{path}.id must be 1 to 64 characters", param=f"{path}.id")
    content = data.get("content")
    if not isinstance(content, list) or not content:
        raise InputError(
            f"{path}.content must be a list of at least one part", param=f"{path}.content"
        )
    for index, part in enumerate(content):
        _check_part(part, role, f"{path}.content.{index}")


def _check_part(part: Any, role: str, path: str) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in _CONTENT[role]:
        raise InputError(
            f"{path}.type must be one of {', '.join(_CONTENT[role])} in a message of the {role}, "
            f"not {kind!r}",
            param=f"{path}.type",
        )
    needed = {"input_audio": "audio", "input_image": "image_url", "output_audio": "transcript"}
    field_name = needed.get(kind, "text")
    allowed = {"type", field_name}
    if kind == "input_audio":
        allowed |= {"transcript"}
    if kind == "input_image":
        allowed |= {"detail"}
    if kind == "output_audio":
        allowed |= {"audio"}
    for key in part.keys() - allowed:
        raise InputError(
            f"unknown field '{path}.{key}' in a part of type {kind}",
            param=f"{path}.{key}",
            code="unknown_field",
        )
    if not isinstance(part.get(field_name), str):
        raise InputError(f"{path}.{field_name} must be a string", param=f"{path}.{field_name}")
