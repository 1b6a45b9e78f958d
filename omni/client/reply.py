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
from omni.errors import MediaError
from omni.types import AudioChunk


@dataclass(frozen=True, slots=True)
class Reply:
    """The assistant's answer to one question.

    ``text`` holds the answer's words, spoken or written. ``audio`` is float32 mono at 24 kHz, None
    when nothing was spoken. ``transcript`` is what was heard of the question's audio, None when
    there was none. ``timings`` are milliseconds from the question to each stage, as the server
    stamped them.
    ``status`` is ``completed``, ``cancelled`` or ``incomplete``.
    """

    text: str
    audio: AudioChunk | None = None
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
    """Collects the events of one response, and the transcript of the item that it answers."""

    def __init__(self, item_id: str) -> None:
        self.item_id = item_id
        self.response_id: str | None = None
        self.done: Mapping[str, Any] | None = None
        self.transcript: str | None = None
        self.heard = False
        """Whether the transcript is complete, or will never be."""
        self._words: dict[tuple[int, int], list[str]] = {}
        self._pcm: list[bytes] = []

    def add(self, event: Event) -> None:
        """Take one event; those of other responses and items are passed over."""
        data = event.data
        if event.type.startswith("conversation.item.input_audio_transcription."):
            if data.get("item_id") == self.item_id:
                self._add_transcription(event)
        elif event.type == "response.created":
            if self.response_id is None:
                self.response_id = data["response"]["id"]
        elif event.type == "response.done":
            if self.response_id and data["response"].get("id") == self.response_id:
                self.done = data["response"]
        elif self.response_id and data.get("response_id") == self.response_id:
            if event.type in (
                "response.output_text.delta",
                "response.output_audio_transcript.delta",
            ):
                part = (data.get("output_index", 0), data.get("content_index", 0))
                self._words.setdefault(part, []).append(data["delta"])
            elif event.type == "response.output_audio.delta":
                self._pcm.append(base64.b64decode(data["delta"]))

    def _add_transcription(self, event: Event) -> None:
        if event.type.endswith(".completed"):
            self.transcript, self.heard = event.data["transcript"], True
        elif event.type.endswith(".failed"):
            self.heard = True

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
            transcript=self.transcript,
            timings=done.get("timings") or {},
            usage=done.get("usage") or {},
            status=status,
        )
