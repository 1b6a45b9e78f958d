"""One answer in the making: what it was asked for, what came of it, and when."""

from __future__ import annotations

from typing import Any

import numpy as np

from omni import events as ev
from omni.types import AudioChunk, Timings, Usage
from runtime.formats import SpeechEncoder
from runtime.items import Item, SpokenClause
from runtime.settings import ResponseSettings
from runtime.wire import WIRE_RATE, Event

_STATUS = {"stop": "completed", "length": "incomplete"}


class Response:
    """An answer. ``context`` is what it reads instead of the conversation, if given.

    ``stamps`` are the times of the stages before it, in seconds of the engine's clock.
    """

    def __init__(
        self,
        response_id: str,
        settings: ResponseSettings,
        context: list[Item] | None,
        stamps: dict[str, float],
    ) -> None:
        self.id = response_id
        self.settings = settings
        self.context = context
        self.items: list[Item] = []
        """What came of it so far, in order; the last one may be in progress."""
        self.started = False
        self.muted = False
        """The client wants no more sound of it."""
        self.cancelled: str | None = None
        self.timings = Timings(dict(stamps))
        self.space = ""
        """White space that waits for words: alone it makes no message."""
        self.kept_at = 0.0
        """When its text was kept last."""
        self.encoder: SpeechEncoder | None = None
        """Of the message in progress."""
        self._sound: list[AudioChunk] = []
        self._status = "in_progress"
        self._details: Event | None = None
        self._usage: Event | None = None
        self._warnings: list[str] = []

    @property
    def item(self) -> Item | None:
        """The item in progress."""
        return self.items[-1] if self.items and self.items[-1].status == "in_progress" else None

    @property
    def where(self) -> Event:
        """The ids that every event of the last item carries."""
        index = len(self.items) - 1
        return {"response_id": self.id, "item_id": self.items[-1].id, "output_index": index}

    @property
    def text_kind(self) -> str:
        """Prefix of the events that carry its words."""
        spoken = self.settings.speak
        return "response.output_audio_transcript" if spoken else "response.output_text"

    def mark(self, stage: str, at: float) -> None:
        """Stamp a stage, once."""
        self.timings.mark(stage, at)

    def warn(self, message: str) -> None:
        """Note something that the user should know; it goes out with ``response.done``."""
        if message not in self._warnings:
            self._warnings.append(message)

    def hear(self, event: ev.AudioDelta) -> bytes:
        """Note which words the sound carries, and give it back in the client's format."""
        item = self.items[-1]
        if self.encoder is None:
            self.encoder = SpeechEncoder(self.settings.output_format)
        if item.playing_since is None:
            item.playing_since = event.at
        samples = item.samples + len(event.chunk.pcm)
        if event.first_of_clause or not item.spoken:
            item.spoken.append(SpokenClause(event.clause, samples))
        else:
            item.spoken[-1].end = samples
        self._sound.append(event.chunk)
        return self.encoder.encode(event.chunk)

    def end_sound(self) -> tuple[bytes, AudioChunk | None]:
        """The rest of the message's sound in the client's format, and all of it as one piece."""
        encoder, self.encoder = self.encoder, None
        sound, self._sound = self._sound, []
        if encoder is None:
            return b"", None
        pcm = np.concatenate([chunk.pcm for chunk in sound])
        return encoder.flush(), AudioChunk(pcm, sound[0].sample_rate)

    def finish(self, reason: str, done: ev.ResponseDone | None, error: str | None) -> None:
        """Set the final status from the engine's last word (None: it never started)."""
        self._status = _STATUS.get(reason, reason)
        if reason == "length":
            self._details = {"type": "incomplete", "reason": "max_output_tokens"}
        elif reason == "cancelled":
            self._details = {"type": "cancelled", "reason": self.cancelled or "client_cancelled"}
        elif reason == "failed":
            problem = {"type": "server_error", "code": "generation_failed", "message": error}
            self._details = {"type": "failed", "error": problem}
        else:
            self._details = {"type": "completed"}
        usage = done.usage if done is not None else Usage()
        media = usage.audio_tokens + usage.image_tokens
        self._usage = {
            "total_tokens": usage.input_tokens + usage.output_tokens,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "input_token_details": {
                "text_tokens": usage.input_tokens - media,
                "audio_tokens": usage.audio_tokens,
                "image_tokens": usage.image_tokens,
                "cached_tokens": usage.cached_tokens,
            },
            "output_token_details": {"text_tokens": usage.output_tokens, "audio_tokens": 0},
            "dropped_messages": usage.dropped_messages,
        }

    def wire(self, conversation_id: str) -> Event:
        """As the protocol shows it, with ``timings`` in milliseconds since the end of speech."""
        settings = self.settings
        wire: dict[str, Any] = {
            "id": self.id,
            "object": "realtime.response",
            "status": self._status,
            "status_details": self._details,
            "output": [item.wire() for item in self.items] if self._usage else [],
            "conversation_id": conversation_id if settings.in_conversation else None,
            "output_modalities": list(settings.modalities),
            "max_output_tokens": settings.max_output_tokens,
            "audio": {
                "output": {
                    "format": settings.output_format.wire,
                    "voice": settings.voice or "auto",
                }
            },
            "usage": self._usage,
            "metadata": settings.metadata,
        }
        if self._usage is not None:
            origin = "speech_end" if "speech_end" in self.timings.stamps else "request"
            wire["timings"] = self.timings.since(origin)
            wire["warnings"] = self._warnings
        return wire

    @property
    def seconds(self) -> float:
        """Length of all its sound."""
        return sum(item.samples for item in self.items) / WIRE_RATE
