"""``POST /v1/chat/completions``."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse, Response

from encoders.media import AudioWriter
from omni import events as ev
from omni.errors import InputError, OmniError
from omni.types import AudioChunk, Sampling, Usage
from runtime.api.chat_body import ChatRequest
from runtime.api.content import Reader
from runtime.api.errors import describe_error
from runtime.api.examples import CHAT
from runtime.api.media import MediaSource
from runtime.api.models import check_model
from runtime.api.slot import Slot, Stream, ready_hub, server_sent, while_connected
from runtime.api.speech import check_voice
from runtime.drawing import wish_in
from runtime.formats import WireFormat
from runtime.hub import Hub
from runtime.wire import encode_base64

router = APIRouter(tags=["chat"])


@router.post("/v1/chat/completions", summary="Answer a conversation", response_model=None)
async def create_chat_completion(
    request: Request, body: Annotated[ChatRequest, Body(openapi_examples=CHAT)]
) -> Response:
    """Text, pictures, recordings and clips in; text, speech and tool calls out.

    Media come as data URLs or base64. With `"stream": true` the answer comes as server-sent events.
    """
    hub = ready_hub(request)
    check_model(hub, body.model)
    body.check()
    voice = check_voice(hub, body.audio.voice, "audio.voice") if body.audio else None
    answering = _Answering(hub, body, voice)
    if body.stream:
        pieces = answering.pieces()
        return await Stream.begin(request, pieces, media_type="text/event-stream")
    return JSONResponse(await while_connected(request, answering.whole()))


@dataclass
class _Said:
    """What an answer consists of so far."""

    text: str = ""
    sound: list[AudioChunk] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)


class _Answering:
    """One answer, as a whole or in pieces."""

    def __init__(self, hub: Hub, body: ChatRequest, voice: str | None) -> None:
        self._hub = hub
        self._voice = voice
        self._body = body
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._audio_id = f"audio_{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._began = time.monotonic()
        self._said = _Said()

    async def _events(self) -> AsyncGenerator[ev.OutputEvent]:
        """The events of the answer; what fails is raised, and all is counted."""
        body, said = self._body, self._said
        status, usage = "cancelled", Usage()
        with Slot(self._hub) as slot:
            source = MediaSource(self._hub.config.media_hosts)
            reader = Reader(slot, source, self._hub.spoken.recall)
            messages = await reader.read(body.messages)
            start = ev.Start(
                self._id,
                messages,
                self._sampling(),
                speak=body.speaks,
                voice=self._voice,
                tools=body.tool_use,
                schema=body.schema_of_answer,
                keep_ratio=None,
                wish=wish_in(messages) if self._draws else None,
            )
            try:
                async for event in slot.answer(start):
                    match event:
                        case ev.TextDelta(_, text, at):
                            said.stages.setdefault("first_token", at - self._began)
                            said.text += text
                        case ev.ClauseReady():
                            said.stages.setdefault("first_clause", event.at - self._began)
                        case ev.AudioDelta():
                            said.stages.setdefault("first_audio", event.at - self._began)
                            said.sound.append(event.chunk)
                        case ev.ToolCallStarted():
                            said.calls.append(_call(event.name))
                        case ev.ToolCallEnded():
                            said.calls[event.index]["function"]["arguments"] = event.arguments
                        case ev.PictureEnded():
                            said.images.append(_image(event.data))
                        case ev.ResponseDone():
                            status, usage = event.reason, event.usage
                            if status == "failed":
                                raise _failure(event)
                    yield event
            finally:
                known = {"stop": "completed", "length": "incomplete"}
                self._hub.metrics.answered(
                    known.get(status, status),
                    tokens_in=usage.input_tokens,
                    tokens_out=usage.output_tokens,
                    cached=usage.cached_tokens,
                    stages=said.stages,
                )
                self._hub.metrics.spoke(sum(chunk.seconds for chunk in said.sound))

    @property
    def _draws(self) -> bool:
        """Whether a picture may be the answer: not where a form was asked for."""
        return not self._body.tool_use.tools and self._body.schema_of_answer is None

    def _sampling(self) -> Sampling:
        body, default = self._body, self._hub.config.defaults.sampling
        return Sampling(
            temperature=default.temperature if body.temperature is None else body.temperature,
            top_p=default.top_p if body.top_p is None else body.top_p,
            max_tokens=body.limit,
            stop=tuple(body.stop or ()),
            seed=default.seed if body.seed is None else body.seed,
        )

    # The whole answer

    async def whole(self) -> dict[str, Any]:
        """The `chat.completion` object."""
        reason, usage = "stop", Usage()
        async for event in self._events():
            if isinstance(event, ev.ResponseDone):
                reason, usage = event.reason, event.usage
        said = self._said
        message: dict[str, Any] = {
            "role": "assistant",
            "content": said.text if said.text or not said.calls else None,
            "refusal": None,
        }
        if said.calls:
            message["tool_calls"] = said.calls
        if said.images:
            message["images"] = said.images
        # An answer in a language that no voice knows stays text.
        if self._body.audio is not None and self._body.speaks and said.sound:
            message["content"] = None
            message["audio"] = await asyncio.to_thread(self._audio, self._body.audio.format)
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": self._finish_reason(reason),
        }
        return {**self._head("chat.completion"), "choices": [choice], "usage": _usage(usage)}

    def _audio(self, format: str) -> dict[str, Any]:
        said = self._said
        writer = AudioWriter("pcm" if format == "pcm16" else format, said.sound[0].sample_rate)
        data = writer.write(np.concatenate([chunk.pcm for chunk in said.sound])) + writer.close()
        return {
            "id": self._audio_id,
            "data": encode_base64(data),
            "transcript": said.text,
            "expires_at": self._hub.spoken.keep(self._audio_id, said.text),
        }

    # In pieces

    async def pieces(self) -> AsyncGenerator[str]:
        """Server-sent events with `chat.completion.chunk` objects."""
        opening: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
        if self._body.speaks:
            opening = {"role": "assistant", "audio": {"id": self._audio_id, "transcript": ""}}
        opened = False
        events = self._events()
        try:
            async for event in events:
                if not opened:
                    yield self._piece(opening)
                    opened = True
                if isinstance(event, ev.ResponseDone):
                    for piece in self._ending(event):
                        yield piece
                elif (delta := self._delta(event)) is not None:
                    yield self._piece(delta)
        except OmniError as error:
            if not opened:
                raise
            yield server_sent(describe_error(error)[1])
        finally:
            await events.aclose()
        yield server_sent("[DONE]")

    def _delta(self, event: ev.OutputEvent) -> dict[str, Any] | None:
        match event:
            case ev.TextDelta():
                if self._body.speaks:
                    return {"audio": {"id": self._audio_id, "transcript": event.text}}
                return {"content": event.text}
            case ev.AudioDelta():
                data = encode_base64(WireFormat().encode(event.chunk))
                return {"audio": {"id": self._audio_id, "data": data}}
            case ev.PictureEnded():
                return {"images": [_image(event.data)]}
            case ev.ToolCallStarted():
                return {"tool_calls": [{"index": event.index, **self._said.calls[event.index]}]}
            case ev.ToolCallDelta():
                arguments = {"arguments": event.delta}
                return {"tool_calls": [{"index": event.index, "function": arguments}]}
        return None

    def _ending(self, done: ev.ResponseDone) -> list[str]:
        options = self._body.stream_options
        pieces = []
        if self._body.speaks and self._said.text:
            until = self._hub.spoken.keep(self._audio_id, self._said.text)
            pieces.append(self._piece({"audio": {"id": self._audio_id, "expires_at": until}}))
        pieces.append(self._piece({}, self._finish_reason(done.reason)))
        if options is not None and options.include_usage:
            head = self._head("chat.completion.chunk")
            pieces.append(server_sent({**head, "choices": [], "usage": _usage(done.usage)}))
        return pieces

    def _piece(self, delta: dict[str, Any], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return server_sent({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._hub.config.defaults.model,
        }

    def _finish_reason(self, reason: str) -> str:
        if reason == "length":
            return "length"
        return "tool_calls" if self._said.calls else "stop"


def _call(name: str) -> dict[str, Any]:
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": name, "arguments": ""},
    }


def _image(data: bytes) -> dict[str, Any]:
    url = f"data:image/png;base64,{encode_base64(data)}"
    return {"type": "image_url", "image_url": {"url": url}}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "audio_tokens": usage.audio_tokens,
        },
        "completion_tokens_details": {"audio_tokens": 0, "reasoning_tokens": 0},
    }


def _failure(done: ev.ResponseDone) -> OmniError:
    message = done.error or "the answer failed"
    if done.code is None:
        return OmniError(message)
    return InputError(message, param="messages", code=done.code)
