"""Checks of what ``session.update`` and ``response.create`` may ask for.

Each raises `InputError` that names the field at fault, says what it may be, and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from reprlib import repr as short
from typing import TYPE_CHECKING, Any

from openai.types import realtime as rt
from openai.types.realtime.realtime_audio_input_turn_detection import SemanticVad, ServerVad
from openai.types.realtime.realtime_tracing_config import TracingConfiguration
from openai.types.responses import ToolChoiceFunction
from pydantic import BaseModel

from omni.errors import InputError
from runtime.formats import WireFormat
from runtime.wire import check

if TYPE_CHECKING:
    from runtime.settings import Defaults

TEMPERATURE = (0.0, 2.0)
SPEED = (0.25, 1.5)
MAX_TOOLS = 128
OWN_FIELDS = frozenset({"temperature", "top_p", "seed"})
"""Sampling options that the protocol lost on its way to GA and that local models need."""

OPENAI_VOICES = frozenset(
    ("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx")
) | {"sage", "shimmer", "verse"}
"""Stock clients ask for these; they get the default voice."""

_OPENAI_MODEL = re.compile(r"(gpt-|o\d|whisper-1$|tts-1)")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ELSEWHERE = {
    "prompt": "prompt templates live on OpenAI's platform; send 'instructions'",
    "include": "log probabilities of transcripts are not given; leave it out",
    "reasoning": "the models here do not reason apart from their answer; leave it out",
}


_APART = ("tools", "tool_choice", "truncation", "tracing")


def is_openai_model(name: object) -> bool:
    """Whether a stock client asks for one of OpenAI's models; it gets the server's own."""
    return isinstance(name, str) and _OPENAI_MODEL.match(name) is not None


def check_session(merged: dict[str, Any], change: Mapping[str, Any], defaults: Defaults) -> None:
    """Check ``merged``, the settings that ``change`` leads to."""
    if merged.get("type") != "realtime":
        raise InputError(
            f"session.type must be 'realtime', not {short(merged.get('type'))}",
            param="session.type",
        )
    model = change.get("model")
    if model not in (None, "omni", defaults.model) and not is_openai_model(model):
        raise InputError(
            f"this server runs {defaults.model!r}; start it with --model to change it",
            param="session.model",
        )
    audio = merged.get("audio")
    if not isinstance(audio, dict) or not all(
        isinstance(audio.get(side), dict) for side in ("input", "output")
    ):
        raise InputError(
            "session.audio needs its 'input' and 'output' objects", param="session.audio"
        )
    for side in ("input", "output"):
        WireFormat.of(audio[side].get("format"), f"session.audio.{side}.format")
    # Checked apart, because unions give errors about every member at once.
    apart = {key: merged.get(key) for key in _APART}
    standard = {
        key: value
        for key, value in merged.items()
        if key not in OWN_FIELDS | apart.keys() | {"object", "id", "expires_at"}
    }
    given = audio["input"]
    transcription = given.get("transcription")
    if isinstance(transcription, dict):
        transcription = {k: v for k, v in transcription.items() if k != "partial"}
    plain = given | {"transcription": transcription}
    plain.pop("turn_detection", None)
    standard["audio"] = audio | {"input": plain}
    check(rt.RealtimeSessionCreateRequest, standard, "session")
    detection = given.get("turn_detection")
    _check_detection(detection)
    _check_elsewhere(merged, "session")
    _check_tracing(merged.get("tracing"))
    _check_truncation(merged.get("truncation"))
    check_tools(merged, "session")
    _check_transcription(audio["input"].get("transcription"), defaults)
    known_voice(audio["output"].get("voice"), defaults, "session.audio.output.voice")
    _bounded(audio["output"].get("speed"), SPEED, "session.audio.output.speed")
    _check_sampling(merged, "session")
    _check_modalities(merged.get("output_modalities"), "session.output_modalities")


def check_response(
    change: Mapping[str, Any], session: Mapping[str, Any], defaults: Defaults
) -> None:
    """Check the ``response`` object of ``response.create``."""
    apart = {"input", "tools", "tool_choice"}
    standard = {
        key: value
        for key, value in change.items()
        if key not in OWN_FIELDS | apart and value is not None
    }
    check(rt.RealtimeResponseCreateParams, standard, "response")
    _check_elsewhere(change, "response")
    choice = {key: change.get(key) for key in ("tools", "tool_choice")}
    if choice["tools"] is None:
        choice["tools"] = session["tools"]
    check_tools(choice, "response")
    if change.get("input") is not None and not isinstance(change["input"], list):
        raise InputError("response.input must be a list of items", param="response.input")
    if change.get("conversation") not in (None, "auto", "none"):
        raise InputError(
            "response.conversation must be 'auto' or 'none'", param="response.conversation"
        )
    output = ((change.get("audio") or {}).get("output")) or {}
    WireFormat.of(output.get("format"), "response.audio.output.format")
    known_voice(output.get("voice"), defaults, "response.audio.output.voice")
    _check_sampling(change, "response")
    _check_modalities(change.get("output_modalities"), "response.output_modalities")


def check_tools(options: Mapping[str, Any], path: str) -> None:
    """Check ``tools`` and ``tool_choice``."""
    tools = options.get("tools")
    if tools is None:
        tools = []
    param = f"{path}.tools"
    if not isinstance(tools, list) or len(tools) > MAX_TOOLS:
        raise InputError(f"{param} must be a list of at most {MAX_TOOLS} tools", param=param)
    names: set[str] = set()
    for index, tool in enumerate(tools):
        _check_tool(tool, f"{param}.{index}")
        if tool["name"] in names:
            raise InputError(
                f"{param}.{index}.name: {short(tool['name'])} is there twice; names must differ",
                param=f"{param}.{index}.name",
            )
        names.add(tool["name"])
    _check_choice(options.get("tool_choice"), names, f"{path}.tool_choice")


def _check_tool(tool: Any, path: str) -> None:
    if not isinstance(tool, dict):
        raise InputError(f"{path} must be an object, not {short(tool)}", param=path)
    kind = tool.get("type", "function")
    if kind != "function":
        raise InputError(
            f"{path}.type must be 'function', not {short(kind)}; tools of MCP servers are "
            "called by the client",
            param=f"{path}.type",
            code="unsupported",
        )
    check(rt.RealtimeFunctionTool, {k: v for k, v in tool.items() if k != "strict"}, path)
    name = tool.get("name")
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        raise InputError(
            f"{path}.name must be 1 to 64 letters, digits, '_' or '-', not {short(name)}",
            param=f"{path}.name",
        )
    parameters = tool.get("parameters")
    if parameters is None:
        return
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise InputError(
            f"{path}.parameters must be a JSON schema of type 'object'", param=f"{path}.parameters"
        )
    from omni.llm.grammar import check_schema

    check_schema(parameters, f"{path}.parameters")


def _check_choice(choice: Any, names: set[str], param: str) -> None:
    if choice is None or choice in ("auto", "none"):
        return
    if choice == "required":
        if not names:
            raise InputError(f"{param} is 'required', but there are no tools", param=param)
        return
    name = choice.get("name") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or choice.get("type") != "function" or name is None:
        raise InputError(
            f"{param} must be 'auto', 'none', 'required' or "
            f"{{'type': 'function', 'name': …}}, not {short(choice)}",
            param=param,
        )
    check(ToolChoiceFunction, choice, param)
    if name not in names:
        raise InputError(
            f"{param}.name: there is no tool {short(name)}; there are: {', '.join(sorted(names))}",
            param=f"{param}.name",
        )


def _check_transcription(value: Any, defaults: Defaults) -> None:
    param = "session.audio.input.transcription"
    if value is None:
        return
    model = value.get("model")
    if model not in (None, "omni", defaults.transcriber) and not is_openai_model(model):
        raise InputError(
            f"{param}.model: this server hears with {defaults.transcriber!r}, not {short(model)}",
            param=f"{param}.model",
        )
    if value.get("partial") not in (None, True, False):
        raise InputError(
            f"{param}.partial must be true or false, not {short(value['partial'])}",
            param=f"{param}.partial",
        )
    for key in ("prompt", "delay", "keywords", "languages"):
        if value.get(key):
            raise InputError(
                f"{param}.{key} is not available here; leave it out",
                param=f"{param}.{key}",
                code="unsupported",
            )
    check_language(value.get("language"), defaults, f"{param}.language")


def _check_tracing(value: Any) -> None:
    """Nothing is traced here, but stock clients ask for it."""
    param = "session.tracing"
    if value in (None, "auto"):
        return
    if not isinstance(value, dict):
        raise InputError(f"{param} must be 'auto', an object or null", param=param)
    check(TracingConfiguration, value, param)


def check_language(language: str | None, defaults: Defaults, param: str) -> None:
    """Check a language that the user is said to speak; None has it detected."""
    if language and defaults.languages and language.split("-")[0] not in defaults.languages:
        raise InputError(
            f"the language {short(language)} is not heard here; send an ISO 639-1 code such as "
            "'en', or leave it out to have it detected",
            param=param,
        )


def _check_truncation(value: Any) -> None:
    param = "session.truncation"
    if value is None or value in ("auto", "disabled"):
        return
    if not isinstance(value, dict):
        raise InputError(
            f"{param} must be 'auto', 'disabled' or {{'type': 'retention_ratio', "
            f"'retention_ratio': 0.8}}, not {short(value)}",
            param=param,
        )
    check(rt.RealtimeTruncationRetentionRatio, value, param)
    _bounded(value["retention_ratio"], (0.0, 1.0), f"{param}.retention_ratio")
    limit = (value.get("token_limits") or {}).get("post_instructions")
    _bounded(limit, (1, 10_000_000), f"{param}.token_limits.post_instructions")


def _check_elsewhere(options: Mapping[str, Any], path: str) -> None:
    for key, why in _ELSEWHERE.items():
        if options.get(key) is not None:
            raise InputError(f"{path}.{key}: {why}", param=f"{path}.{key}", code="unsupported")


def _check_modalities(value: Any, param: str) -> None:
    if value is not None and list(value) not in (["text"], ["audio"]):
        raise InputError(
            f"{param} must be ['audio'] (speech with its transcript) or ['text'], "
            f"not {short(value)}",
            param=param,
        )


def _bounded(value: Any, bounds: tuple[float, float], param: str) -> None:
    low, high = bounds
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InputError(
            f"{param} must be between {low:g} and {high:g}, not {short(value)}", param=param
        )


def _check_sampling(options: Mapping[str, Any], path: str) -> None:
    _bounded(options.get("temperature"), TEMPERATURE, f"{path}.temperature")
    _bounded(options.get("top_p"), (0.0, 1.0), f"{path}.top_p")
    seed = options.get("seed")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise InputError(f"{path}.seed must be an integer, not {short(seed)}", param=f"{path}.seed")
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
    if not isinstance(detection, dict):
        raise InputError(f"{param} must be an object or null", param=param)
    kind = detection.get("type")
    if not isinstance(kind, str) or kind not in kinds:
        raise InputError(
            f"{param}.type must be 'server_vad', 'semantic_vad', or null instead of the object "
            f"(push to talk), not {short(kind)}",
            param=f"{param}.type",
        )
    check(kinds[kind], detection, param)
    _bounded(detection.get("threshold"), (0.0, 1.0), f"{param}.threshold")
    _bounded(detection.get("prefix_padding_ms"), (0, 5_000), f"{param}.prefix_padding_ms")
    _bounded(detection.get("silence_duration_ms"), (50, 10_000), f"{param}.silence_duration_ms")
    _bounded(detection.get("idle_timeout_ms"), (1_000, 600_000), f"{param}.idle_timeout_ms")


def known_voice(value: Any, defaults: Defaults, param: str) -> str | None:
    """The voice that ``value``, a name or ``{"id": name}``, asks for; None: that of the language.

    Stock clients that ask for one of OpenAI's voices get that of the language, too.
    """
    name = value.get("id") if isinstance(value, dict) else value
    if name is None or name == "auto" or name in OPENAI_VOICES:
        return None
    if defaults.voices and name not in defaults.voices:
        known = ", ".join(("auto", *defaults.voices))
        raise InputError(f"unknown voice {short(name)}; known are: {known}", param=param)
    return str(name)
