"""The items of a conversation: messages, tool calls, their outputs, and what was really heard."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from reprlib import repr as short
from typing import Any, Literal

from omni.draw.wishes import Wish, described, wish
from omni.errors import InputError
from omni.search.asking import asked_to_find
from omni.types import Message, Span, ToolCall
from runtime.wire import Event, refuse_unknown

Role = Literal["system", "user", "assistant"]
Kind = Literal[
    "message", "function_call", "function_call_output", "image_generation_call", "mcp_call"
]
Status = Literal["in_progress", "completed", "incomplete"]
_WORD = re.compile(r"\S+\s*")
_ASIDE = re.compile(r" \([^)]*\)")


def picture_note(seen: str) -> str:
    """What the LLM reads of a picture, without how sure that is: small models repeat figures."""
    return f"[Your camera shows {_ASIDE.sub('', seen)}]"


def read_picture(seen: Span) -> Span | None:
    """As the LLM reads what an encoder gave of a picture; None when that is nothing."""
    if seen.text:
        return replace(seen, text=picture_note(seen.text))
    return seen if seen.wordless else None


@dataclass
class Part:
    """One content part.

    ``key`` names the work that is still to say what the medium holds, ``media`` the file in which
    the medium is kept. Of sound, ``text`` is the transcript.
    """

    kind: Literal["input_text", "input_audio", "input_image", "output_text", "output_audio"]
    text: str | None = None
    span: Span | None = None
    key: str | None = None
    media: str | None = None

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
            return None if self.span is None else read_picture(self.span)
        if self.kind == "input_audio" and self.span is not None:
            return self.span if self.span.text or self.span.embeds is not None else None
        return self.text

    @property
    def said(self) -> str | None:
        """The words of it that the user said or wrote."""
        if self.kind == "input_audio" and self.span is not None:
            return self.span.text
        return None if self.kind == "input_image" else self.text

    def record(self) -> Event:
        """As it is kept."""
        span = None
        if self.span is not None:
            span = {
                "modality": self.span.modality,
                "text": self.span.text,
                "times": self.span.times,
            }
        return {
            "kind": self.kind,
            "text": self.text,
            "span": span,
            "media": self.media,
            "ready": self.ready,
        }

    @classmethod
    def from_record(cls, record: Event) -> Part:
        """The inverse of `record`; what was not ready has to be heard or seen again."""
        span = record["span"]
        if span is not None:
            times = None if span["times"] is None else (span["times"][0], span["times"][1])
            span = Span(span["modality"], span["text"], times=times)
        return cls(record["kind"], record["text"], span, media=record["media"])


@dataclass
class SpokenClause:
    """A clause of an answer and where its sound ends, in samples of the answer's sound."""

    text: str
    end: int


@dataclass
class Item:
    """One item of the conversation.

    A message has ``parts``; a function call ``call_id``, ``name`` and ``arguments`` (JSON text);
    its output ``call_id`` and ``output``; a picture that was drawn has the words that it was drawn
    from as ``arguments`` and a PNG file in base64 as ``output``. A tool that the server ran itself
    is an ``mcp_call``, as OpenAI's protocol has it.
    """

    id: str
    role: Role
    parts: list[Part] = field(default_factory=list)
    status: Status = "completed"
    kind: Kind = "message"
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str = ""
    spoken: list[SpokenClause] = field(default_factory=list)
    playing_since: float | None = None
    """When its first sound left, in seconds of the engine's clock."""
    cut: str | None = None
    """What was probably heard when the user spoke over it."""
    stamps: dict[str, float] = field(default_factory=dict)
    """Of a spoken turn: when its stages were over, in seconds of the engine's clock."""

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
        head = {"id": self.id, "object": "realtime.item", "type": self.kind, "status": self.status}
        if self.kind == "function_call":
            call = {"call_id": self.call_id, "name": self.name, "arguments": self.arguments}
            return head | call
        if self.kind == "function_call_output":
            return head | {"call_id": self.call_id, "output": self.output}
        if self.kind == "image_generation_call":
            return head | {"revised_prompt": self.arguments, "result": self.output or None}
        if self.kind == "mcp_call":
            call = {"name": self.name, "arguments": self.arguments, "server_label": "omni"}
            return head | call | {"output": self.output or None}
        return head | {"role": self.role, "content": [part.wire() for part in self.parts]}

    def message(self) -> Message | None:
        """As the LLM reads it; None when there is nothing to read."""
        if self.kind == "function_call":
            if self.status != "completed":
                return None
            return Message("assistant", (), (ToolCall(self.call_id, self.name, self.arguments),))
        if self.kind == "function_call_output":
            return Message("tool", (self.output,), call_id=self.call_id)
        if self.kind in ("image_generation_call", "mcp_call"):
            return None  # the words beside it say what it shows
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

    def record(self) -> Event:
        """As it is kept: a JSON object."""
        return {
            "id": self.id,
            "type": self.kind,
            "role": self.role,
            "status": self.status,
            "parts": [part.record() for part in self.parts],
            "call_id": self.call_id,
            "name": self.name,
            "arguments": self.arguments,
            "output": self.output,
            "spoken": [[clause.text, clause.end] for clause in self.spoken],
            "cut": self.cut,
        }

    @classmethod
    def from_record(cls, record: Event) -> Item:
        """The inverse of `record`; what was in progress was cut off."""
        status: Status = "incomplete" if record["status"] == "in_progress" else record["status"]
        return cls(
            record["id"],
            record["role"],
            [Part.from_record(part) for part in record["parts"]],
            status,
            record["type"],
            record["call_id"],
            record["name"],
            record["arguments"],
            record["output"],
            [SpokenClause(text, end) for text, end in record["spoken"]],
            cut=record["cut"],
        )


