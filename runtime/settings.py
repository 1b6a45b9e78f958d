"""The settings of one session: what ``session.update`` may change, merged and checked."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from openai.types import realtime as rt
from openai.types.realtime.realtime_audio_input_turn_detection import SemanticVad, ServerVad
from pydantic import BaseModel

from omni.errors import InputError
from omni.types import Sampling
from omni.weights import DEFAULT_MODEL
from runtime.turns import TurnDetection
from runtime.wire import WIRE_RATE, check

INSTRUCTIONS = (
    "You are Omni, a friendly voice assistant. Answer in one or two short spoken sentences, in the "
    "same language as the user."
)
"""Short on purpose: every word more cost the small default model right answers."""

MAX_OUTPUT_TOKENS = 1024
TEMPERATURE = (0.0, 2.0)
SPEED = (0.25, 1.5)
_OWN_FIELDS = {"temperature", "top_p", "seed"}
"""Sampling options that the protocol lost on its way to GA and that local models need."""


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
            "model": defaults.model,
            "output_modalities": ["audio"],
            "instructions": defaults.instructions,
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": WIRE_RATE},
                    "transcription": {"model": defaults.transcriber},
                    "noise_reduction": None,
                    "turn_detection": {
                        "type": "semantic_vad",
                        "eagerness": "auto",
                        "create_response": True,
                        "interrupt_response": True,
                    },
                },
                "output": {
                    "format": {"type": "audio/pcm", "rate": WIRE_RATE},
                    "voice": defaults.voice,
                    "speed": 1.0,
                },
            },
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "truncation": "auto",
            "temperature": defaults.sampling.temperature,
            "top_p": defaults.sampling.top_p,
            "seed": defaults.sampling.seed,
        }

    def update(self, change: Mapping[str, Any], *, voice_fixed: bool = False) -> None:
        """Merge ``change`` in: objects deeply, null clears. On `InputError` nothing has changed.

        With ``voice_fixed`` the voice cannot be changed any more.
        """
        merged = _merge(self.wire, change)
        for key in ("id", "object"):
            if merged[key] != self.wire[key]:
                raise InputError(f"session.{key} cannot be changed", param=f"session.{key}")
        _check_session(merged, change, self.defaults)
        voice = merged["audio"]["output"].get("voice")
        if voice_fixed and voice != self.wire["audio"]["output"].get("voice"):
            raise InputError(
                "the voice cannot change after the first audio of the session; open a new session",
                param="session.audio.output.voice",
                code="cannot_update_voice",
            )
        self.wire = merged

    @property
    def turn_detection(self) -> TurnDetection | None:
        """None: the client commits turns itself (push to talk)."""
        wire = self.wire["audio"]["input"]["turn_detection"]
        if wire is None:
            return None
        base = TurnDetection(kind=wire["type"])
        return TurnDetection(
            kind=wire["type"],
            threshold=_or(wire.get("threshold"), base.threshold),
            prefix_padding=_or(wire.get("prefix_padding_ms"), base.prefix_padding * 1000) / 1000,
            silence=_or(wire.get("silence_duration_ms"), base.silence * 1000) / 1000,
            eagerness=_or(wire.get("eagerness"), "auto"),
            create_response=_or(wire.get("create_response"), True),
            interrupt_response=_or(wire.get("interrupt_response"), True),
        )

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

    def response(self, change: Mapping[str, Any]) -> ResponseSettings:
        """The settings of one response: the session's, with those of ``response.create``."""
        _check_response(change, self.defaults)
        output = self.wire["audio"]["output"]
        own_output = ((change.get("audio") or {}).get("output")) or {}
        tokens = _or(change.get("max_output_tokens"), self.wire["max_output_tokens"])
        return ResponseSettings(
            instructions=_or(change.get("instructions"), self.wire["instructions"]) or "",
            modalities=tuple(_or(change.get("output_modalities"), self.wire["output_modalities"])),
            voice=_voice(_or(own_output.get("voice"), output["voice"])),
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
        )


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

    @property
    def speak(self) -> bool:
        """Whether the answer is spoken."""
        return "audio" in self.modalities


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _voice(value: Any) -> str | None:
    name = value["id"] if isinstance(value, dict) else value
    return None if name == "auto" or name in OPENAI_VOICES else name


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


def _bounded(value: Any, bounds: tuple[float, float], param: str) -> None:
    low, high = bounds
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InputError(
            f"{param} must be between {low:g} and {high:g}, not {value!r}", param=param
        )


