"""The body of ``POST /v1/chat/completions``: what may be sent, and what of it is ignored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from omni.errors import InputError
from omni.types import Tool, ToolUse
from runtime.checks import MAX_TOOLS

_HARMLESS = frozenset(
    (
        "user",
        "store",
        "metadata",
        "service_tier",
        "safety_identifier",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
    )
)
"""Fields of OpenAI's that change nothing about the answer itself."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "reasoning_effort": ("none",),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "web_search_options": (),
    "moderation": (),
}
"""Fields that are not supported, and the values that ask for nothing."""

_INSTEAD = {
    "n": "send one request for each answer",
    "functions": "send 'tools'",
    "function_call": "send 'tool_choice'",
}

AudioFormat = Literal["wav", "mp3", "flac", "opus", "aac", "pcm16"]


class Strict(BaseModel):
    """No field that is not known, no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(Strict):
    """Words."""

    type: Literal["text"]
    text: str


class RefusalPart(Strict):
    """What the assistant declined with."""

    type: Literal["refusal"]
    refusal: str


class ImageUrl(Strict):
    """A data URL, or an address on a host that the server may fetch from."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Strict):
    """A picture: JPEG, PNG, WebP, GIF."""

    type: Literal["image_url"]
    image_url: ImageUrl


class InputAudio(Strict):
    """A recording, base64."""

    data: str
    format: Literal["wav", "mp3", "flac", "ogg", "opus", "m4a", "aac", "webm", "mp4"]


class AudioPart(Strict):
    """What the user said."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class VideoUrl(Strict):
    """A data URL, or an address on a host that the server may fetch from."""

    url: str


class VideoPart(Strict):
    """A clip, with its sound."""

    type: Literal["video_url"]
    video_url: VideoUrl


def _parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Words = Annotated[list[TextPart], BeforeValidator(_parts, json_schema_input_type=Any)]
Shown = Annotated[
    list[Annotated[TextPart | ImagePart | AudioPart | VideoPart, Field(discriminator="type")]],
    BeforeValidator(_parts, json_schema_input_type=Any),
    Field(min_length=1),
]


class SystemMessage(Strict):
    """Instructions."""

    role: Literal["system", "developer"]
    content: Words
    name: str | None = None


class UserMessage(Strict):
    """What the user says and shows; a string, or a list of parts."""

    role: Literal["user"]
    content: Shown
    name: str | None = None


class CalledFunction(Strict):
    """Its name, and its arguments as JSON text."""

    name: str
    arguments: str


class CalledTool(Strict):
    """A call that the assistant made."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class SpokenBefore(Strict):
    """An answer of this server that was spoken, by the id of its ``audio``."""

    id: str


class AssistantMessage(Strict):
    """An earlier answer."""

    role: Literal["assistant"]
    content: (
        Annotated[
            list[Annotated[TextPart | RefusalPart, Field(discriminator="type")]],
            BeforeValidator(_parts, json_schema_input_type=Any),
        ]
        | None
    ) = None
    refusal: str | None = None
    name: str | None = None
    audio: SpokenBefore | None = None
    tool_calls: list[CalledTool] | None = None
    annotations: Any = None


class ToolMessage(Strict):
    """What a tool gave back."""

    role: Literal["tool"]
    content: Words
    tool_call_id: str


AnyMessage = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


class Function(Strict):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Strict):
    """A tool."""

    type: Literal["function"]
    function: Function


class FunctionName(Strict):
    """Which one."""

    name: str


class NamedChoice(Strict):
    """The function that has to be called."""

    type: Literal["function"]
    function: FunctionName


class JsonSchema(Strict):
    """What the answer has to look like."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class TextFormat(Strict):
    """Any text."""

    type: Literal["text"]


class JsonFormat(Strict):
    """A JSON object."""

    type: Literal["json_object"]


class SchemaFormat(Strict):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


class VoiceId(Strict):
    """A voice by its id."""

    id: str


class AudioOptions(Strict):
    """How the answer is spoken; streams are always pcm16 (24 kHz, mono)."""

    voice: str | VoiceId = "auto"
    format: AudioFormat = "wav"


class StreamOptions(Strict):
    """``include_usage``: the last piece counts the tokens."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(Strict):
    """A request. Fields that OpenAI knows and that change no answer here are accepted."""

    model: str = "omni"
    messages: list[AnyMessage] = Field(min_length=1)
    modalities: list[Literal["text", "audio"]] | None = Field(default=None, min_length=1)
    audio: AudioOptions | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1)]] | None,
        BeforeValidator(_list, json_schema_input_type=Any),
        Field(max_length=16),
    ] = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    response_format: (
        Annotated[TextFormat | JsonFormat | SchemaFormat, Field(discriminator="type")] | None
    ) = None
    tools: list[FunctionTool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_what_changes_nothing(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for name, neutral in _NEUTRAL.items():
            if data.get(name) is not None and data[name] not in neutral:
                raise InputError(
                    f"{name!r} is not supported here; {_INSTEAD.get(name, 'leave it out')}",
                    param=name,
                    code="unsupported",
                )
        return {k: v for k, v in data.items() if k not in _HARMLESS and k not in _NEUTRAL}

    @property
    def speaks(self) -> bool:
        """Whether the answer is spoken."""
        return "audio" in (self.modalities or ())

    @property
    def limit(self) -> int | None:
        """Tokens of the answer at most."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def schema_of_answer(self) -> dict[str, Any] | None:
        """The JSON schema that the text has to follow."""
        match self.response_format:
            case JsonFormat():
                return {"type": "object"}
            case SchemaFormat(json_schema=wanted):
                return wanted.schema_
        return None

    def check(self) -> None:
        """Raise `InputError` for what fits together badly."""
        if self.speaks and self.audio is None:
            raise InputError(
                "'audio' is missing: modalities with 'audio' need {'voice': …, 'format': …}",
                param="audio",
                code="missing_field",
            )
        if self.stream and self.speaks and self.audio and self.audio.format != "pcm16":
            raise InputError(
                f"audio.format must be 'pcm16' in a stream, not {self.audio.format!r}",
                param="audio.format",
            )
        if self.stream_options is not None and not self.stream:
            raise InputError("stream_options needs 'stream': true", param="stream_options")
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise InputError("two tools have the same name; names must differ", param="tools")
        if isinstance(self.tool_choice, NamedChoice):
            if self.tool_choice.function.name not in names:
                raise InputError(
                    f"there is no tool {self.tool_choice.function.name!r}; there are: "
                    f"{', '.join(names) or 'none'}",
                    param="tool_choice.function.name",
                )
        elif self.tool_choice == "required" and not names:
            raise InputError("tool_choice is 'required', but no tools are given", param="tools")
        for path, schema in self._schemas():
            from omni.llm.grammar import check_schema

            check_schema(schema, path)

    def _schemas(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for index, tool in enumerate(self.tools or ()):
            if tool.function.parameters:
                yield f"tools.{index}.function.parameters", tool.function.parameters
        if isinstance(self.response_format, SchemaFormat):
            yield "response_format.json_schema.schema", self.response_format.json_schema.schema_

    @property
    def tool_use(self) -> ToolUse:
        """Which tools the answer may use."""
        tools = tuple(
            Tool(f.name, f.description or "", f.parameters or {})
            for f in (tool.function for tool in self.tools or ())
        )
        if isinstance(self.tool_choice, NamedChoice):
            return ToolUse(tools, "required", self.tool_choice.function.name, parallel=False)
        # Left out, it is off, as in realtime sessions: a small model does not know when to stop.
        return ToolUse(tools, self.tool_choice or "auto", None, bool(self.parallel_tool_calls))
