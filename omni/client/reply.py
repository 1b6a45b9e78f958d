"""What :meth:`AsyncOmniClient.ask` gives back, and how it is put together from events."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omni.client.errors import OmniServerError
from omni.client.events import Event
from omni.client.media import WIRE_RATE, pcm16_to_float, save_wav
from omni.client.tools import FunctionCall
from omni.errors import MediaError
from omni.types import AudioChunk, ToolCall


@dataclass(frozen=True, slots=True)
class Piece:
    """More of an answer: ``text``, ``audio``, an ``image`` or a ``tool_call``, and never two.

    A call comes when its arguments are complete, and again with its output.
    """

    text: str = ""
    audio: AudioChunk | None = None
    image: bytes | None = None
    tool_call: FunctionCall | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The assistant's answer to one question, with all that it said before and after tools.

    ``text`` holds the answer's words, spoken or written. ``audio`` is float32 mono at 24 kHz, None
    when nothing was spoken. ``images`` are picture files. ``tool_calls`` are in their order, with
    their outputs. ``transcript`` is what was heard of the question's audio, None when there was
    none. ``timings`` are milliseconds from the question, or from the last tool's output, to each
    stage, as the server stamped them; ``usage`` counts the tokens of all of it. ``status`` is
    ``completed``, ``cancelled`` or ``incomplete``.
    """

    text: str
    audio: AudioChunk | None = None
    images: tuple[bytes, ...] = ()
    tool_calls: tuple[FunctionCall, ...] = ()
    transcript: str | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    usage: Mapping[str, Any] = field(default_factory=dict)
    status: str = "completed"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the spoken answer as a WAV file; MediaError when nothing was spoken."""
        if self.audio is None:
            raise MediaError(
                "this reply has no sound; ask with output_modalities ['audio']", param="audio"
            )
        save_wav(path, self.audio)


class ReplyBuilder:
    """Collects the events of an answer, of one response after the other while tools are called.

    ``tag`` is the metadata by which its responses are known, on servers that give it back.
    """

    def __init__(self, item_id: str, tag: Mapping[str, str]) -> None:
        self.item_id = item_id
        self.response_id: str | None = None
        self.done: Mapping[str, Any] | None = None
        """The response as ``response.done`` has it; of the round that runs now."""
        self.calls: list[ToolCall] = []
        """Calls of the round that runs now."""
        self.transcript: str | None = None
        self.heard = False
        """Whether the transcript is complete, or will never be."""
        self._tag = tag
        self._round = 0
        self._words: dict[tuple[int, int, int], list[str]] = {}
        self._pcm: list[bytes] = []
        self._images: list[bytes] = []
        self._called: dict[str, FunctionCall] = {}
        self._usage: Mapping[str, Any] = {}

    def add(self, event: Event) -> Piece | None:
        """Take one event; those of other responses and items are passed over."""
        data = event.data
        if event.type.startswith("conversation.item.input_audio_transcription."):
            if data.get("item_id") == self.item_id:
                self._add_transcription(event)
        elif event.type == "response.created":
            response = data["response"]
            metadata = response.get("metadata", self._tag) or {}
            if self.response_id is None and self._tag.items() <= metadata.items():
                self.response_id = response["id"]
        elif event.type == "response.done":
            if self.response_id and data["response"].get("id") == self.response_id:
                self.done = data["response"]
                self._usage = _sum(self._usage, self.done.get("usage") or {})
        elif self.response_id and data.get("response_id") == self.response_id:
            return self._add_output(event)
        return None

    def _add_output(self, event: Event) -> Piece | None:
        if (words := event.words) is not None:
            part = (event.data.get("output_index", 0), event.data.get("content_index", 0))
            self._words.setdefault((self._round, *part), []).append(words)
            return Piece(text=words)
        if event.type == "response.output_audio.delta":
            self._pcm.append(base64.b64decode(event.data["delta"]))
            return Piece(audio=event.audio_chunk())
        if (call := event.tool_call) is not None:
            self.calls.append(call)
            self._called[call.id] = FunctionCall.of(call)
            return Piece(tool_call=self._called[call.id])
        if event.type == "response.output_item.done":
            item = event.data["item"]
            if item.get("type") == "image_generation_call" and item.get("result"):
                self._images.append(base64.b64decode(item["result"]))
                return Piece(image=self._images[-1])
        return None

    def _add_transcription(self, event: Event) -> None:
        if event.type.endswith(".completed"):
            self.transcript, self.heard = event.data["transcript"], True
        elif event.type.endswith(".failed"):
            self.heard = True

    def answer(self, call: ToolCall, output: str) -> Piece:
        """Note what a tool gave back."""
        self._called[call.id] = FunctionCall.of(call, output)
        return Piece(tool_call=self._called[call.id])

    def next_round(self) -> None:
        """What follows is another response, to the outputs of the tools."""
        self._round += 1
        self.response_id, self.done, self.calls = None, None, []

    def build(self) -> Reply:
        """Make the reply; raise OmniServerError when the response failed."""
        done = self.done or {}
        status = done.get("status") or "completed"
        if status == "failed":
            raise OmniServerError.from_wire((done.get("status_details") or {}).get("error"))
        pcm = b"".join(self._pcm)
        return Reply(
            text="\n".join("".join(words) for _, words in sorted(self._words.items())),
            audio=AudioChunk(pcm16_to_float(pcm), WIRE_RATE) if pcm else None,
            images=tuple(self._images),
            tool_calls=tuple(self._called.values()),
            transcript=self.transcript,
            timings=done.get("timings") or {},
            usage=self._usage,
            status=status,
        )


def _sum(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Add up counts that may be nested."""
    total = dict(one)
    for key, value in other.items():
        if isinstance(value, Mapping):
            total[key] = _sum(total.get(key) or {}, value)
        else:
            total[key] = (total.get(key) or 0) + (value or 0)
    return total
