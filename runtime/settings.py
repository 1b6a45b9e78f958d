"""The settings of one session: what ``session.update`` may change, merged and checked."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from omni.errors import InputError
from omni.prompts import INSTRUCTIONS
from omni.types import Sampling, Tool, ToolUse
from omni.weights import DEFAULT_MODEL
from runtime.checks import check_response, check_session, known_voice
from runtime.formats import WireFormat
from runtime.turns import TurnDetection

log = logging.getLogger(__name__)
_BASE = TurnDetection()

MAX_OUTPUT_TOKENS = 1024


@dataclass(frozen=True)
class Defaults:
    """What a session starts with; ``omni serve`` sets it."""

    model: str = DEFAULT_MODEL
    transcriber: str = "whisper-base"
    voice: str = "auto"
    voices: tuple[str, ...] = ()
    languages: frozenset[str] = frozenset()
    """Those that are heard, ISO 639-1; empty: any."""
    instructions: str = INSTRUCTIONS
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.2, top_p=0.9))


class Settings:
    """The effective settings of a session; ``wire`` is what the client is shown."""

    def __init__(self, session_id: str, defaults: Defaults) -> None:
        self.defaults = defaults
        self.wire: dict[str, Any] = {
            "type": "realtime",
            "object": "realtime.session",
            "id": session_id,
            "audio": {"input": {"turn_detection": {"type": "semantic_vad"}}, "output": {}},
        }
        transcription = {"model": defaults.transcriber}
        self.wire["audio"]["input"] |= {"transcription": transcription, "noise_reduction": None}
        self.wire |= {"include": None, "tracing": None}
        _complete(self.wire, defaults)

    def update(self, change: Mapping[str, Any], *, voice_fixed: bool = False) -> None:
        """Merge ``change`` in: objects deeply, null clears. On `InputError` nothing has changed.

        With ``voice_fixed`` the voice cannot be changed any more.
        """
        merged = _merge(self.wire, change)
        for key in ("id", "object"):
            if merged[key] != self.wire[key]:
                raise InputError(f"session.{key} cannot be changed", param=f"session.{key}")
        check_session(merged, change, self.defaults)
        _complete(merged, self.defaults)
        voice = merged["audio"]["output"]["voice"]
        if voice_fixed and voice != self.wire["audio"]["output"]["voice"]:
            raise InputError(
                "the voice cannot change after the first audio of the session; open a new session",
                param="session.audio.output.voice",
                code="cannot_update_voice",
            )
        self.wire = merged

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take over the settings of an earlier session, as far as this server can follow them."""
        change = {key: saved[key] for key in saved.keys() - {"id", "object", "model"}}
        try:
            self.update(change)
        except InputError as error:
            log.warning("the saved settings are not taken over: %s", error)

    @property
    def turn_detection(self) -> TurnDetection | None:
        """None: the client commits turns itself (push to talk)."""
        wire = self.wire["audio"]["input"]["turn_detection"]
        if wire is None:
            return None
        return TurnDetection(
            kind=wire["type"],
            threshold=wire.get("threshold", _BASE.threshold),
            prefix_padding=wire.get("prefix_padding_ms", 1000 * _BASE.prefix_padding) / 1000,
            silence=wire.get("silence_duration_ms", 1000 * _BASE.silence) / 1000,
            eagerness=wire.get("eagerness", "auto"),
            create_response=wire["create_response"],
            interrupt_response=wire["interrupt_response"],
            idle_timeout=None if (idle := wire.get("idle_timeout_ms")) is None else idle / 1000,
        )

    @property
    def input_format(self) -> WireFormat:
        """Of the sound that the client sends."""
        return WireFormat.of(self.wire["audio"]["input"]["format"])

    @property
    def noise_reduction(self) -> Literal["near_field", "far_field"] | None:
        """How far the user's microphone is; None: the sound is left as it is."""
        kind: Literal["near_field", "far_field"] | None
        kind = (self.wire["audio"]["input"].get("noise_reduction") or {}).get("type")
        return kind

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The functions that the model may call."""
        return _tools(self.wire["tools"])

    @property
    def language(self) -> str | None:
        """The language that the client expects to hear, ISO 639-1."""
        transcription = self.wire["audio"]["input"]["transcription"] or {}
        language: str | None = transcription.get("language")
        return language

    @property
    def transcribes(self) -> bool:
        """Whether the client wants transcripts of the user's side."""
        return self.wire["audio"]["input"]["transcription"] is not None

    @property
    def tells_partial_transcripts(self) -> bool:
        """Whether the client wants to know what the user says while they speak."""
        transcription = self.wire["audio"]["input"]["transcription"] or {}
        return bool(transcription.get("partial"))

    def response(self, change: Mapping[str, Any]) -> ResponseSettings:
        """The settings of one response: the session's, with those of ``response.create``."""
        check_response(change, self.wire, self.defaults)
        output = self.wire["audio"]["output"]
        own_output = ((change.get("audio") or {}).get("output")) or {}
        keep_ratio, context_limit = self.truncation
        tokens = _or(change.get("max_output_tokens"), self.wire["max_output_tokens"])
        return ResponseSettings(
            instructions=_or(change.get("instructions"), self.wire["instructions"]) or "",
            modalities=tuple(_or(change.get("output_modalities"), self.wire["output_modalities"])),
            voice=known_voice(
                _or(own_output.get("voice"), output["voice"]), self.defaults, "response.audio.voice"
            ),
            speed=_or(output["speed"], 1.0),
            sampling=Sampling(
                temperature=_or(change.get("temperature"), self.wire["temperature"]),
                top_p=_or(change.get("top_p"), self.wire["top_p"]),
                seed=_or(change.get("seed"), self.wire["seed"]),
                max_tokens=MAX_OUTPUT_TOKENS if tokens in ("inf", None) else tokens,
            ),
            metadata=change.get("metadata"),
            in_conversation=change.get("conversation", "auto") != "none",
            max_output_tokens="inf" if tokens is None else tokens,
            output_format=WireFormat.of(_or(own_output.get("format"), output["format"])),
            tools=self._tool_use(change),
            keep_ratio=keep_ratio,
            context_limit=context_limit,
        )

    def _tool_use(self, change: Mapping[str, Any]) -> ToolUse:
        tools = _tools(_or(change.get("tools"), self.wire["tools"]))
        choice = _or(change.get("tool_choice"), self.wire["tool_choice"])
        parallel = _or(change.get("parallel_tool_calls"), self.wire["parallel_tool_calls"])
        if isinstance(choice, dict):
            return ToolUse(tools, "required", choice["name"], parallel=False)
        return ToolUse(tools, choice, None, parallel)

    @property
    def truncation(self) -> tuple[float | None, int | None]:
        """What share of the context a too long conversation is cut to, and its own limit."""
        wire = self.wire["truncation"]
        if isinstance(wire, str):
            return (1.0 if wire == "auto" else None), None
        limit = (wire.get("token_limits") or {}).get("post_instructions")
        return wire["retention_ratio"], limit