def read_items(items: Sequence[Item]) -> list[Message]:
    """What the LLM reads of items; words and the calls after them are one message."""
    messages: list[Message] = []
    for item in items:
        message = item.message()
        if message is None:
            continue
        last = messages[-1] if messages else None
        if message.tool_calls and last is not None and last.role == "assistant":
            messages[-1] = Message("assistant", last.parts, (*last.tool_calls, *message.tool_calls))
        else:
            messages.append(message)
    return messages


def asked_picture(items: Sequence[Item]) -> Wish | None:
    """The picture that the last message asks for, if it does.

    What was drawn in the turn before it may be drawn anew: "make it blue".
    """
    said = _last_said(items)
    if said is None:
        return None
    before = None
    for item in reversed(items[:-1]):
        if item.kind == "image_generation_call":
            before = described(item.arguments)
        elif item.role == "assistant":
            continue
        break
    return wish(said, before)


def asked_thing(items: Sequence[Item]) -> str | None:
    """What the last message asks to find, if it does."""
    said = _last_said(items)
    return None if said is None else asked_to_find(said)


def _last_said(items: Sequence[Item]) -> str | None:
    if not items or items[-1].role != "user" or items[-1].kind != "message":
        return None
    return " ".join(part.said for part in items[-1].parts if part.said)


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
_FIELDS: dict[str, tuple[str, ...]] = {
    "message": ("role", "content"),
    "function_call": ("name", "arguments", "call_id"),
    "function_call_output": ("call_id", "output"),
}
_COMMON = ("id", "type", "status", "object")


def check_item(data: Any, path: str = "item") -> None:
    """Check an item from the client; raises `InputError` that names the field at fault."""
    if not isinstance(data, dict):
        raise InputError(f"{path} must be an object", param=path)
    kind = data.get("type", "message")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise InputError(
            f"{path}.type must be one of {', '.join(_FIELDS)}, not {short(kind)}",
            param=f"{path}.type",
            code="unsupported" if isinstance(kind, str) and "mcp" in kind else "invalid_value",
        )
    refuse_unknown(data, {*_COMMON, *_FIELDS[kind]}, path, f"an item of type {kind}")
    if data.get("id") is not None and (
        not isinstance(data["id"], str) or not 1 <= len(data["id"]) <= 64
    ):
        raise InputError(f"{path}.id must be 1 to 64 characters", param=f"{path}.id")
    if kind == "message":
        _check_message(data, path)
        return
    for key in _FIELDS[kind]:
        if kind == "function_call" and key == "call_id" and data.get(key) is None:
            continue
        if not isinstance(data.get(key), str):
            raise InputError(f"{path}.{key} must be a string", param=f"{path}.{key}")
    if kind == "function_call" and not _is_object(data["arguments"]):
        raise InputError(
            f"{path}.arguments must be the JSON text of an object, such as '{{}}'",
            param=f"{path}.arguments",
        )


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _check_message(data: dict[str, Any], path: str) -> None:
    role = data.get("role")
    if not isinstance(role, str) or role not in _CONTENT:
        raise InputError(
            f"{path}.role must be one of {', '.join(_CONTENT)}, not {short(role)}",
            param=f"{path}.role",
        )
    content = data.get("content")
    if not isinstance(content, list) or not content:
        raise InputError(
            f"{path}.content must be a list of at least one part", param=f"{path}.content"
        )
    for index, part in enumerate(content):
        _check_part(part, role, f"{path}.content.{index}")


def _check_part(part: Any, role: str, path: str) -> None:
    if not isinstance(part, dict):
        raise InputError(f"{path} must be an object", param=path)
    kind = part.get("type")
    if kind not in _CONTENT[role]:
        raise InputError(
            f"{path}.type must be one of {', '.join(_CONTENT[role])} in a message of the {role}, "
            f"not {short(kind)}",
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
    refuse_unknown(part, allowed, path, f"a part of type {kind}")
    if kind == "input_audio" and part.get("audio") is None:
        field_name = "transcript"  # history in words, from a client that no longer has the sound
    if not isinstance(part.get(field_name), str):
        raise InputError(f"{path}.{field_name} must be a string", param=f"{path}.{field_name}")