def _check_session(merged: dict[str, Any], change: Mapping[str, Any], defaults: Defaults) -> None:
    if merged.get("type") != "realtime":
        raise InputError(
            f"session.type must be 'realtime', not {merged.get('type')!r}", param="session.type"
        )
    if change.get("model") not in (None, defaults.model):
        raise InputError(
            f"this server runs {defaults.model!r}; start it with --model to change it",
            param="session.model",
        )
    merged["model"] = defaults.model
    standard = {
        k: v for k, v in merged.items() if k not in _OWN_FIELDS | {"object", "id", "expires_at"}
    }
    audio = merged.get("audio")
    if not isinstance(audio, dict) or not all(
        isinstance(audio.get(side), dict) for side in ("input", "output")
    ):
        raise InputError(
            "session.audio needs its 'input' and 'output' objects", param="session.audio"
        )
    for side in ("input", "output"):
        _check_format(audio[side].get("format"), f"session.audio.{side}.format")
        audio[side]["format"] = {"type": "audio/pcm", "rate": WIRE_RATE}
    detection = audio["input"].pop("turn_detection", None)
    try:
        check(rt.RealtimeSessionCreateRequest, standard, "session")
    finally:
        audio["input"]["turn_detection"] = detection
    _check_detection(detection)
    if audio["input"].get("noise_reduction") is not None:
        raise InputError(
            "input noise reduction is not available in this version; send null",
            param="session.audio.input.noise_reduction",
            code="unsupported",
        )
    if merged.get("tools"):
        raise InputError(
            "tools are not available in this version; send an empty list",
            param="session.tools",
            code="unsupported",
        )
    language = (audio["input"].get("transcription") or {}).get("language")
    if language and defaults.languages and language.split("-")[0] not in defaults.languages:
        raise InputError(
            f"the language {language!r} is not heard here; send an ISO 639-1 code such as 'en', or "
            "null to have it detected",
            param="session.audio.input.transcription.language",
        )
    _check_voice(audio["output"].get("voice"), defaults, "session.audio.output.voice")
    _bounded(audio["output"].get("speed"), SPEED, "session.audio.output.speed")
    _check_sampling(merged, "session")
    _check_modalities(merged.get("output_modalities"), "session.output_modalities")
    for key, value in (("output_modalities", ["audio"]), ("instructions", defaults.instructions)):
        if merged.get(key) is None:
            merged[key] = value
    for name in _OWN_FIELDS:
        if merged.get(name) is None:
            merged[name] = getattr(defaults.sampling, name)


def _check_response(change: Mapping[str, Any], defaults: Defaults) -> None:
    standard = {
        k: v for k, v in change.items() if k not in _OWN_FIELDS | {"input"} and v is not None
    }
    check(rt.RealtimeResponseCreateParams, standard, "response")
    if change.get("tools"):
        raise InputError(
            "tools are not available in this version", param="response.tools", code="unsupported"
        )
    if change.get("input") is not None and not isinstance(change["input"], list):
        raise InputError("response.input must be a list of items", param="response.input")
    if change.get("conversation") not in (None, "auto", "none"):
        raise InputError(
            "response.conversation must be 'auto' or 'none'", param="response.conversation"
        )
    output = ((change.get("audio") or {}).get("output")) or {}
    _check_format(output.get("format"), "response.audio.output.format")
    _check_voice(output.get("voice"), defaults, "response.audio.output.voice")
    _check_sampling(change, "response")
    _check_modalities(change.get("output_modalities"), "response.output_modalities")


def _check_modalities(value: Any, param: str) -> None:
    if value is not None and list(value) not in (["text"], ["audio"]):
        raise InputError(
            f"{param} must be ['audio'] (speech with its transcript) or ['text'], not {value!r}",
            param=param,
        )


def _check_sampling(options: Mapping[str, Any], path: str) -> None:
    _bounded(options.get("temperature"), TEMPERATURE, f"{path}.temperature")
    _bounded(options.get("top_p"), (0.0, 1.0), f"{path}.top_p")
    seed = options.get("seed")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise InputError(f"{path}.seed must be an integer, not {seed!r}", param=f"{path}.seed")
    tokens = options.get("max_output_tokens")
    if isinstance(tokens, int) and not 1 <= tokens <= 4096:
        raise InputError(
            f"{path}.max_output_tokens must be 1 to 4096 or 'inf', not {tokens}",
            param=f"{path}.max_output_tokens",
        )


def _check_detection(detection: Any) -> None:
    param = "session.audio.input.turn_detection"
    if detection is None:
        return
    kinds: dict[Any, type[BaseModel]] = {"server_vad": ServerVad, "semantic_vad": SemanticVad}
    kind = detection.get("type") if isinstance(detection, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise InputError(
            f"{param}.type must be 'server_vad', 'semantic_vad', or null instead of the object "
            f"(push to talk), not {kind!r}",
            param=f"{param}.type",
        )
    check(kinds[kind], detection, param)
    _bounded(detection.get("threshold"), (0.0, 1.0), f"{param}.threshold")
    _bounded(detection.get("prefix_padding_ms"), (0, 5_000), f"{param}.prefix_padding_ms")
    _bounded(detection.get("silence_duration_ms"), (50, 10_000), f"{param}.silence_duration_ms")
    if detection.get("idle_timeout_ms") is not None:
        raise InputError(
            "idle timeouts are not available in this version; leave the field out",
            param=f"{param}.idle_timeout_ms",
            code="unsupported",
        )


def _check_format(value: Any, param: str) -> None:
    if not isinstance(value, Mapping | None):
        raise InputError(
            f"{param} must be an object such as {{'type': 'audio/pcm', 'rate': {WIRE_RATE}}}",
            param=param,
        )
    kind = (value or {}).get("type", "audio/pcm")
    rate = (value or {}).get("rate", WIRE_RATE)
    if kind != "audio/pcm" or rate != WIRE_RATE:
        raise InputError(
            f"{param}: this version speaks audio/pcm at {WIRE_RATE} Hz (16-bit little-endian, "
            f"mono), not {kind} at {rate}; resample before sending",
            param=param,
            code="unsupported_format",
        )


def _check_voice(value: Any, defaults: Defaults, param: str) -> None:
    if value is None or not defaults.voices:
        return
    name = value.get("id") if isinstance(value, dict) else value
    known = ("auto", *defaults.voices)
    if name not in known and name not in OPENAI_VOICES:
        raise InputError(f"unknown voice {name!r}; known are: {', '.join(known)}", param=param)


OPENAI_VOICES = frozenset(
    ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
)
"""Stock clients ask for these; they get the default voice."""