@dataclass(frozen=True)
class ResponseSettings:
    """How one answer is made."""

    instructions: str
    modalities: tuple[str, ...]
    voice: str | None
    speed: float
    sampling: Sampling
    metadata: dict[str, str] | None
    in_conversation: bool
    max_output_tokens: int | str
    output_format: WireFormat
    tools: ToolUse
    keep_ratio: float | None
    context_limit: int | None

    @property
    def speak(self) -> bool:
        """Whether the answer is spoken."""
        return "audio" in self.modalities


def _complete(wire: dict[str, Any], defaults: Defaults) -> None:
    """Put in what is in effect where nothing was asked for: clients read it from the session."""
    blank = {
        "model": defaults.model,
        "output_modalities": ["audio"],
        "instructions": defaults.instructions,
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": False,  # a small model does not know when to stop
        "max_output_tokens": "inf",
        "truncation": "auto",
        "temperature": defaults.sampling.temperature,
        "top_p": defaults.sampling.top_p,
        "seed": defaults.sampling.seed,
    }
    _fill(wire, blank)
    wire["model"] = defaults.model
    given, made = wire["audio"]["input"], wire["audio"]["output"]
    for side in (given, made):
        side["format"] = WireFormat.of(side.get("format")).wire
    _fill(made, {"voice": defaults.voice, "speed": 1.0})
    if given.get("transcription") is not None:
        given["transcription"]["model"] = defaults.transcriber
    detection = given.get("turn_detection")
    if detection is not None:
        _fill(detection, _DETECTION[detection["type"]])
        _fill(detection, {"create_response": True, "interrupt_response": True})


_DETECTION: dict[str, dict[str, Any]] = {
    "semantic_vad": {"eagerness": "auto"},
    "server_vad": {
        "threshold": _BASE.threshold,
        "prefix_padding_ms": round(1000 * _BASE.prefix_padding),
        "silence_duration_ms": round(1000 * _BASE.silence),
        "idle_timeout_ms": None,
    },
}


def _fill(wire: dict[str, Any], blank: Mapping[str, Any]) -> None:
    wire.update({key: value for key, value in blank.items() if wire.get(key) is None})


def _tools(wire: list[dict[str, Any]]) -> tuple[Tool, ...]:
    return tuple(
        Tool(tool["name"], tool.get("description") or "", tool.get("parameters") or {})
        for tool in wire
    )


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(copy.deepcopy(base))
    for key, value in change.items():
        old = merged.get(key)
        # A detection of another kind shares no options with the old one.
        same_kind = isinstance(value, Mapping) and (
            "type" not in value or not isinstance(old, Mapping) or old.get("type") == value["type"]
        )
        if isinstance(value, Mapping) and isinstance(old, Mapping) and same_kind:
            merged[key] = _merge(old, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged
